"""Duplicates and test texts in a corpus; steps of the pipeline (data/pipeline/step.py):

hashing.py          hashes that are the same in every process, forms of a text, where hashes repeat
exact.py            documents, paragraphs and lines that occurred before
shingling.py        the set of runs of words or characters; Jaccard similarity
signatures.py       MinHash: k numbers that estimate the similarity of two sets
lsh.py              bands: which pairs to look at, and the best bands for a threshold
clusters.py         from pairs to clusters
near.py             these four as a step: near duplicates
suffixes.py         long runs of characters that occurred before
decontamination.py  text shared with test files
"""

from .decontamination import decontaminate
from .exact import exact_documents, exact_lines, exact_paragraphs
from .lsh import best_bands, candidate_probability
from .near import minhash
from .shingling import shingles
from .signatures import standard_error
from .suffixes import substrings

__all__ = [
    "best_bands",
    "candidate_probability",
    "decontaminate",
    "exact_documents",
    "exact_lines",
    "exact_paragraphs",
    "minhash",
    "shingles",
    "standard_error",
    "substrings",
]

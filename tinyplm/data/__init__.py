"""From texts to batches of token ids, in reading order:

corpus.py     documents: the default corpus, text files, deduplication, the validation split
packing.py    all documents as one array of token ids, in memory and on disk
batches.py    training and evaluation windows of that array
sentences.py  documents cut into sentences
text_pairs.py pairs of texts, source and target, from files
tables.py     tables of texts: CSV and TSV
pipeline/     from raw text to a corpus: steps over documents, one at a time
cleaning/     steps by rules: one form of Unicode; the rules of C4, Gopher and FineWeb
privacy/      personal data, found by rules and masked
language/     in which language a text is, by character n-grams
quality/      how much a text is like good examples: hashed n-gram logistic regression
model_files.py, model_training.py   files of such models; trains them from files
deduplication/  its steps against duplicates and test texts
mixing.py     sources mixed by weights, temperature and epochs
"""

from .batches import IGNORED, Windows, document_positions, evaluation_windows
from .corpus import deduplicate, default_corpus, read_documents, read_texts, split_documents
from .mixing import Interleaving, MixedDocuments, mixture_amounts, mixture_rates
from .packing import open_tokens, pack, write_tokens
from .sentences import sentence_documents, split_sentences
from .text_pairs import encode_pairs, read_json_pairs, read_tsv_pairs

__all__ = [
    "IGNORED",
    "Interleaving",
    "MixedDocuments",
    "Windows",
    "deduplicate",
    "default_corpus",
    "document_positions",
    "encode_pairs",
    "evaluation_windows",
    "mixture_amounts",
    "mixture_rates",
    "open_tokens",
    "pack",
    "read_json_pairs",
    "read_documents",
    "read_texts",
    "read_tsv_pairs",
    "sentence_documents",
    "split_documents",
    "split_sentences",
    "write_tokens",
]

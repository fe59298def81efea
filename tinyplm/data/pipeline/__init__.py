"""From raw text to a corpus: steps over documents, one at a time, in bounded memory.

step.py       what a step is: Document, Step, CorpusStep
"""

from .step import CorpusStep, Counts, Document, Ragged, Result, Step

__all__ = ["CorpusStep", "Counts", "Document", "Ragged", "Result", "Step"]

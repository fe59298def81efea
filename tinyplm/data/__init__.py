"""From texts to batches: corpus.py -> packing.py -> batches.py (read them in this order); sentences.py."""

from .batches import IGNORED, Windows, document_positions, evaluation_windows
from .corpus import deduplicate, default_corpus, read_texts, split_documents
from .packing import open_tokens, pack, write_tokens
from .sentences import sentence_documents, split_sentences

__all__ = [
    "IGNORED",
    "Windows",
    "deduplicate",
    "default_corpus",
    "document_positions",
    "evaluation_windows",
    "open_tokens",
    "pack",
    "read_texts",
    "sentence_documents",
    "split_documents",
    "split_sentences",
    "write_tokens",
]

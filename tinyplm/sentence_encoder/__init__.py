"""Sentence embeddings (Reimers & Gurevych 2019): an encoder whose hidden states are pooled to one
vector per text, of length 1.

encoder = SentenceEncoder.load("folder")                     # a sentence-transformers folder
vectors = encoder.encode(["A dog barks.", "Es regnet."])     # (2, D) float32
places, scores = nearest(encoder.encode(["weather"]), vectors, k=1)

embeddings, backward = encoder(**encoder.inputs(texts), key=0)     # fine-tuning, as with any model
dparams = backward(dembeddings)

encoder.py      SentenceEncoder
files.py        the folder layout of sentence-transformers
similarity.py   nearest vectors by cosine
"""

from .encoder import POOLINGS, SentenceEncoder
from .similarity import cosine_similarity, nearest

__all__ = ["POOLINGS", "SentenceEncoder", "cosine_similarity", "nearest"]

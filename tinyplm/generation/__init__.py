"""Text generation with a causal language model.

decode.py     generate and stream: prompts in, continuations out, with a key/value cache
sampling.py   from logits to a token: penalties, temperature, top-k, top-p, min-p
text.py       text from tokens as they arrive, up to a stop string
"""

from .decode import Continuation, Memory, Piece, generate, stream
from .sampling import Sampling, token_distribution
from .text import TextStream

__all__ = [
    "Continuation",
    "Memory",
    "Piece",
    "Sampling",
    "TextStream",
    "generate",
    "stream",
    "token_distribution",
]

"""Text generation with a decoder or an encoder-decoder.

decode.py         generate and stream: prompts in, continuations out, with a key/value cache
pieces.py         the pieces of a stream, whole continuations
speculative.py    a draft proposes several tokens, the model checks them in one pass
proposals.py      who proposes: what is asked of it, and a draft model
module_draft.py   the other one: the model's own modules for later tokens
beam.py           beam search: the most probable continuations
infill.py         blanks in the middle of a text, filled by a GLM or with sentinels
blanks.py         what marks the blanks, by the kind of model
state.py          what they ask of a model: the texts so far, the next logits, which rows continue
batch.py          a decoder's state: texts padded to one width, their keys and values
rewriting.py      a decoder's state whose texts may lose their last tokens again
source_batch.py   an encoder-decoder's: the sources, encoded once, and the texts that follow
settings.py       options and prompts, checked
sampling.py       from logits to a token: penalties, temperature, top-k, top-p, min-p
text.py           text from tokens as they arrive, up to a stop string
"""

from .batch import Memory
from .beam import Hypothesis, beam_search
from .decode import generate, stream
from .infill import Blank, Filled, fill
from .pieces import Continuation, Piece
from .sampling import Sampling, token_distribution
from .speculative import DraftStatistics, expected_tokens
from .text import TextStream

__all__ = [
    "Blank",
    "Continuation",
    "DraftStatistics",
    "Filled",
    "Hypothesis",
    "Memory",
    "Piece",
    "Sampling",
    "TextStream",
    "beam_search",
    "expected_tokens",
    "fill",
    "generate",
    "stream",
    "token_distribution",
]

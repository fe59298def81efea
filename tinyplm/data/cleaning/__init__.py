"""Steps of rules (data/pipeline/step.py), from published pipelines.

unicode.py    one form of the same text
words.py      what a word, a line and a paragraph is, also without spaces
c4.py         lines of running text; repeated spans of three sentences
gopher.py     the form of words and lines, and repetition in a document, counted by repeats.py
fineweb.py    what FineWeb adds
"""

from .c4 import c4, c4_spans
from .fineweb import fineweb
from .gopher import gopher_quality, gopher_repetition
from .unicode import unicode

__all__ = ["c4", "c4_spans", "fineweb", "gopher_quality", "gopher_repetition", "unicode"]

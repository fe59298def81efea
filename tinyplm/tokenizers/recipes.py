"""The kinds of tokenizers that can be trained: which components go with which algorithm.

    kind               as in            cut into words        model
    byte-level BPE     GPT-2, LLaMA-3   at kinds of letters   BPE over bytes
    BPE                GPT              at spaces, marks      BPE over characters, "</w>" ends a word
    SentencePiece BPE  LLaMA, LLaMA-2   before each "▁"       BPE over characters, unknown ones as bytes
    WordPiece          BERT             at spaces, marks      WordPiece, "##" goes on with a word
    Unigram            T5, XLNet        before each "▁"       Unigram

A recipe is a function of its options, so a pattern or a limit is given to Tokenizer.train by name.  Whoever wants another
chain trains a model on words of his own and puts the components together: Tokenizer(model, normalizer=..., ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import decoding, normalization, pretokenization
from .added import AddedToken
from .bpe_model import BPE
from .bytelevel import BYTE_TO_CHAR
from .sentencepiece import parts_of_pieces
from .sentencepiece_bpe import train_sentencepiece_bpe
from .templates import ByteLevel, TemplateProcessing
from .unigram import Unigram
from .unigram_training import train_unigram
from .wordpiece import WordPiece, train_wordpiece

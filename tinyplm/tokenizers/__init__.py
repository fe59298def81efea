"""Tokenizers, trainable and exact: text to ids and back.  A ladder of files, to be read in this order:

component.py            what a component is: a frozen dataclass, an object of a tokenizer.json
vocabulary.py           what holds for every vocabulary
bytelevel.py            bytes as characters that can be seen
pairs.py                pairs of neighbouring symbols, counted once and kept right
bpe.py, bpe_model.py    byte-pair encoding: the algorithm, and the model over it
wordpiece.py            WordPiece, applied;        wordpiece_training.py   and learnt by likelihood
unigram.py              the unigram model;         unigram_training.py     and EM and pruning
suffixes.py             all substrings, from a suffix array;   lattices.py   all segmentations of many words at once
sentencepiece_bpe.py    SentencePiece's BPE;       scripts.py              the scripts it keeps apart

alignment.py            text that remembers where each character came from
normalization.py        normalizers;               unicode_forms.py, precompiled.py   NFC ..., SentencePiece's rules
patterns.py             the patterns of well-known models;   backtracking.py   which patterns need a limit of time
pretokenization.py      text to words
decoding.py             tokens to text;            stream.py               as they come, never half a character
added.py                added tokens, matched as a whole
encoding.py             ids with offsets and more; truncation, padding, arrays
templates.py            post-processors: [CLS] A [SEP] B [SEP]

pipeline.py             the way of a text through the components
recipes.py              the kinds that can be trained: which components go together
tokenizer.py            the tokenizer;             continuation.py         text that continues a text
json_file.py            tokenizer.json;            sentencepiece.py        .model files
folders.py, files.py    folders of the hub;        settings.py             tokenizer_config.json and what stands beside it
chat.py                 chat formats;              chat_templates.py      templates of model folders, within limits
"""

from .text.added_tokens import AddedToken
from .text.encoding import Encoding, Padding, Truncation
from .tokenizer import Tokenizer
from .training.recipes import RECIPES

__all__ = ["RECIPES", "AddedToken", "Encoding", "Padding", "Tokenizer", "Truncation"]

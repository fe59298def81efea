"""Tokenizers: text to ids and back.  Trainable, and equal to the library `tokenizers` on its files.

    models/      BPE, WordPiece and Unigram: from words to ids
    training/    learns their vocabularies from word counts
    text/        normalization, pre-tokenization, added tokens, encodings, decoding
    files/       tokenizer.json, SentencePiece .model files, folders of the Hugging Face hub
    chat/        chat formats, and the chat templates of model folders

The files in reading order, each building on those before it:

    component.py                     components: frozen dataclasses that mirror a tokenizer.json
    vocabulary.py                    what every vocabulary must satisfy
    text/bytelevel.py                bytes as printable characters
    training/pairs.py                incremental counts of adjacent pairs
    training/bpe.py                  byte-pair encoding: learning merges
    models/bpe.py                    and applying them
    models/wordpiece.py              WordPiece: greedy longest match
    training/wordpiece.py            merges chosen by likelihood
    models/unigram.py                the unigram model: Viterbi, n-best, sampling
    training/unigram.py              EM and pruning
    training/suffixes.py             all substrings, from a suffix array
    training/lattices.py             the segmentation lattices of many words at once
    training/sentencepiece_bpe.py    SentencePiece's BPE; scripts.py: the scripts it keeps apart
    models/sentencepiece_bpe.py      its scores, converted to merges

    text/alignment.py                text that tracks the origin of each character
    text/normalization.py            normalizers
    text/unicode_forms.py            NFC, NFD, NFKC, NFKD
    text/precompiled.py              SentencePiece's compiled character maps
    text/patterns.py                 the split patterns of known models; translation to `regex`
    text/backtracking.py             which patterns need a time limit
    text/pretokenization.py          pre-tokenizers: text to words
    text/decoding.py                 decoders: tokens to text
    text/stream.py                   streaming decoding, without partial characters
    text/added_tokens.py             added tokens, matched before everything else
    text/encoding.py                 ids with offsets and masks; truncation, padding, arrays
    text/postprocessing.py           post-processors: [CLS] A [SEP] B [SEP]

    pipeline.py                      runs a text through the components
    training/recipes.py              the trainable kinds: which components go together
    tokenizer.py                     Tokenizer: text to ids
    detokenizer.py                   its base: ids to text; lookup.py: ids by token and by name
    continuation.py                  encoding text that continues other text
    files/tokenizer_json.py          tokenizer.json
    files/sentencepiece.py           SentencePiece .model files
    files/tiktoken.py                tiktoken's files of ranks
    files/settings.py                tokenizer_config.json and related files
    files/chatglm.py                 what the classes of ChatGLM and GLM-4 add to a vocabulary
    files/tokenizer_classes.py       folders with a vocabulary and the name of a tokenizer class;
                                     vocabularies.py and added.py read their files
    files/folders.py                 loading and saving a file or a folder
    chat/formats.py                  ChatML, LLaMA-2, LLaMA-3, Alpaca; encoding a conversation
    chat/sandbox.py                  running untrusted chat templates within limits (meter.py)
"""

from .models.bpe import BPE
from .models.unigram import Unigram
from .models.wordpiece import WordPiece
from .text.added_tokens import AddedToken
from .text.encoding import Encoding, Padding, Truncation
from .tokenizer import Tokenizer
from .training.recipes import RECIPES

__all__ = [
    "BPE",
    "RECIPES",
    "AddedToken",
    "Encoding",
    "Padding",
    "Tokenizer",
    "Truncation",
    "Unigram",
    "WordPiece",
]

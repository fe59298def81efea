"""Train a tokenizer on text, or show how one cuts a text into tokens.

    tinyplm tokenizer --text book.txt notes/*.txt --vocabulary 8000 --out my-tokenizer
    tinyplm tokenizer --text book.txt --kind Unigram --out my-tokenizer --show "Some text."
    tinyplm tokenizer --model gpt2-folder --show "Tokenizers don't understand words."
    tinyplm tokenizer --model sentencepiece.model --out as-tokenizer-json

Tokenizer and transformers' tokenizers load the folder.  Without --show, a given tokenizer is
described.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..arguments import mismatch, shown
from ..data.corpus import deduplicate, default_corpus, read_texts
from ..files import exists, printable
from ..hub.runs import TOKENIZERS, model_folder
from ..tokenizers import RECIPES, Tokenizer
from .folders import config_option, unused
from .models import model_option
from .output import counted, table
from .parser import Parser, one_of, whole

NEW = ("text", "kind", "vocabulary", "special")  # options of a new tokenizer


def add(parser: Parser) -> None:
    option = parser.option
    parser.section("a new tokenizer")
    text = "UTF-8 text files to train on."
    option("--text", [], text, nargs="+", metavar="FILE", shown="Python's own documentation")
    kinds = f"Kind: {', '.join(RECIPES)}."
    option("--kind", "byte-level BPE", kinds, one_of(*RECIPES), metavar="KIND")
    option("--vocabulary", 4096, "Largest number of entries.", whole(1))
    text = "Special tokens, such as <|endoftext|>, in place of the kind's own."
    option("--special", [], text, nargs="+", metavar="TOKEN", shown="those of the kind")
    text = "New or empty folder to write it into."
    option("--out", None, text, metavar="FOLDER", shown="none with --model")
    parser.section("what to show")
    text = "Folder, or file, of a given tokenizer; a model's or a run's folder has one."
    model_option(parser, help=text, needed=False, shown="a new one")
    option("--show", [], "Texts to cut into tokens.", nargs="+", metavar="TEXT", shown="none")
    text = "Read special tokens in these texts as such, and not as text that spells them."
    parser.flag("--allow-special", text)
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    out = None if options.out is None else unused(options.out)
    if options.model is not None:
        if extra := [name for name in NEW if name in options.given]:
            raise mismatch(f"--{extra[0]}", "none, since --model is trained already", "one")
        tokenizer = given(options.model)
    elif out is None:
        expected = "a folder for a new tokenizer, or --model with a given one"
        raise mismatch("--out", expected, "neither")
    else:
        tokenizer = trained(options)
    print(f"tokenizer  {type(tokenizer.model).__name__}, {tokenizer.vocab_size:,} entries")
    print(f"special    {special(tokenizer)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
        print(f"written    {out / 'tokenizer.json'}")
    for text in options.show:
        print(f"\n{describe(tokenizer, text, allow_special=options.allow_special)}")


def given(name: str) -> Tokenizer:
    """The tokenizer in a file, in a folder, or of a run's model."""
    path = Path(name)
    if path.is_dir() and not any(exists(path / file) for file in TOKENIZERS):
        path = model_folder(path, "--model")
    if not path.exists():
        raise mismatch(
            "--model",
            "a folder or a file with a tokenizer",
            f"{printable(name)}, which does not exist",
        )
    return Tokenizer.load(path)


def trained(options: argparse.Namespace) -> Tokenizer:
    begin = time.perf_counter()
    texts = deduplicate(read_texts(options.text)) if options.text else default_corpus()
    size = sum(len(text.encode()) for text in texts)
    tokenizer = Tokenizer.train(texts, options.vocabulary, options.special or None, options.kind)
    count = sum(map(len, tokenizer.encode_batch(texts)))
    seconds = f"{time.perf_counter() - begin:.0f} s"
    print(f"text       {counted(len(texts), 'document')}, {size / 1e6:.2f} MB ({seconds})")
    print(f"tokens     {count:,} of this text, {size / max(count, 1):.2f} bytes each")
    return tokenizer


def special(tokenizer: Tokenizer) -> str:
    """The special tokens with their ids, and what they are named."""
    names: dict[str, list[str]] = {}
    for name, token in tokenizer.named.items():
        names.setdefault(token, []).append(name.removesuffix("_token"))
    found = []
    for added in tokenizer.added_tokens:
        if added.special:
            roles = f" ({', '.join(names[added.content])})" if added.content in names else ""
            found.append(f"{printable(added.content)} {added.id}{roles}")
    return ", ".join(found) or "none"


def describe(tokenizer: Tokenizer, text: str, *, allow_special: bool = False) -> str:
    """The tokens of a text, one a line, with ids and places; special tokens that are added, too."""
    found = tokenizer.encoding(text, allow_special=allow_special)
    lines = [("token", "id", "characters", "text")]
    rows = zip(found.tokens, found.ids, found.offsets, found.special_tokens_mask)
    for token, id, (start, end), added in rows:
        place = "" if added else f"{start} to {end}"
        lines.append((printable(token), str(id), place, "" if added else shown(text[start:end])))
    extra = sum(found.special_tokens_mask)
    own = len(found.ids) - extra
    size = len(text.encode())
    each = f", {size / own:.2f} bytes a token" if own else ""
    more = f" and {extra} that the tokenizer adds" if extra else ""
    count = f"{own} tokens{more}, {size} bytes{each}"
    return f"{shown(text, 100)}\n{table(lines, left=(0, 3))}\n{count}"

"""Tokenizers against `tokenizers` and `sentencepiece`: training, encoding, decoding, loading.

    python benchmarks/tokenizers.py
    python benchmarks/tokenizers.py --rounds 9 --row "encode English" --row "encode Chinese"

Each library runs in its own process with one thread; the two alternate, one call each.  Both must
first give the same ids for the texts of the table.  Prints megabytes of UTF-8 text per second and
seconds per call (medians), and the peer's time over ours: 2.00 means that ours takes half the time,
0.50 twice the time.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from table import Table, add_option
from turns import libraries_only, median_ratio, serve, take_turns

libraries_only()  # `import tokenizers` imports the library, not this file
os.environ |= {
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

ENTRIES = 8192
LARGE = 128_000  # entries, as in LLaMA-3
COLD, WARM = True, False  # an empty or a filled word cache


class Row(NamedTuple):
    """make(folder, library, row) -> (prepare, work): calls work(prepare()) and times work.

    target: the ratio to reach (0.2: at most five times the peer's time); None without a target.
    """

    peer: str
    make: Callable
    tokenizer: str
    text: str
    target: float | None
    rounds: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--row", action="append", help="only rows whose name contains this; may be repeated"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=7,
        help="calls of each library; always 3 for training (default: %(default)s)",
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        (name,) = options.row
        row = ROWS[name]
        prepare, work = row.make(options.folder, options.serve, row)
        serve(work, prepare=prepare, warm_up=0 if row.make is training else 1)
        return
    names = [name for name in ROWS if any(part in name for part in options.row or [""])]
    with tempfile.TemporaryDirectory() as folder:
        sizes = write_texts(Path(folder))
        write_tokenizers(Path(folder), {ROWS[name].tokenizer for name in names})
        for row in {ROWS[name].tokenizer: ROWS[name] for name in names if ROWS[name].text}.values():
            compare_ids(Path(folder), row)
        columns = dict.fromkeys(("tinyplm MB/s", "peer MB/s"), ".2f") | dict.fromkeys(
            ("tinyplm s", "peer s"), ".3f"
        )
        columns |= dict.fromkeys(("ratio", "target"), ".2f")
        table = Table("task (peer)", columns, file=options.json, width=46)
        for name in names:
            values = measured(folder, name, sizes.get(ROWS[name].text, 0), options.rounds)
            table.row(f"{name} ({ROWS[name].peer})", *values)


def measured(folder: str, name: str, size: int, rounds: int) -> list[float | None]:
    """The values of one row of the table."""
    row = ROWS[name]
    results = take_turns(
        __file__, ("tinyplm", row.peer), ["--row", name, "--folder", folder], row.rounds or rounds
    )
    ours, theirs = results["tinyplm"][1], results[row.peer][1]
    medians = [statistics.median(ours), statistics.median(theirs)]
    rates = [size / 1e6 / median if size else None for median in medians]
    return [*rates, *medians, median_ratio(theirs, ours), row.target]


# ---- texts and tokenizers, created once


def write_texts(folder: Path) -> dict[str, int]:
    """Write the texts; {name: bytes}."""
    from tinyplm.data import default_corpus

    documents = default_corpus()
    texts = {
        "english": "".join(documents),
        "chinese": chinese(1),
        "chinese to train on": chinese(2),
        "a": "a" * 1_000_000,
        "spaces": " " * 1_000_000,
    }
    repeated, size = [], 0  # the corpus repeated up to 5 MB: training counts words over all of it
    for document in cycle(documents):
        if size >= 5_000_000:
            break
        repeated.append(document)
        size += len(document.encode())
    texts["5 MB"] = "".join(repeated)
    texts["100 kB"] = texts["english"][:100_000]
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return {name: len(text.encode()) for name, text in texts.items()}


def chinese(seed: int) -> str:
    """1 MB of text without spaces: clauses of words with Zipf's frequencies, hardly any repeated.

    The vocabulary is the same for every seed: words of one to four of 3,000 characters.
    """
    rng = random.Random(0)
    chars = [chr(0x4E00 + i) for i in rng.sample(range(20_000), 3_000)]
    by_rank = [1 / (rank + 10) for rank in range(20_000)]
    words = [
        "".join(rng.choices(chars, by_rank[:3_000], k=rng.choice((1, 2, 2, 2, 3, 4))))
        for _ in range(20_000)
    ]
    rng = random.Random(seed)
    clauses, size = [], 0
    while size < 1_000_000:
        clauses.append(
            "".join(rng.choices(words, by_rank, k=rng.randint(4, 12))) + rng.choice("，，，。？")
        )
        size += 3 * len(clauses[-1])
    return "".join(clauses)


def write_tokenizers(folder: Path, names: set[str]) -> None:
    """Write name.json, trained by tinyplm; SentencePiece trains its own .model, which both read."""
    from tinyplm.tokenizers import Tokenizer
    from tinyplm.tokenizers.text.patterns import LLAMA3_PATTERN

    english, mixed = (
        [read(folder, "english")],
        [read(folder, "english"), *(read(folder, "chinese to train on").split("。"))],
    )
    trained: dict[str, tuple[list[str], str, dict]] = {
        "GPT-2": (english, "byte-level BPE", {}),
        "LLaMA-3": (english, "byte-level BPE", {"pattern": LLAMA3_PATTERN}),
        "Chinese": (mixed, "byte-level BPE", {}),
        "WordPiece": (english, "WordPiece", {"criterion": "frequency"}),
        "Unigram": (english, "Unigram", {}),
    }
    for name in names & trained.keys():
        texts, kind, options = trained[name]
        Tokenizer.train(texts, ENTRIES, kind=kind, **options).save(folder / f"{name}.json")
    if "large" in names:
        Tokenizer(**large_parts()).save(folder / "large.json")
    for name, model_type in {"SentencePiece": "bpe", "SentencePiece, Unigram": "unigram"}.items():
        if name in names:
            (folder / f"{name}.model").write_bytes(
                train_sentencepiece(english[0].splitlines(), model_type)
            )


def large_parts() -> dict[str, Any]:
    """A byte-level BPE of random merges, the size of LLaMA-3's."""
    from tinyplm.tokenizers.models.bpe import BPE
    from tinyplm.tokenizers.text.bytelevel import BYTE_TO_CHAR
    from tinyplm.tokenizers.text.decoding import ByteLevel
    from tinyplm.tokenizers.text.pretokenization import ByteLevel as Cut

    rng = random.Random(0)
    tokens, merges = sorted(BYTE_TO_CHAR), []
    seen = {*tokens}
    while len(tokens) < LARGE:
        a, b = (
            tokens[int(len(tokens) * rng.random() ** 3)],
            tokens[int(len(tokens) * rng.random() ** 3)],
        )
        if len(a + b) <= 12 and a + b not in seen:
            merges.append((a, b))
            tokens.append(a + b)
            seen.add(a + b)
    model = BPE({token: id for id, token in enumerate(tokens)}, merges)
    return {"model": model, "pre_tokenizer": Cut(False), "decoder": ByteLevel(False)}


def compare_ids(folder: Path, row: Row) -> None:
    """RuntimeError unless both libraries give the same ids for the row's text."""
    if row.make is training:
        return
    text = read(folder, row.text)
    ours, theirs = (
        ids_of("tinyplm", load(folder, "tinyplm", row))(text),
        ids_of(row.peer, load(folder, row.peer, row))(text),
    )
    if ours != theirs:
        at = next(i for i, (a, b) in enumerate(zip([*ours, None], [*theirs, None])) if a != b)
        raise RuntimeError(
            f"{row.tokenizer}: expected the ids of {row.peer}, got a difference at token {at}"
        )


# ---- the timed work


def read(folder: Path, name: str) -> str:
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def load(folder: Path, library: str, row: Row) -> Any:
    suffix = ".model" if row.peer == "sentencepiece" else ".json"
    file = str(folder / (row.tokenizer + suffix))
    if library == "tinyplm":
        from tinyplm.tokenizers import Tokenizer

        return Tokenizer.load(file)
    if library == "sentencepiece":
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=file)
    import tokenizers

    return tokenizers.Tokenizer.from_file(file)


def ids_of(library: str, tokenizer: Any) -> Callable[[str], list[int]]:
    if library == "tokenizers":
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    return tokenizer.encode


def encoding(cold: bool) -> Callable:
    """The ids of the text as a list; cold: a fresh tokenizer for each call."""

    def make(folder: Path, library: str, row: Row) -> tuple[Callable, Callable]:
        text, tokenizer = read(folder, row.text), load(folder, library, row)
        prepare = (lambda: load(folder, library, row)) if cold else (lambda: tokenizer)
        return prepare, lambda tokenizer: ids_of(library, tokenizer)(text)

    return make


def offsets(folder: Path, library: str, row: Row) -> tuple[Callable, Callable]:
    """Ids, tokens and offsets as lists."""
    text, tokenizer = read(folder, row.text), load(folder, library, row)

    def work(_: Any) -> Any:
        found = tokenizer.encoding(text) if library == "tinyplm" else tokenizer.encode(text)
        return found.ids, found.tokens, found.offsets

    return lambda: None, work


def decoding(folder: Path, library: str, row: Row) -> tuple[Callable, Callable]:
    tokenizer = load(folder, library, row)
    ids = ids_of(library, tokenizer)(read(folder, row.text))
    return lambda: None, lambda _: tokenizer.decode(ids)


def loading(folder: Path, library: str, row: Row) -> tuple[Callable, Callable]:
    return lambda: None, lambda _: load(folder, library, row)


def training(folder: Path, library: str, row: Row) -> tuple[Callable, Callable]:
    """For sentencepiece, both train on lines; `tokenizers` trains the components of our recipe."""
    text = read(folder, row.text)
    texts = text.splitlines() if row.peer == "sentencepiece" else [text]
    kind = row.tokenizer
    if library == "tinyplm":
        from tinyplm.tokenizers import Tokenizer

        options = {"criterion": "frequency"} if kind == "WordPiece" else {}
        return lambda: None, lambda _: Tokenizer.train(texts, ENTRIES, kind=kind, **options)
    if library == "sentencepiece":
        model_type = "unigram" if kind == "Unigram" else "bpe"
        return lambda: None, lambda _: train_sentencepiece(texts, model_type)
    return lambda: None, lambda _: train_tokenizers(texts, kind)


def train_sentencepiece(lines: list[str], model_type: str) -> bytes:
    import io

    import sentencepiece

    model = io.BytesIO()
    rules = {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=model_type,
        vocab_size=ENTRIES,
        num_threads=1,
        max_sentence_length=1_000_000,
        minloglevel=2,
        **(rules if model_type == "bpe" else {}),
    )
    return model.getvalue()


def train_tokenizers(texts: list[str], kind: str) -> Any:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    common = {"vocab_size": ENTRIES, "show_progress": False}
    if kind == "byte-level BPE":
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, **common
        )
    elif kind == "WordPiece":
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = (
            normalizers.BertNormalizer(),
            pre_tokenizers.BertPreTokenizer(),
        )
        trainer = trainers.WordPieceTrainer(
            special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], **common
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        spaces = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Nmt(), normalizers.NFKC(), spaces, normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", **common
        )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


ROWS = {
    "train byte-level BPE, 5 MB": Row("tokenizers", training, "byte-level BPE", "5 MB", 1 / 5, 3),
    "train WordPiece, 5 MB": Row("tokenizers", training, "WordPiece", "5 MB", None, 3),
    "train Unigram, 5 MB": Row("tokenizers", training, "Unigram", "5 MB", None, 3),
    "train Unigram, 5 MB, lines": Row("sentencepiece", training, "Unigram", "5 MB", None, 3),
    "train SentencePiece BPE, 5 MB": Row(
        "sentencepiece", training, "SentencePiece BPE", "5 MB", None, 3
    ),
    "encode English, GPT-2, cold": Row("tokenizers", encoding(COLD), "GPT-2", "english", 1),
    "encode English, GPT-2, warm": Row("tokenizers", encoding(WARM), "GPT-2", "english", 1),
    "encode English, LLaMA-3, cold": Row("tokenizers", encoding(COLD), "LLaMA-3", "english", 1),
    "encode English, LLaMA-3, warm": Row("tokenizers", encoding(WARM), "LLaMA-3", "english", 1),
    "encode English, WordPiece, cold": Row(
        "tokenizers", encoding(COLD), "WordPiece", "english", 1 / 3
    ),
    "encode English, Unigram, cold": Row("tokenizers", encoding(COLD), "Unigram", "english", 1 / 3),
    "encode English, BPE, cold": Row(
        "sentencepiece", encoding(COLD), "SentencePiece", "english", None
    ),
    "encode 100 kB, Unigram": Row(
        "sentencepiece", encoding(COLD), "SentencePiece, Unigram", "100 kB", None
    ),
    "encode Chinese, GPT-2, cold": Row("tokenizers", encoding(COLD), "Chinese", "chinese", 1 / 4),
    "encode English with offsets": Row("tokenizers", offsets, "GPT-2", "english", None),
    "encode Chinese with offsets": Row("tokenizers", offsets, "Chinese", "chinese", None),
    "decode English": Row("tokenizers", decoding, "GPT-2", "english", None),
    "encode one word of 1,000,000 a": Row("tokenizers", encoding(COLD), "GPT-2", "a", None),
    "encode 1,000,000 spaces": Row("tokenizers", encoding(COLD), "GPT-2", "spaces", None),
    "load 128,000 entries": Row("tokenizers", loading, "large", "", None),
}


if __name__ == "__main__":
    main()

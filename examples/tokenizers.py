"""Train every kind of tokenizer on the same text and compare how they segment the same sentences.

    python examples/tokenizers.py                 # half a minute, English and some Chinese
    python examples/tokenizers.py --sizes 500 1000 --kinds "byte-level BPE" Unigram
    python examples/tokenizers.py --text my-book.txt --save my-tokenizers    # your own text

The steps: read the text and hold out a twentieth; train each kind with each vocabulary size;
segment a few sentences with the largest of each kind; show vocabulary size against bytes per token
on the held-out text, as a table and a plot.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from common import start, text_option

from tinyplm.cli.folders import usable
from tinyplm.cli.output import columns, save_plot
from tinyplm.cli.parser import Parser, one_of, whole
from tinyplm.data.corpus import deduplicate, default_corpus, read_texts, split_documents
from tinyplm.tokenizers import RECIPES, Tokenizer
from tinyplm.tokenizers.text.decoding import ByteLevel
from tinyplm.training.log import Progress

SENTENCES = {
    "English": "Tokenizers don't understand words: they only count what stands together.",
    "Chinese": "我们今天在图书馆一起学习语言模型。",
    "mixed": "昨天 Alice 在 New York 买了 3 本书。",
    "code": "def f(x):\n    return [x ** 2 for x in range(10)]",
    "emoji": "Well done 👍🏽 — 太好了 🎉!",
}

# The default corpus is English only.  These parts make sentences in Chinese and in English.
WHEN = [
    ("今天早上", "This morning"),
    ("昨天晚上", "Last night"),
    ("上个星期", "Last week"),
    ("去年夏天", "Last summer"),
    ("下雨的时候", "When it rained"),
    ("放学以后", "After school"),
    ("吃完饭", "After the meal"),
    ("很久以前", "Long ago"),
]
WHO = [
    ("我", "I"),
    ("你", "you"),
    ("我们", "we"),
    ("他的朋友", "his friend"),
    ("老师", "the teacher"),
    ("小王", "Xiao Wang"),
    ("两个学生", "two students"),
    ("那位医生", "that doctor"),
    ("邻居的孩子", "the neighbour's child"),
    ("奶奶", "grandmother"),
    ("一只黑猫", "a black cat"),
    ("年轻的工程师", "the young engineer"),
]
WHERE = [
    ("在家里", "at home"),
    ("在学校", "at school"),
    ("在图书馆", "in the library"),
    ("在公园", "in the park"),
    ("在火车上", "on the train"),
    ("在河边", "by the river"),
    ("在北京", "in Beijing"),
    ("在市场", "at the market"),
    ("在山上", "on the mountain"),
    ("在电脑前", "in front of the computer"),
]
WHAT = [
    ("买了三本书", "bought three books"),
    ("学习中文", "learned Chinese"),
    ("看见了一只鸟", "saw a bird"),
    ("写了一封长信", "wrote a long letter"),
    ("唱了一首老歌", "sang an old song"),
    ("喝了一杯热茶", "drank a cup of hot tea"),
    ("等了两个小时", "waited for two hours"),
    ("忘了带钱", "forgot the money"),
    ("说了一个故事", "told a story"),
    ("训练了一个语言模型", "trained a language model"),
    ("吃了很多水果", "ate a lot of fruit"),
    ("找到了一个好办法", "found a good way"),
    ("问了一个问题", "asked a question"),
    ("画了一朵花", "painted a flower"),
    ("一起工作", "worked together"),
    ("想起了过去的日子", "thought of former days"),
    ("打开窗户看月亮", "opened the window to look at the moon"),
    ("做了一个奇怪的梦", "had a strange dream"),
]


class Result(NamedTuple):
    """tokens and unknown: counts on the held-out text."""

    kind: str
    size: int
    tokenizer: Tokenizer
    tokens: int
    unknown: int


def sentences() -> list[str]:
    """Documents of 40 Chinese or English sentences, 160 kB: enough to learn the characters."""
    rng = random.Random(0)
    documents = []
    for _ in range(40):
        parts = [[rng.choice(choices) for choices in (WHEN, WHO, WHERE, WHAT)] for _ in range(40)]
        chinese = [f"{when[0]}，{who[0]}{where[0]}{what[0]}。" for when, who, where, what in parts]
        english = [f"{when[1]} {who[1]} {what[1]} {where[1]}." for when, who, where, what in parts]
        documents += ["".join(chinese) + "\n", " ".join(english) + "\n"]
    return documents


def options_for(kind: str, size: int) -> dict:
    """Options a kind needs beyond its defaults.  size: bytes of the training text.

    WordPiece scores a pair by count(ab) / (count(a) count(b)).  Two rare characters that only occur
    together get the highest possible score, so without a minimum frequency they fill the
    vocabulary: on the default corpus 8,000 entries then give 1.8 bytes per token, where 3,757 give
    3.6 if a pair must occur once per 40 kB (no other pairs do).
    """
    return {"min_frequency": max(2, size // 40_000)} if kind == "WordPiece" else {}


def train_all(
    kinds: list[str], sizes: list[int], training: list[str], validation: list[str]
) -> list[Result]:
    total = sum(len(document.encode()) for document in training)
    results = []
    progress = Progress(len(kinds) * len(sizes), 0, unit="tokenizer")
    for kind, size in ((kind, size) for kind in kinds for size in sizes):
        try:
            tokenizer = Tokenizer.train(training, size, kind=kind, **options_for(kind, total))
        except ValueError as error:  # usually fewer entries than characters
            raise ValueError(f"--sizes: {size}: {kind}: {error}") from None
        ids = [id for document in tokenizer.encode_batch(validation) for id in document]
        unknown = ids.count(tokenizer.named_id("unk_token"))
        results.append(Result(kind, size, tokenizer, len(ids), unknown))
        progress.update(1, {"kind": kind, "entries": str(size)})
    progress.close()
    return results


def readable(tokenizer: Tokenizer, id: int) -> str:
    """A token as spelled in the vocabulary; a byte-level one as text, or as bytes."""
    token = tokenizer.id_to_token(id)
    if isinstance(tokenizer.decoder, ByteLevel):
        data = tokenizer.decode_bytes([id])
        try:
            token = data.decode()
        except UnicodeDecodeError:
            token = "".join(f"<0x{byte:02X}>" for byte in data)
    return token.replace(" ", "▁").replace("\n", "⏎")


def show_cuts(results: list[Result]) -> None:
    """Print each sentence as segmented by each tokenizer, with lines broken between tokens."""
    width = columns()
    margin = max(len(result.kind) for result in results) + 15
    for title, sentence in SENTENCES.items():
        print(f"\n{title}: {sentence!r}")
        for kind, _, tokenizer, _, _ in results:
            ids = tokenizer.encode(sentence)
            verdict = "same" if tokenizer.decode(ids) == sentence else "changed"
            line = f"  {kind:<{margin - 15}}{len(ids):>4}  {verdict:<7}  "
            for id in ids:
                piece = readable(tokenizer, id) + "│"
                if len(line) + len(piece) > width and len(line) > margin:
                    print(line)
                    line = " " * margin
                line += piece
            print(line)


def show_sizes(results: list[Result], total: int) -> None:
    width = max(len(result.kind) for result in results)
    print(f"{'':<{width}}  entries  bytes/token  tokens/byte  unknown")
    for kind, size, tokenizer, tokens, unknown in results:
        entries = tokenizer.vocab_size
        full = "" if entries == size else f"  of {size} requested: nothing left to merge"
        ratios = f"{total / tokens:>13.2f}{tokens / total:>13.3f}{unknown / tokens:>9.2%}"
        print(f"{kind:<{width}}{entries:>9}{ratios}{full}")


def by_size(results: list[Result], total: int) -> Callable:
    """A panel: bytes per token by vocabulary size, one line per kind."""

    def panel(axes: Any) -> None:
        for kind in dict.fromkeys(result.kind for result in results):
            points = [(r.tokenizer.vocab_size, total / r.tokens) for r in results if r.kind == kind]
            axes.plot(*zip(*sorted(points)), marker="o", label=kind)
        axes.set(xscale="log", xlabel="vocabulary size", ylabel="bytes per token, held-out text")
        axes.legend()

    return panel


def main() -> None:
    options = parser().options()
    kinds, sizes = list(dict.fromkeys(options.kinds)), sorted({*options.sizes})
    out = Path(options.out)
    usable(out.parent)
    if out.is_dir():
        raise ValueError(f"--out: expected the name of a picture, got {out}, which is a folder")
    if options.save:
        usable(options.save, "--save")
    documents = (
        deduplicate(read_texts(options.text)) if options.text else default_corpus() + sentences()
    )
    training, validation = split_documents(documents, 0.05, 0)
    total = sum(len(document.encode()) for document in validation)
    size = sum(len(document.encode()) for document in documents)
    held_out = f"{len(validation)} of them, {total / 1e6:.2f} MB, held out"
    print(f"corpus     {len(documents)} documents, {size / 1e6:.2f} MB; {held_out}")
    results = train_all(kinds, sizes, training, validation)
    largest = [result for result in results if result.size == max(sizes)]

    print(
        f"\nThe same sentences with at most {max(sizes)} entries: kind, number of tokens, whether\n"
        "decoding restores the text.  │ ends a token, ▁ is a space, ⏎ a line break, <0xE6> a\n"
        "byte, ## continues a word, </w> ends it."
    )
    show_cuts(largest)

    print(
        f"\nOn the {total} held-out bytes (unknown: the share of tokens for characters outside\n"
        "the vocabulary, whose text is lost; kinds that normalise text, for example to lower\n"
        "case, encode less of it):\n"
    )
    show_sizes(results, total)

    print()
    for result in largest if options.save else []:
        folder = Path(options.save, result.kind.lower().replace(" ", "-"))
        folder.mkdir(parents=True, exist_ok=True)
        result.tokenizer.save(folder)
        print(f"saved      {folder / 'tokenizer.json'}")
    save_plot(out, by_size(results, total), size=(8, 4.5))


def parser() -> Parser:
    parser = Parser(__doc__)
    text_option(parser, "Python's own documentation and some Chinese")
    parser.option("--sizes", [1000, 2000, 4000, 8000], "Vocabulary sizes.", whole(1), nargs="+")
    parser.option(
        "--kinds",
        list(RECIPES),
        f"Kinds of tokenizer: {', '.join(RECIPES)}.",
        one_of(*RECIPES),
        nargs="+",
        shown="all",
    )
    parser.option("--out", "out-tokenizers/tokenizers.png", "File for the plot.", metavar="PNG")
    parser.option(
        "--save",
        None,
        "Save the largest of each kind as FOLDER/KIND/tokenizer.json.",
        metavar="FOLDER",
        shown="none is saved",
    )
    return parser


if __name__ == "__main__":
    start(main)

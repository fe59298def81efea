"""Train a Transformer to translate from English into a language that does not exist.

    python examples/translate.py                         # a few minutes on two cores
    python examples/translate.py --out my-run --seed 7   # another language
    python examples/translate.py --out my-run --resume   # continue an interrupted run

The language is made from the seed: its words, and a grammar unlike that of English. The verb comes
last, adjectives and prepositions follow their nouns, nouns have three classes and two cases,
adjectives agree with their nouns, verbs with their subjects, and the vowels of endings with the
last vowel of the stem.

The steps: make sentences; train one tokenizer for both languages; train the model from scratch as
in "Attention is all you need", with label smoothing and the inverse square root schedule; measure
BLEU on unseen sentences during training, and at the end with and without beam search, beside two
simple translators; draw what the decoder attends to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import RESUMABLE, command, finish, interval_options, run_or_resume, run_tokenizer, start
from encoder_decoders import SPECIAL, layout_of, sized, written

import tinyplm
from tinyplm import random
from tinyplm.checks import trace
from tinyplm.cli.folders import usable
from tinyplm.cli.output import save_plot, show_run
from tinyplm.cli.parser import WORKERS, Parser, number, whole
from tinyplm.data import encode_pairs
from tinyplm.evaluation import corpus_bleu, share_equal
from tinyplm.files import sole_writer
from tinyplm.objectives import Seq2SeqPairs
from tinyplm.optim import inverse_sqrt_peak
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import find, started
from tinyplm.training.log import plot
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings

FREE = ("out", "workers", "evaluate_every", "save_every", "beams")  # may change on resume
LONGEST = 64  # tokens of a sentence, with its special tokens; longer ones are cut
Pair = tuple[str, str]

# ------------------------------------------------------------------------------------- the language

NOUNS = (
    "sailor baker sister teacher king child doctor farmer horse cat bird dog river mountain "
    "garden house door letter lamp stone apple ship forest road"
).split()
ADJECTIVES = "old young small red green quiet happy tall strange heavy golden brave".split()
VERBS = "watch follow remember paint carry visit help answer call need".split()
PREPOSITIONS = "near behind under without".split()
ADVERBS = "often today slowly never".split()
CONSONANTS, VOWELS = "ptkmnslrvz", "aeiou"


class Language:
    """Stems made from the seed, and the grammar that turns an English sentence's parts around."""

    def __init__(self, seed: int) -> None:
        draw = random.generator(random.fold(random.key(seed), 0))
        self.stems: dict[str, str] = {}
        for word in (*NOUNS, *ADJECTIVES, *VERBS, *PREPOSITIONS, *ADVERBS):
            while word not in self.stems or len({*self.stems.values()}) < len(self.stems):
                syllables = 2 + int(draw.random() < 0.3)
                letters = (*(CONSONANTS, VOWELS) * syllables, "nlrsk")
                self.stems[word] = "".join(_one(draw, some) for some in letters)
        # English says nothing of a noun's class
        self.classes = {noun: int(draw.integers(3)) for noun in NOUNS}
        # each ending with a consonant of its own, since its vowel changes
        letters = [CONSONANTS[i] for i in draw.permutation(len(CONSONANTS))]
        marks = [consonant + _one(draw, VOWELS) for consonant in letters[:4]]
        self.plural, self.accusative, self.past, self.negation = marks
        self.endings = letters[4:7]  # of each class

    def joined(self, stem: str, *endings: str) -> str:
        """The stem with endings, whose vowels are front or back as its last one (harmony)."""
        front = [letter for letter in stem if letter in VOWELS][-1] in "ei"
        change = str.maketrans("aou", "eie") if front else str.maketrans("ei", "ao")
        return stem + "".join(ending.translate(change) for ending in endings)

    def phrase(self, noun: str, adjectives: list[str], plural: bool, object: bool) -> str:
        """The noun, then its adjectives, all with number and case; adjectives with the class."""
        endings = [self.plural] * plural + [self.accusative] * object
        agreeing = (self.endings[self.classes[noun]], *endings)
        rest = (self.joined(self.stems[adjective], *agreeing) for adjective in adjectives)
        return " ".join([self.joined(self.stems[noun], *endings), *rest])

    def sentence(self, draw: np.random.Generator) -> Pair:
        """An English sentence and its translation."""
        (subject, told), (thing, seen) = (self._nominal(draw, object) for object in (False, True))
        verb, past, negative = _one(draw, VERBS), draw.random() < 0.5, draw.random() < 0.3
        noun, plural = subject
        english = [told[0], _english_verb(verb, past, negative, plural), seen[0]]
        other = [told[1], seen[1]]
        if draw.random() < 0.5:
            _, place = self._nominal(draw, False)
            preposition = _one(draw, PREPOSITIONS)
            english.append(f"{preposition} {place[0]}")
            other.insert(1, f"{place[1]} {self.stems[preposition]}")
        if draw.random() < 0.3:
            adverb = _one(draw, ADVERBS)
            english.append(adverb)
            other.insert(0, self.stems[adverb])
        endings = [self.past] * past + [self.endings[self.classes[noun]]] + [self.plural] * plural
        finite = self.joined(self.stems[verb], *endings)
        other.append(f"{self.negation} {finite}" if negative else finite)
        return " ".join(english) + " .", " ".join(other) + " ."

    def _nominal(self, draw: np.random.Generator, object: bool) -> tuple[tuple[str, bool], Pair]:
        noun, plural = _one(draw, NOUNS), bool(draw.random() < 0.4)
        count = int(draw.choice([0, 1, 2], p=[0.4, 0.45, 0.15]))
        adjectives = [ADJECTIVES[i] for i in draw.choice(len(ADJECTIVES), count, replace=False)]
        english = " ".join(["the", *adjectives, _plural(noun) if plural else noun])
        return (noun, plural), (english, self.phrase(noun, adjectives, plural, object))


def _one(draw: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(draw.integers(len(words)))]


def _plural(noun: str) -> str:
    return "children" if noun == "child" else f"{noun}s"


def _english_verb(verb: str, past: bool, negative: bool, plural: bool) -> str:
    if negative:
        return f"{'did' if past else 'do' if plural else 'does'} not {verb}"
    if past:
        stem = verb[:-1] + "i" if verb.endswith("ry") else verb
        return stem + ("d" if verb.endswith("e") else "ed")
    if plural:
        return verb
    if verb.endswith("ry"):
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith("ch") else "s")


def sentences(language: Language, count: int, key: int) -> list[Pair]:
    """`count` different pairs."""
    draw, found = random.generator(key), {}
    while len(found) < count:
        source, target = language.sentence(draw)
        found[source] = target
    return list(found.items())


# ------------------------------------------------------------------------------- simple translators


def word_by_word(language: Language, source: str) -> str:
    """The stem of each word of the dictionary, in the order of English."""
    forms = {}
    for word, stem in language.stems.items():
        forms[word] = stem
        if word in NOUNS:
            forms[_plural(word)] = stem
        if word in VERBS:
            both = (True, False)
            forms |= {
                _english_verb(word, past, False, many): stem for past in both for many in both
            }
    forms |= {".": ".", "not": language.negation}
    return " ".join(forms[word] for word in source.split() if word in forms)


def nearest(training: list[Pair], source: str) -> str:
    """The translation of the training sentence that shares the largest part of its words."""
    words = {*source.split()}

    def shared(pair: Pair) -> float:
        others = {*pair[0].split()}
        return len(words & others) / len(words | others)

    return max(training, key=shared)[1]


# ----------------------------------------------------------------------------------------- training


class Validation(FixedBatches):
    """The loss of held-out pairs; also prints the BLEU of what the model writes for them."""

    def __init__(self, samples: Any, pairs: list[Pair], translate: Callable) -> None:
        super().__init__(samples, len(pairs))
        self.pairs, self.translate = pairs, translate

    def loss(self, model: tinyplm.Model, workers: int) -> float:
        texts = self.translate(model, [source for source, _ in self.pairs])
        score = bleu(texts, self.pairs)
        print(f"BLEU {score:.3f} on {len(self.pairs)} unseen sentences, greedily", flush=True)
        return super().loss(model, workers)


def bleu(texts: list[str], pairs: list[Pair]) -> float:
    return corpus_bleu(texts, [[target] for _, target in pairs], tokenize="none").score


def translations(
    model: tinyplm.Model, sources: list[str], *, tokenizer: Tokenizer, beams: int = 1
) -> list[str]:
    layout = layout_of("transformer", tokenizer)
    ids = [tokenizer.encode(source)[: layout.room(LONGEST)] for source in sources]
    answers = written(model, ids, layout, most=LONGEST - 1, beams=beams)
    return [tokenizer.decode(answer) for answer in answers]


def plan(options: dict) -> Settings:
    steps, fifth = options["steps"], max(1, options["steps"] // 5)
    often = max(1, steps // 20)  # quick, and BLEU rises early
    warmup = min(options["warmup"], steps - 1)
    # Vaswani et al. 2017, sec. 5.3 and 5.4
    return Settings(
        steps=steps,
        batch_size=options["batch"],
        sequence_length=LONGEST,
        learning_rate=options["lr"] * inverse_sqrt_peak(options["width"], warmup),
        schedule="inverse-sqrt",
        warmup=warmup,
        weight_decay=0.0,
        beta1=0.9,
        beta2=0.98,
        eps=1e-9,
        smoothing=options["smoothing"],
        seed=options["seed"],
        workers=options["workers"],
        evaluate_every=options["evaluate_every"] or often,
        save_every=options["save_every"] or fifth,
        save_minutes=5.0,
    )


# ------------------------------------------------------------------------------------------- report


def report(
    options: dict, out: Path, language: Language, training: list[Pair], test: list[Pair]
) -> None:
    """Print BLEU and exact translations, with and without a beam, beside simple translators."""
    folder = find(out, "best")
    model = tinyplm.load(folder)
    sources, targets = zip(*test)
    beams, translate = options["beams"], partial(translations, tokenizer=model.tokenizer)
    rows = {
        "nearest training sentence": [nearest(training, source) for source in sources],
        "dictionary, word by word": [word_by_word(language, source) for source in sources],
        "Transformer, greedily": translate(model, list(sources)),
    }
    begin = time.perf_counter()
    rows[f"Transformer, {beams} beams"] = translate(model, list(sources), beams=beams)
    seconds = f"{time.perf_counter() - begin:.0f} s for the beams"
    print(f"\nTest, {len(test)} unseen sentences ({seconds})\n")
    print(f"{'':<28}{'BLEU':>7}{'exact':>8}")
    for name, texts in rows.items():
        print(f"{name:<28}{bleu(texts, test):>7.3f}{share_equal(texts, targets):>8.1%}")
    for n in range(min(3, len(test))):
        print(f"\nsource     {sources[n]}\nmodel      {texts[n]}\nright      {targets[n]}")
    print()
    attention(model, max(test[:20], key=lambda pair: len(pair[0])), out)
    drawn = plot(out / "log.jsonl", out / "loss.png")
    show_run(folder, out, drawn)


def attention(model: tinyplm.Model, pair: Pair, out: Path) -> None:
    """Draw how much each token of the target, as it is predicted, attends to each of the source."""
    tokenizer = model.tokenizer
    layout = layout_of("transformer", tokenizer)
    room = layout.room(LONGEST)
    source, target = (layout.framed(tokenizer.encode(text)[:room]) for text in pair)
    with trace(also=("probabilities",)) as traced:
        model([source], labels=[target], grad=False)
    last = model.config.decoder_layers - 1
    heads = traced.records[f"decoder.layers.{last}.cross.probabilities"].value[0]  # (H, T, S)
    read, predicted = ([tokenizer.decode([i]) for i in ids.tolist()] for ids in (source, target))

    def panel(axes: Any) -> None:
        axes.imshow(heads.mean(0), cmap="Blues", aspect="auto")
        axes.set_xticks(range(len(read)), read, rotation=90, fontsize=7)
        axes.set_yticks(range(len(predicted)), predicted, fontsize=7)
        axes.set(title="cross-attention, last layer, mean of heads", xlabel=pair[0], ylabel=pair[1])

    save_plot(out / "attention.png", panel, size=(7, 7), label="attention")


# ---------------------------------------------------------------------------------------------- run


def main() -> None:
    options, resume = run_or_resume(parser(), FREE)
    out = usable(options["out"])
    settings = plan(options)  # refuses wrong options before any work
    if options["width"] % 8:
        raise ValueError(f"--width: expected a multiple of 8, got {options['width']}")
    with sole_writer(out):
        run(options, settings, out, resume)


def run(options: dict, settings: Settings, out: Path, resume: bool) -> None:
    """Make the language and its sentences; train; report."""
    language, counts = Language(options["seed"]), (options["samples"], 50, options["tests"])
    key = random.fold(random.key(options["seed"]), 1)
    pairs = sentences(language, sum(counts), key)
    ends = np.cumsum(counts)
    training, validation, test = (pairs[e - n : e] for n, e in zip(counts, ends))
    both, special = [text for pair in training for text in pair], SPECIAL["transformer"]
    make = partial(Tokenizer.train, both, options["vocabulary"], special, kind="Unigram")
    tokenizer = run_tokenizer(options, out, resume, make)
    print(f"sentences  {len(training)} for training, such as:")
    print(
        "".join(f"           {source}\n             {target}\n" for source, target in training[:2])
    )
    print(f"tokenizer  Unigram, {tokenizer.vocab_size} entries for both languages")
    layout = layout_of("transformer", tokenizer)
    own, held_out = (
        Seq2SeqPairs(encode_pairs(part, tokenizer.encode), LONGEST, LONGEST, layout=layout, seed=s)
        for part, s in ((training, options["seed"]), (validation, 1))
    )
    sizes = {"layers": options["layers"], "width": options["width"], "heads": 4}
    config = sized("transformer", tokenizer, **sizes, context=LONGEST, dropout=options["dropout"])
    model = tinyplm.create("transformer", config, key=options["seed"])
    model.tokenizer = tokenizer
    print(f"model      {model}")
    fixed = Validation(held_out, validation, partial(translations, tokenizer=tokenizer))
    state = train(model, own, fixed, settings, out=out, resume=started(out))
    finish(state, command("translate.py", "--out", out, "--resume"))
    report(options, out, language, training, test)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    option("--samples", 8000, "Number of sentences to train on.", whole(1, 100_000))
    option("--tests", 200, "Number of unseen sentences to translate at the end.", whole(1, 10_000))
    option("--vocabulary", 300, "Vocabulary size of the tokenizer.", whole(60))
    option("--layers", 2, "Layers of each side.", whole(1))
    option("--width", 128, "Width of the model.", whole(8))
    option("--steps", 2000, "Training steps.", whole(1))
    option("--batch", 32, "Sentences per step.", whole(1))
    option("--lr", 0.5, "Learning rate, relative to the paper's.", number(above=0.0))
    option("--warmup", 400, "Warm-up steps.", whole())
    option("--dropout", 0.0, "Dropout rate.", number(least=0.0, below=1.0))
    option("--smoothing", 0.1, "Label smoothing.", number(least=0.0, below=1.0))
    option("--beams", 4, "Number of beams.", whole(2, 64))
    option("--seed", 0, "Random seed, also of the language.", whole())
    interval_options(parser, evaluate="a twentieth of all steps")
    option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    option("--out", "out-translate", "Output folder.", metavar="FOLDER")
    parser.flag("--resume", "Resume the run in --out, however it ended.")
    return parser


if __name__ == "__main__":
    start(main, RESUMABLE)

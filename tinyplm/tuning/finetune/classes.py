"""Labelled texts as samples, for an encoder or a decoder with a score head; and batches of similar length."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence, Set
from typing import Any, ClassVar

import numpy as np

from ... import random
from ...arguments import check_whole, is_whole, listed, shown, wrong
from ...evaluation import metrics
from ...models.model import Model
from ...models.model import check_model as check_is_model
from ...tokenizers.text.encoding import Encoding, Padding, Truncation, arrays, pad


@dataclasses.dataclass(frozen=True)
class Samples(abc.ABC):
    """Encoded samples; made by `classification`, `tagging.tagging` and `answers.answering`.

    PER_TOKEN  whether the model has outputs for each token of them, or for each sample
    encodings  without padding
    targets    {output of the model: one a sample: a number, a row of numbers, or (tokens,) numbers}; {} if nothing is labelled
    padding    how a batch is filled up
    inputs     the names of what the model takes of an encoding
    cut        how many texts were longer than the longest sequence, and lost their end
    """

    PER_TOKEN: ClassVar[bool] = False

    encodings: list[Encoding]
    targets: dict[str, list]
    padding: Padding
    inputs: tuple[str, ...]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.encodings)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(encoding) for encoding in self.encodings])

    def batch(self, numbers: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(inputs, targets) of some samples: input_ids, attention_mask ... (B, T), with T the longest of them."""
        numbers = listed("numbers", numbers, "a list of samples' numbers")
        if not all(is_whole(n) and 0 <= n < len(self) for n in numbers):
            raise wrong("numbers", f"integers from 0 to {len(self) - 1}", numbers)
        inputs = self._inputs(numbers)
        return inputs, {name: self._targets(name, numbers, inputs["attention_mask"]) for name in self.targets}

    def _inputs(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Some of the encodings as arrays."""
        values = arrays(pad([self.encodings[n] for n in rows], self.padding), overflowing=False)
        return {name: values[name] for name in self.inputs}

    def _targets(self, name: str, numbers: Sequence[int], mask: np.ndarray) -> np.ndarray:
        """Those of one output, in the order of the batch."""
        return np.array([self.targets[name][n] for n in numbers])

    @abc.abstractmethod
    def predictions(self, outputs: dict[str, Any]) -> Any:
        """What the outputs of `step.predict` say about each sample."""

    @property
    @abc.abstractmethod
    def measures(self) -> tuple[str, ...]:
        """The names in `score`, the most usual one first."""

    @abc.abstractmethod
    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        """Metrics of the outputs against the labels; larger is better."""


def check_samples(name: str, value: Any) -> None:
    """ValueError unless they are encoded samples."""
    if not isinstance(value, Samples):
        raise wrong(name, "Samples, as classification(model, texts, labels) makes them", value)


@dataclasses.dataclass(frozen=True)
class Classes(Samples):
    """Texts with one class each: {"logits": class numbers}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N,) class numbers."""
        return outputs["logits"].argmax(axis=-1)

    @property
    def measures(self) -> tuple[str, ...]:
        return "accuracy", "f1", "matthews"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found, labels = self.predictions(outputs), self.targets["logits"]
        C = outputs["logits"].shape[-1]
        average = "binary" if C == 2 else "macro"
        f1 = metrics.precision_recall_f1(found, labels, average=average, classes=C).f1
        return {"accuracy": metrics.accuracy(found, labels), "f1": f1, "matthews": metrics.matthews_correlation(found, labels)}


@dataclasses.dataclass(frozen=True)
class LabelSets(Samples):
    """Texts with any number of labels each: {"logits": rows (C,) of 0.0 and 1.0}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N, C) of 0 and 1: 1 where the probability is above a half."""
        return (outputs["logits"] > 0).astype(np.int64)

    @property
    def measures(self) -> tuple[str, ...]:
        return "micro f1", "macro f1", "accuracy"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found, labels = self.predictions(outputs), np.array(self.targets["logits"], dtype=np.int64)
        averages = {
            f"{average} f1": metrics.precision_recall_f1(found, labels, average=average).f1 for average in ("micro", "macro")
        }
        return {**averages, "accuracy": metrics.accuracy(found, labels)}


@dataclasses.dataclass(frozen=True)
class Numbers(Samples):
    """Texts with a number each: {"logits": rows (1,)}."""

    def predictions(self, outputs: dict[str, Any]) -> np.ndarray:
        """(N,) numbers."""
        return outputs["logits"][:, 0]

    @property
    def measures(self) -> tuple[str, ...]:
        return "pearson", "spearman"

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found, labels = self.predictions(outputs), np.array(self.targets["logits"])[:, 0]
        return {"pearson": metrics.pearson_correlation(found, labels), "spearman": metrics.spearman_correlation(found, labels)}


def classification(model: Model, texts: Sequence[str], labels: Sequence | None = None, *, pairs: Sequence[str] | None = None,
                   max_length: int | None = None) -> Samples:  # fmt: skip
    """Texts, or pairs of texts, with labels, for a model with task "sequence_classification".

    labels, by the model's config (problem_type; without one as transformers guesses it):
        single_label_classification   one a text: its number or its name in id2label          -> Classes
        multi_label_classification    several a text: a list of such, which may be empty      -> LabelSets
        regression                    a number a text (what one label means, if it is alone)  -> Numbers
    None: only to predict.  max_length: tokens in all, what is longer loses tokens from the end of the longer text; default: the
    longest sequence of the model.
    """
    check_is_model("model", model)
    texts = checked_texts("texts", texts)
    pairs = None if pairs is None else checked_texts("pairs", pairs, len(texts))
    kind, targets = _targets(model, labels, len(texts))
    encodings, facts = encode(model, texts, pairs, max_length=max_length)
    return kind(encodings, {} if labels is None else {"logits": targets}, **facts)


def encode(model: Model, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None
           ) -> tuple[list[Encoding], dict[str, Any]]:  # fmt: skip
    """(encodings, the other fields of Samples)."""
    tokenizer, facts = check_model(model, pair=pairs is not None)
    limit = sequence_limit(model, max_length)
    truncation = None if limit is None else Truncation(limit)
    encodings = [tokenizer.encoding(text, pair, truncation=truncation) for text, pair in zip(texts, pairs or [None] * len(texts))]
    cut = sum(bool(encoding.overflowing) for encoding in encodings)
    encodings = [dataclasses.replace(encoding, overflowing=[]) for encoding in encodings]
    check_encodings(model, encodings)
    return encodings, {**facts, "cut": cut}


# ------------------------------------------------------------------------------------------------------- the model's border


def check_model(model: Model, *, pair: bool) -> tuple[Any, dict[str, Any]]:
    """The model's tokenizer, with special tokens around texts; padding and inputs for Samples.

    A decoder reads a single text as it is, since its last token has seen it all.  Two texts need a delimiter (Radford et al.
    2018, sec. 3.3): tokenizer.post_processor = TemplateProcessing.of("$A <e>", "$A <d> $B <e>", {"<d>": id, "<e>": id}).
    """
    tokenizer, decoder = model.text_tokenizer(), hasattr(model.config, "SCORED")
    added = [sum(tokenizer.encoding("", second).special_tokens_mask) for second in (None, "")]
    if (added[0] == 0 and not decoder) or (pair and added[1] <= added[0]):
        raise ValueError(f"the tokenizer puts {added[0]} special tokens around a text and {added[1]} around two: it needs "
                         "[CLS] and [SEP], delimiters or the like, from the tokenizer's post-processor")  # fmt: skip
    padding = tokenizer.padding
    if padding is None:
        pad_id = tokenizer.named_id("pad_token")
        if pad_id is None and decoder:
            pad_id = tokenizer.eos_id or 0  # behind the last token, and masked: any will do
        if pad_id is None:
            raise ValueError("the tokenizer has no padding token: batches of texts of several lengths need one")
        padding = Padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id), **getattr(model.family, "PADDING", {}))
    padding = dataclasses.replace(padding, strategy="BatchLongest")
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if has_token_types(model) else ()))
    return tokenizer, {"padding": padding, "inputs": names}


def has_token_types(model: Model) -> bool:
    """Whether the model tells the two texts of a pair apart by token types."""
    return "token_type_ids" in getattr(model.family, "INPUTS", ()) and getattr(model.config, "type_vocab_size", 1) > 0


def sequence_limit(model: Model, max_length: int | None) -> int | None:
    """max_length, or the model's longest sequence; ValueError where it has not so many positions."""
    context = model.config.context
    check_whole("max_length", max_length, 1, context, or_none=True)  # as many as the model can read
    return context if max_length is None else max_length


def check_encodings(model: Model, encodings: Sequence[Encoding]) -> None:
    """ValueError for ids that are not in the model's vocabulary, and token types that it has not."""
    limits = [("ids", model.config.vocab_size, "token ids")]
    if has_token_types(model) and hasattr(model.config, "type_vocab_size"):
        limits.append(("type_ids", model.config.type_vocab_size, "token types"))
    for name, limit, what in limits:
        largest = max((max(getattr(encoding, name), default=0) for encoding in encodings), default=0)
        if largest >= limit:
            raise ValueError(f"the tokenizer gives {what} up to {largest}, the model has 0 to {limit - 1}")


def label_names(config: Any) -> list[str]:
    """The names of the classes, by number; LABEL_0 ... where the config has none."""
    names = {int(i): name for i, name in (config.id2label or {}).items()}
    return [names.get(i, f"LABEL_{i}") for i in range(config.num_labels)]


def label_number(label: Any, names: Sequence[str], where: str) -> int:
    """A label given by number or name, as a number."""
    if isinstance(label, str):
        if label not in names:
            raise ValueError(f"{where}: unknown label {label!r}; expected one of {', '.join(names)}")
        if names.count(label) > 1:
            raise ValueError(f"{where}: the label {label!r} stands for {names.count(label)} classes in the model's id2label")
        return names.index(label)
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
        raise ValueError(f"{where}: expected the number or the name of a label, got {shown(label, 60)}")
    if not 0 <= label < len(names):
        raise ValueError(f"{where}: label {label} is out of range, expected 0 to {len(names) - 1}")
    return int(label)


def _targets(model: Model, labels: Sequence | None, count: int) -> tuple[type[Samples], list]:
    """The kind of samples and their targets."""
    config, names = model.config, label_names(model.config)
    if model.task != "sequence_classification":
        raise ValueError(f"the model's task is {model.task}, expected sequence_classification")
    if labels is not None:
        labels = listed("labels", labels.tolist() if hasattr(labels, "tolist") else labels, "a list with a label for each text")
        if len(labels) != count:
            raise ValueError(f"expected a label for each text, got {count} texts and {len(labels)} labels")
    problem = config.problem_type
    if problem is None:
        one = not labels or not isinstance(labels[0], (Sequence, Set, np.ndarray)) or isinstance(labels[0], str)
        problem = "regression" if config.num_labels == 1 else f"{'single' if one else 'multi'}_label_classification"
    if problem == "regression":
        if config.num_labels != 1:
            raise ValueError(f"regression is for one number a text, the model has {config.num_labels}")
        return Numbers, [[_number(value, f"text {i}")] for i, value in enumerate(labels or ())]
    if problem == "single_label_classification":
        return Classes, [label_number(label, names, f"text {i}") for i, label in enumerate(labels or ())]
    rows = []
    for i, row in enumerate(labels or ()):
        row = listed(f"text {i}", row, "a list of labels")
        present = {label_number(label, names, f"text {i}") for label in row}
        rows.append([float(k in present) for k in range(len(names))])
    return LabelSets, rows


def _number(value: Any, where: str) -> float:
    if isinstance(value, (bool, str)) or not np.isscalar(value) or not np.isfinite(value):
        raise ValueError(f"{where}: expected a finite number as label, got {shown(value, 60)}")
    return float(value)


def checked_texts(name: str, texts: Sequence[str], count: int | None = None) -> list[str]:
    """The texts as a list, one or more; as many as `count`, if that is given."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be several strings, got a single str")
    texts = listed(name, texts, "a list of strings")
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: expected at least one, all of them strings, got {shown(texts, 60)}")
    if count is not None and len(texts) != count:
        raise ValueError(f"there must be a pair for each text, got {count} texts and {len(texts)} pairs")
    return texts


# ----------------------------------------------------------------------------------------------------------------- batches


def training_batches(lengths: np.ndarray, size: int, *, key: int, pool: int = 16) -> Iterator[np.ndarray]:
    """The samples of one epoch in batches of `size`, the last one maybe smaller: every number once, in an order given by the key.

    The samples are shuffled, cut into pools of `pool` batches, and each pool is sorted by length and cut into batches, so that
    a batch needs little padding; the batches then come in random order.
    """
    draw = random.generator(key)
    order = draw.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * pool):
        some = order[start : start + size * pool]
        some = some[np.argsort(lengths[some], kind="stable")]
        batches += [some[i : i + size] for i in range(0, len(some), size)]
    for i in draw.permutation(len(batches)):
        yield batches[i]


def evaluation_batches(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Every sample once, by length."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]

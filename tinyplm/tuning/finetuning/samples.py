"""Encoded samples of any task: texts to arrays, labels to numbers, batches of similar length."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ... import random
from ...arguments import check_whole, is_whole, listed, mismatch, shown, wrong
from ...families import LANGUAGE_MODELS
from ...models.model import Model
from ...tokenizers.text.encoding import Encoding, Padding, Truncation, arrays, pad, truncate

Indices = Sequence[int] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Samples(abc.ABC):
    """Encoded samples, as made by classification, tagging, answering and others.

    PER_TOKEN  whether the model has outputs per token or per sample
    encodings  without padding; with a count, those of a sample are consecutive
    targets    {model output: one per sample: a number, a row of numbers, or (tokens,) numbers};
               {} without labels
    padding    how a batch is padded
    inputs     the model inputs taken from an encoding
    cut        how many texts were truncated
    count      the sequences of each sample, such as choices; None: one, without an axis for them
    """

    PER_TOKEN: ClassVar[bool] = False

    encodings: list[Encoding]
    targets: dict[str, list]
    padding: Padding
    inputs: tuple[str, ...]
    cut: int = 0
    count: int | None = None

    def __len__(self) -> int:
        return len(self.encodings) // (self.count or 1)

    @property
    def lengths(self) -> np.ndarray:
        """Of each sample: of the longest of its sequences."""
        lengths = np.array([len(encoding) for encoding in self.encodings])
        return lengths.reshape(-1, self.count or 1).max(axis=1)

    def batch(self, numbers: Indices) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(inputs, targets) of some samples: input_ids ... (B, T), T the longest of them, or (B,
        count, T)."""
        numbers = listed("numbers", numbers, "a list of samples' numbers")
        if not all(is_whole(n) and 0 <= n < len(self) for n in numbers):
            raise wrong("numbers", f"integers from 0 to {len(self) - 1}", numbers)
        inputs = self._inputs(numbers)
        return inputs, self._all_targets(numbers, inputs["attention_mask"])

    def _inputs(self, numbers: Indices) -> dict[str, np.ndarray]:
        """The encodings of some samples as arrays."""
        N = self.count or 1
        rows = [self.encodings[n * N + i] for n in numbers for i in range(N)]
        values = arrays(pad(rows, self.padding), overflowing=False)
        axes = (len(numbers),) if self.count is None else (len(numbers), N)
        return {name: values[name].reshape(*axes, -1) for name in self.inputs}

    def _all_targets(self, numbers: Indices, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {name: self._targets(name, numbers, mask) for name in self.targets}

    def _targets(self, name: str, numbers: Indices, mask: np.ndarray) -> np.ndarray:
        """The targets for one output, in batch order."""
        return np.array([self.targets[name][n] for n in numbers])

    def model_for(self, model: Model) -> Model:
        """The model that is trained and judged on these samples, with the same params; TypeError
        for one whose head has no labels."""
        check_labelled(model)
        return model

    @abc.abstractmethod
    def predictions(self, outputs: dict[str, Any]) -> Any:
        """The prediction for each sample, given the outputs of `predict`."""

    @property
    @abc.abstractmethod
    def measures(self) -> tuple[str, ...]:
        """The names of the metrics in `score`, the standard one first."""

    @abc.abstractmethod
    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        """Metrics of the outputs against the labels; larger is better."""


def check_task(model: Model, task: str) -> None:
    """ValueError unless the model has this task."""
    if model.task != task:
        raise ValueError(f"model: expected task {task}, got {model.task}")


def check_labelled(model: Model) -> None:
    """TypeError for a language model: its head has no labels."""
    if model.task in LANGUAGE_MODELS:
        raise TypeError(
            "model: expected an encoder, a decoder with task sequence_classification or "
            "multiple_choice, or an encoder-decoder with task sequence_classification or "
            f"question_answering, got {model!r}"
        )


def check_samples(name: str, value: Any) -> None:
    """ValueError unless these are encoded samples."""
    if not isinstance(value, Samples):
        raise wrong(name, "Samples, such as classification(model, texts, labels)", value)


def encode(
    model: Model,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    kept: Sequence[str] | None = None,
    count: int | None = None,
    max_length: int | None = None,
) -> tuple[list[Encoding], dict[str, Any]]:
    """(encodings, the other fields of Samples).

    kept: questions after the first texts of pairs, which are never truncated.
    count: so many consecutive texts belong to one sample.
    ValueError for a decoder's text without tokens, and for a question without room for the texts.
    """
    tokenizer, facts = encoding_setup(model, pair=pairs is not None)
    limit = sequence_limit(model, max_length)
    numbers = [n // (count or 1) for n in range(len(texts))]
    if kept is None:
        truncation = None if limit is None else Truncation(limit)
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        rows = zip(texts, seconds)
        encodings = [tokenizer.encoding(a, b, truncation=truncation) for a, b in rows]
    else:
        named = zip([f"question {n}" for n in numbers], texts, kept, pairs or texts)
        encodings = [with_question(tokenizer, *row, limit) for row in named]
    cut = sum(bool(encoding.overflowing) for encoding in encodings)
    encodings = [dataclasses.replace(encoding, overflowing=[]) for encoding in encodings]
    check_encodings(model, encodings)
    if hasattr(model.config, "SCORED"):
        for n, encoding in zip(numbers, encodings):
            ranges = encoding.sequence_ranges
            sizes = [end - start for start, end in (ranges.get(i, (0, 0)) for i in (0, 1))]
            if not all(sizes[: 1 if pairs is None else 2]):
                given = f"one without, at a length of {len(encoding)}"
                raise mismatch(f"text {n}", "texts with at least 1 token", given)
    return encodings, {**facts, "cut": cut, "count": count}


def with_question(
    tokenizer: Any, name: str, text: str, question: str, second: str, limit: int | None
) -> Encoding:
    """A text followed by a question, which is never cut, and a second text, as a pair."""
    parts = (text, f" {question}", second)
    first, kept, other = (tokenizer.encoding(part, add_special_tokens=False) for part in parts)
    if limit is not None:
        added = tokenizer.post_processor.added(True) + len(kept)
        if limit < added + 2:
            most = max(0, limit - added - 2 + len(kept))
            raise mismatch(name, f"at most {most} tokens, at a length of {limit}", len(kept))
        first, other = truncate(first, other, Truncation(limit), added)
    return tokenizer.post_processor(first.joined(kept), other)


# ------------------------------------------------------------------------------- the model's border


def encoding_setup(model: Model, *, pair: bool) -> tuple[Any, dict[str, Any]]:
    """The model's tokenizer, checked; and the fields padding and inputs of Samples.

    A decoder reads a single text as is: its last token has seen the whole text.  A pair needs a
    delimiter (Radford et al. 2018, sec. 3.3), such as those of with_delimiters.
    """
    tokenizer, decoder = model.text_tokenizer(), hasattr(model.config, "SCORED")
    added = [sum(tokenizer.encoding("", second).special_tokens_mask) for second in (None, "")]
    if (added[0] == 0 and not decoder) or (pair and added[1] <= added[0]):
        tokens = "delimiters, see with_delimiters" if decoder else "[CLS] and [SEP]"
        expected = f"a post-processor that adds special tokens such as {tokens}"
        given = f"one that adds {added[0]} to a text and {added[1]} to a pair"
        raise mismatch("tokenizer", expected, given)
    padding = tokenizer.padding
    if padding is None:
        pad_id = tokenizer.named_id("pad_token")
        if pad_id is None and decoder:
            pad_id = tokenizer.eos_id or 0  # after the last token and masked: any id will do
        if pad_id is None:
            raise mismatch("tokenizer", "a padding token for texts of different lengths", "none")
        own, token = getattr(model.family, "PADDING", {}), tokenizer.id_to_token(pad_id)
        padding = Padding(pad_id=pad_id, pad_token=token, **own)
    padding = dataclasses.replace(padding, strategy="BatchLongest")
    types = ("token_type_ids",) if has_token_types(model) else ()
    names = ("input_ids", "attention_mask", *types)
    return tokenizer, {"padding": padding, "inputs": names}


def has_token_types(model: Model) -> bool:
    """Whether the model distinguishes the two texts of a pair by token types."""
    known = "token_type_ids" in getattr(model.family, "INPUTS", ())
    return known and getattr(model.config, "type_vocab_size", 1) > 0


def sequence_limit(model: Model, max_length: int | None) -> int | None:
    """max_length, checked against the model's longest sequence, which is the default."""
    context = model.config.context  # what the model can read
    check_whole("max_length", max_length, 1, context, or_none=True)
    return context if max_length is None else max_length


def check_encodings(model: Model, encodings: Sequence[Encoding]) -> None:
    """ValueError for token ids or token types outside the model's range."""
    limits = [("ids", model.config.vocab_size, "token ids")]
    if has_token_types(model) and hasattr(model.config, "type_vocab_size"):
        limits.append(("type_ids", model.config.type_vocab_size, "token types"))
    for name, limit, what in limits:
        largest = max((i for encoding in encodings for i in getattr(encoding, name)), default=0)
        if largest >= limit:
            raise mismatch("tokenizer", f"{what} from 0 to {limit - 1}, as the model has", largest)


def label_names(config: Any) -> list[str]:
    """The class names by number; LABEL_0 ... where the config has none."""
    names = {int(i): name for i, name in (config.id2label or {}).items()}
    return [names.get(i, f"LABEL_{i}") for i in range(config.num_labels)]


def label_number(label: Any, names: Sequence[str], where: str) -> int:
    """The number of a label given by number or name."""
    if isinstance(label, str):
        if label not in names:
            raise wrong(where, f"a label out of {', '.join(names)}", label)
        if names.count(label) > 1:
            given = f"{label!r}, which names {names.count(label)} in id2label"
            raise mismatch(where, "a label of one class", given)
        return names.index(label)
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
        raise mismatch(where, "the number or the name of a label", shown(label, 60))
    if not 0 <= label < len(names):
        raise ValueError(f"{where}: expected a label from 0 to {len(names) - 1}, got {label}")
    return int(label)


def checked_texts(name: str, texts: Sequence[str], count: int | None = None) -> list[str]:
    """The texts as a list, at least one; exactly `count` if that is given."""
    if isinstance(texts, str):
        raise TypeError(f"{name}: expected a list of strings, got the string {shown(texts)}")
    texts = listed(name, texts, "a list of strings")
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: expected one or more strings, got {shown(texts, 60)}")
    if count is not None and len(texts) != count:
        raise ValueError(f"{name}: expected one for each of {count} texts, got {len(texts)}")
    return texts


# ------------------------------------------------------------------------------------------ batches


def training_batches(
    lengths: np.ndarray, size: int, *, key: int, pool: int = 16
) -> Iterator[np.ndarray]:
    """The samples of one epoch in batches of `size` (the last may be smaller), shuffled by the key.

    The samples are shuffled and cut into pools of `pool` batches; each pool is sorted by length and
    cut into batches, which need little padding; the batches are then shuffled.
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
    """Every sample once, sorted by length."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]

"""Classification by words: a template makes a text of a sample, a verbaliser says which words stand for which label.

    cloze    "{text} It was [MASK]."      an encoder fills the gap                                  Schick & Schuetze 2021, sec. 3
    prefix   "{text} It was"              a decoder goes on; words may have several tokens         Liu et al. 2023, sec. 3 to 5

    score(label) = log of the mean over its words of p(word | text);   p(label) = softmax over the labels

calibrate: the scores of an empty text ("N/A") are taken off, which corrects the model's liking for some words (Zhao et al. 2021).
Nothing is trained here; what is (a soft prompt, a model), is trained on the same sequences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...arguments import check_flag, check_list, check_whole, shown, wrong
from ...backend import to_host
from ...layers.softmax import log_softmax
from ...models.model import Model, check_decoder, check_model
from ..align.learner import token_log_probs
from ..data.sequences import TokenSequence, answered, arrays
from .instructions import fields, fill

MASK = "[MASK]"


@dataclasses.dataclass(frozen=True)
class Verbaliser:
    """words: {label: word or words}.  ValueError for fewer than two labels, or a word that stands for two."""

    words: Mapping[str, str | Sequence[str]]

    def __post_init__(self) -> None:
        right = isinstance(self.words, Mapping) and all(isinstance(label, str) for label in self.words)
        if not right or not all(isinstance(some, (str, list, tuple)) for some in self.words.values()):
            raise wrong("verbaliser", "a dict {label: word or list of words}", self.words)
        every = [word for some in self.lists for word in some]
        if len(self.words) < 2 or not all(self.lists):
            raise ValueError(f"verbaliser: expected words for two labels or more, got {shown(dict(self.words), 80)}")
        if len(set(every)) != len(every):
            twice = next(word for word in every if every.count(word) > 1)
            raise ValueError(f"verbaliser: {twice!r} stands for two labels, or twice for one")

    @property
    def labels(self) -> list[str]:
        return list(self.words)

    @property
    def lists(self) -> list[list[str]]:
        return [[some] if isinstance(some, str) else list(some) for some in self.words.values()]

    def label_scores(self, word_scores: np.ndarray) -> np.ndarray:
        """(N, words) log-probabilities, the words of the first label first -> (N, labels): the log of each label's mean."""
        scores, start = [], 0
        for some in self.lists:
            part = word_scores[:, start : start + len(some)]
            top = part.max(axis=1, keepdims=True)
            scores.append(top[:, 0] + np.log(np.exp(part - top).mean(axis=1)))
            start += len(some)
        return np.stack(scores, axis=1)


@dataclasses.dataclass(frozen=True)
class Cloze:
    """A template with {fields} and one [MASK], and a verbaliser whose words are single tokens."""

    template: str
    verbaliser: Verbaliser

    def __post_init__(self) -> None:
        fields(self.template)
        _check_verbaliser(self.verbaliser)
        if self.template.count(MASK) != 1:
            raise ValueError(f"cloze: expected one {MASK} in the template, got {self.template!r}")

    def word_scores(self, model: Model, samples: Sequence[Mapping[str, Any]], *, batch_size: int = 32) -> np.ndarray:
        """(N, words): log p of each word at the gap, by a model with task "masked_lm"."""
        check_model("model", model)
        _check_samples(samples, batch_size)
        if model.task not in ("masked_lm", "pretraining"):
            raise ValueError(f"a cloze needs a model with task masked_lm, got {model!r}")
        tokenizer = model.text_tokenizer()
        mask = tokenizer.named_id("mask_token")
        if mask is None:
            raise ValueError("a cloze needs a tokenizer with a mask token")
        words = [self._single(tokenizer, word) for some in self.verbaliser.lists for word in some]
        found = []
        for start in range(0, len(samples), batch_size):
            some = enumerate(samples[start : start + batch_size], start)
            rows = [self._ids(tokenizer, sample, mask, f"sample {n}") for n, sample in some]
            T = max(map(len, rows))
            ids, real = np.zeros((len(rows), T), np.int64), np.zeros((len(rows), T), np.int64)
            for n, row in enumerate(rows):
                ids[n, : len(row)], real[n, : len(row)] = row, 1
            outputs, _ = model(ids, attention_mask=real, grad=False)
            logits = outputs["logits"][np.arange(len(rows)), [row.index(mask) for row in rows]]
            found.append(to_host(log_softmax(logits)[0])[:, words])
        return np.concatenate(found)

    def _ids(self, tokenizer: Any, sample: Mapping[str, Any], mask: int, where: str) -> list[int]:
        """The text with the mask's id in its place, between the tokenizer's special tokens."""
        before, after = (fill(part, sample, where) for part in self.template.split(MASK))
        for part in (before, after):
            if tokenizer.encode(part, allow_special=True) != tokenizer.encode(part):
                raise ValueError(f"{where}: the text holds that of a special token: {part!r:.60}")
        return tokenizer.encode(before + tokenizer.id_to_token(mask) + after, allow_special=True, add_special_tokens=True)

    def _single(self, tokenizer: Any, word: str) -> int:
        """The token of a word in the gap: as it stands behind the template's text, with a space where the template or the word
        has one (a mask may take the space before it along, and then the word's token has it)."""
        before = self.template.split(MASK)[0]
        before = fill(before, dict.fromkeys(fields(before), "x"))
        spaced = bool(before) and before[-1].isspace() or word[:1].isspace()
        before = before.rstrip()
        start, (pieces,) = tokenizer.continuations(before, [" " * spaced + word.strip()])
        if start != tokenizer.prompt(before):
            raise ValueError(f"cloze: the word {word!r} merges with the text before it: a gap is a token of its own")
        if len(pieces) != 1:
            names = [tokenizer.id_to_token(i) for i in pieces]
            raise ValueError(f"cloze: the word {word!r} is {len(pieces)} tokens, {names}: a gap has room for one")
        return pieces[0]


@dataclasses.dataclass(frozen=True)
class Prefix:
    """A template with {fields} that ends where the answer begins, and a verbaliser whose words go on from there (" good").

    mean: a word's score is the mean of its tokens' log-probabilities in place of their sum, so that long words are not at a loss.
    """

    template: str
    verbaliser: Verbaliser
    mean: bool = False

    def __post_init__(self) -> None:
        fields(self.template)
        _check_verbaliser(self.verbaliser)
        check_flag("mean", self.mean)

    def sequences(self, tokenizer: Any, sample: Mapping[str, Any]) -> list[TokenSequence]:
        """The sample's text with each word behind it; only the word counts.  The ids are those of Tokenizer.continuations: the
        prompt's are the same for all words, <s> in front of them where the tokenizer puts it."""
        words = [word for some in self.verbaliser.lists for word in some]
        prompt, found = tokenizer.continuations(fill(self.template, sample, "sample"), words)
        return [answered(prompt, ids) for ids in found]

    def sequence(self, tokenizer: Any, sample: Mapping[str, Any], label: str) -> TokenSequence:
        """The sample's text with the first word of its label, to train a soft prompt, or a model, on."""
        if label not in self.verbaliser.labels:
            raise ValueError(f"unknown label {label!r}; expected one of {', '.join(self.verbaliser.labels)}")
        first = sum(map(len, self.verbaliser.lists[: self.verbaliser.labels.index(label)]))
        return self.sequences(tokenizer, sample)[first]

    def word_scores(self, model: Model, samples: Sequence[Mapping[str, Any]], *, batch_size: int = 32) -> np.ndarray:
        """(N, words): log p of each word as a whole, by a decoder (or one behind a soft prompt)."""
        check_decoder("model", model)
        _check_samples(samples, batch_size)
        tokenizer = model.text_tokenizer()
        rows = [sequence for sample in samples for sequence in self.sequences(tokenizer, sample)]
        found = []
        for start in range(0, len(rows), batch_size):
            batch = arrays(rows[start : start + batch_size])
            sums = token_log_probs(model, batch, batch_size=batch_size)["log_probs"].sum(axis=1)
            counts = [sum(sequence.counts) for sequence in rows[start : start + batch_size]]
            found.append(sums / counts if self.mean else sums)
        return np.concatenate(found).reshape(len(samples), -1)


def _check_verbaliser(value: Any) -> None:
    if not isinstance(value, Verbaliser):
        raise wrong("verbaliser", "a Verbaliser", value)


def _check_samples(samples: Any, batch_size: Any) -> None:
    check_list("samples", samples, "a list of dicts with the template's fields")
    if not len(samples):
        raise ValueError("there are no samples")
    check_whole("batch_size", batch_size, 1)


def predict(pattern: Cloze | Prefix, model: Model, samples: Sequence[Mapping[str, Any]], *,
            calibrate: Mapping[str, Any] | None = None, **options: Any) -> np.ndarray:  # fmt: skip
    """(N, labels): the probability of each label, in the order of the verbaliser.

    calibrate: a sample without content, such as {"text": "N/A"}; the scores that it gets are taken off all others'.
    """
    if not isinstance(pattern, (Cloze, Prefix)):
        raise wrong("pattern", "a Cloze or a Prefix", pattern)
    scores = pattern.verbaliser.label_scores(pattern.word_scores(model, samples, **options))
    if calibrate is not None:
        scores = scores - pattern.verbaliser.label_scores(pattern.word_scores(model, [calibrate], **options))
    return np.exp(log_softmax(scores)[0])

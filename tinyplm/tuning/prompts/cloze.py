"""Classification by words: a template turns a sample into text, a verbaliser maps labels to words.

    cloze    "{text} It was [MASK]."    an encoder fills the gap    Schick & Schuetze 2021, sec. 3
                                        a GLM fills the blank       Du et al. 2022, sec. 2.3
    prefix   "{text} It was"            a decoder continues         Liu et al. 2023, sec. 3 to 5

    score(label) = log of the mean over its words of p(word | text)
    p(label) = softmax over the labels

An encoder's words are single tokens.  In a GLM's blank p(word | text) is the product of p over its
tokens and the end of the piece, as in the authors' code for words of several tokens (THUDM/GLM,
commit 4f61ed7, tasks/superglue/pvp.py).

calibrate: subtract the scores of a text without content ("N/A"), which removes the model's bias
towards some words (Zhao et al. 2021).  Nothing is trained here: finetuning/clozes.py trains a GLM
or a decoder on the labels' scores, and a soft prompt can be trained on the same sequences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...arguments import check_flag, check_list, check_whole, known_arguments, mismatch, wrong
from ...backend import to_host
from ...core import IGNORED
from ...generation.blanks import blank_tokens, fills_blanks
from ...layers.softmax import log_softmax
from ...models.causal_model import CausalModel
from ...models.encoder_model import EncoderModel
from ...models.model import check_decoder, check_model
from ..align.learner import token_log_probs
from ..data.sequences import TokenSequence, answered, sequence_arrays
from .instructions import fields, fill

MASK = "[MASK]"


@dataclasses.dataclass(frozen=True)
class Verbaliser:
    """words: {label: word or words}.  ValueError for fewer than two labels or a repeated word."""

    words: Mapping[str, str | Sequence[str]]

    def __post_init__(self) -> None:
        items = self.words.items() if isinstance(self.words, Mapping) else [(None, None)]
        if not all(isinstance(k, str) and isinstance(v, (str, list, tuple)) for k, v in items):
            raise wrong("verbaliser", "a dict {label: word or list of words}", self.words)
        every = [word for some in self.lists for word in some]
        if len(self.words) < 2 or not all(self.lists):
            raise wrong("verbaliser", "words for two labels or more", dict(self.words))
        if len(set(every)) != len(every):
            twice = next(word for word in every if every.count(word) > 1)
            raise ValueError(f"verbaliser: expected each word once, got {twice!r} twice")

    @property
    def labels(self) -> list[str]:
        return list(self.words)

    @property
    def lists(self) -> list[list[str]]:
        return [[some] if isinstance(some, str) else list(some) for some in self.words.values()]

    def label_scores(self, word_scores: np.ndarray) -> np.ndarray:
        """log mean_w p(w) for each label, (N, labels).

        word_scores: (N, words) log-probabilities, those of the first label's words first.
        """
        scores, start = [], 0
        for some in self.lists:
            part = word_scores[:, start : start + len(some)]
            top = part.max(axis=1, keepdims=True)
            scores.append(top[:, 0] + np.log(np.exp(part - top).mean(axis=1)))
            start += len(some)
        return np.stack(scores, axis=1)


@dataclasses.dataclass(frozen=True)
class Cloze:
    """A template with {fields} and one [MASK], and a verbaliser; for an encoder with words of one
    token, for a GLM with any."""

    template: str
    verbaliser: Verbaliser

    def __post_init__(self) -> None:
        fields(self.template)
        _check_verbaliser(self.verbaliser)
        if self.template.count(MASK) != 1:
            raise ValueError(f"template: expected one {MASK}, got {self.template!r}")

    def word_scores(
        self,
        model: EncoderModel | CausalModel,
        samples: Sequence[Mapping[str, Any]],
        *,
        batch_size: int = 32,
    ) -> np.ndarray:
        """(N, words): log p of each word in the gap, by a model with task "masked_lm" or a GLM."""
        check_model("model", model)
        _check_samples(samples, batch_size)
        if isinstance(model, CausalModel) and fills_blanks(model):
            return self._blank_scores(model, samples, batch_size)
        if model.task not in ("masked_lm", "pretraining"):
            raise wrong("model", "one with task masked_lm, or one that fills blanks", model)
        tokenizer = model.text_tokenizer()
        mask = tokenizer.named_id("mask_token")
        if mask is None:
            raise wrong("tokenizer", "one with a mask token", tokenizer)
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

    def _blank_scores(
        self, model: CausalModel, samples: Sequence[Mapping[str, Any]], batch_size: int
    ) -> np.ndarray:
        some = enumerate(samples)
        rows = [row for n, one in some for row in self.blanks(model, one, f"sample {n}")]
        found = []
        for start in range(0, len(rows), batch_size):
            inputs, targets = scored_arrays(rows[start : start + batch_size])
            options: dict[str, Any] = {**inputs, "targets": targets, "grad": False}
            outputs, _ = model.token_outputs(**options)
            found.append(to_host(outputs["log_probs"]).sum(axis=1))
        return np.concatenate(found).reshape(len(samples), -1)

    def blanks(
        self, model: CausalModel, sample: Mapping[str, Any], where: str = "sample"
    ) -> list[Scored]:
        """The sample's text with each word in a GLM's blank, the first label's words first."""
        tokenizer, tokens = model.text_tokenizer(), blank_tokens(model)
        a = self._ids(tokenizer, sample, tokens.mask_id, where, first=tokens.first)
        place, n = a.index(tokens.mask_id), len(a)
        found = []
        for word in (word for some in self.verbaliser.lists for word in some):
            ids = self._word(tokenizer, word)
            outer, inner = [*range(n), *[place] * (1 + len(ids))], [0] * n
            found.append(
                Scored(
                    [*a, tokens.start_id, *ids],
                    [*[IGNORED] * n, *ids, tokens.end_id],
                    np.array([outer, [*inner, *range(1, 2 + len(ids))]]),
                    n,
                )
            )
        return found

    def _ids(
        self,
        tokenizer: Any,
        sample: Mapping[str, Any],
        mask: int,
        where: str,
        first: tuple[int, ...] | None = None,
    ) -> list[int]:
        """The text with the mask token in the gap, between the tokenizer's special tokens, or after
        the tokens `first`."""
        before, after = (fill(part, sample, where) for part in self.template.split(MASK))
        for part in (before, after):
            if tokenizer.encode(part, allow_special=True) != tokenizer.encode(part):
                raise ValueError(f"{where}: expected text without special tokens, got {part!r:.60}")
        text = before + tokenizer.id_to_token(mask) + after
        if first is None:
            return tokenizer.encode(text, allow_special=True, add_special_tokens=True)
        return [*first, *tokenizer.encode(text, allow_special=True)]

    def _word(self, tokenizer: Any, word: str) -> list[int]:
        """The tokens of a word in the gap.

        It has a leading space if the template or the word does.  (A mask token may absorb the space
        before it; the word's token then includes it.)
        """
        before = self.template.split(MASK)[0]
        before = fill(before, dict.fromkeys(fields(before), "x"))
        spaced = bool(before) and before[-1].isspace() or word[:1].isspace()
        before = before.rstrip()
        start, (pieces,) = tokenizer.continuations(before, [" " * spaced + word.strip()])
        if start != tokenizer.prompt(before):
            expected = "words that do not merge with the text before the gap"
            raise mismatch("verbaliser", expected, repr(word))
        if not pieces:
            raise mismatch("verbaliser", "words with a token or more", repr(word))
        return pieces

    def _single(self, tokenizer: Any, word: str) -> int:
        """The token of a word in the gap; ValueError if it has several."""
        pieces = self._word(tokenizer, word)
        if len(pieces) != 1:
            given = f"{word!r} of {len(pieces)}: {[tokenizer.id_to_token(i) for i in pieces]}"
            raise mismatch("verbaliser", "words of one token, which fit the gap", given)
        return pieces[0]


@dataclasses.dataclass(frozen=True)
class Scored:
    """A text with one word, as a decoder reads it.

    targets: the word's tokens where they are predicted, IGNORED elsewhere; places (2, n) and
    prefix: of a GLM's two parts, None of other decoders.
    """

    ids: list[int]
    targets: list[int]
    places: np.ndarray | None = None
    prefix: int | None = None


def scored_arrays(rows: Sequence[Scored]) -> tuple[dict[str, Any], np.ndarray]:
    """(inputs, targets (N, T)) of some rows of one kind, padded on the right to the longest."""
    N, T = len(rows), max(len(row.ids) for row in rows)
    ids, mask = np.zeros((N, T), np.int64), np.zeros((N, T), np.int64)
    targets, places = np.full((N, T), IGNORED, np.int64), np.zeros((N, 2, T), np.int64)
    for n, row in enumerate(rows):
        L = len(row.ids)
        ids[n, :L], targets[n, :L], mask[n, :L] = row.ids, row.targets, 1
        if row.places is not None:
            places[n, :, :L] = row.places
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if rows[0].prefix is not None:
        inputs["position_ids"] = places
        inputs["prefix_lengths"] = np.array([row.prefix for row in rows])
    return inputs, targets


@dataclasses.dataclass(frozen=True)
class Prefix:
    """A template with {fields} that ends where the answer begins, and a verbaliser.

    Words (" good") may have several tokens.  mean: score a word by the mean of its tokens'
    log-probabilities instead of their sum, so that long words are not penalised.
    """

    template: str
    verbaliser: Verbaliser
    mean: bool = False

    def __post_init__(self) -> None:
        fields(self.template)
        _check_verbaliser(self.verbaliser)
        check_flag("mean", self.mean)

    def sequences(self, tokenizer: Any, sample: Mapping[str, Any]) -> list[TokenSequence]:
        """The sample's text followed by each word; only the word counts.

        The ids are those of Tokenizer.continuations: all words share the prompt's ids, including
        any <s>.
        """
        words = [word for some in self.verbaliser.lists for word in some]
        prompt, found = tokenizer.continuations(fill(self.template, sample, "sample"), words)
        return [answered(prompt, ids) for ids in found]

    def sequence(self, tokenizer: Any, sample: Mapping[str, Any], label: str) -> TokenSequence:
        """The sample's text followed by the first word of its label, to train on."""
        if label not in self.verbaliser.labels:
            raise wrong("label", f"one of {', '.join(self.verbaliser.labels)}", label)
        first = sum(map(len, self.verbaliser.lists[: self.verbaliser.labels.index(label)]))
        return self.sequences(tokenizer, sample)[first]

    def word_scores(
        self, model: CausalModel, samples: Sequence[Mapping[str, Any]], *, batch_size: int = 32
    ) -> np.ndarray:
        """(N, words): log p of each whole word, by a decoder (or one with a soft prompt)."""
        check_decoder("model", model)
        _check_samples(samples, batch_size)
        tokenizer = model.text_tokenizer()
        rows = [sequence for sample in samples for sequence in self.sequences(tokenizer, sample)]
        found = []
        for start in range(0, len(rows), batch_size):
            batch = sequence_arrays(rows[start : start + batch_size])
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
        raise ValueError("samples: expected at least 1, got 0")
    check_whole("batch_size", batch_size, 1)


@known_arguments
def label_probabilities(
    pattern: Cloze | Prefix,
    model: Any,
    samples: Sequence[Mapping[str, Any]],
    *,
    calibrate: Mapping[str, Any] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """(N, labels): the probability of each label, in the verbaliser's order.

    calibrate: a sample without content, such as {"text": "N/A"}, whose scores are subtracted.
    """
    if not isinstance(pattern, (Cloze, Prefix)):
        raise wrong("pattern", "a Cloze or a Prefix", pattern)

    def label_scores(some: Sequence[Mapping[str, Any]]) -> np.ndarray:
        words = pattern.word_scores(model, some, batch_size=batch_size)
        return pattern.verbaliser.label_scores(words)

    scores = label_scores(samples)
    if calibrate is not None:
        scores = scores - label_scores([calibrate])
    return np.exp(log_softmax(scores)[0])

"""Classification by words, trained: a label's score is the log-probability of its words.

    p(y | x) = p(v(y) | c(x)) / sum over labels y' of p(v(y') | c(x))
    loss = mean of -log p(y | x)

c(x) is the text in a template, v(y) the label's words, in the blank of a GLM or after the text of
another decoder (prompts/cloze.py).                                      Du et al. 2022, sec. 2.3

No head is new: what is trained is the language model, and a folder of it is one of a language
model, whose `label_probabilities` classify.  Each word of each text is a sequence of its own, as in
the authors' code, so a step costs as many passes as there are words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...arguments import known_arguments, listed, mismatch, wrong
from ...core import StackOptions
from ...kernels.log_probs import vocabulary_log_probs
from ...layers.cache import Cache
from ...losses.answers import check_words, label_scores
from ...models import checks
from ...models.causal_model import CausalModel
from ...models.encoder_heads import output_losses
from ...models.heads import then, with_hidden
from ...models.model import Model, check_decoder
from ...models.parts import Emit, Head
from ...models.protocol import Arrays, InParts, LossInputs, Passed
from ...models.several import flattened
from ...tokenizers.text.encoding import Encoding, Padding
from ..data.sequences import TokenSequence
from ..prompts.cloze import Cloze, Prefix, Scored, scored_arrays
from .classes import Classes
from .samples import Indices, label_number

# ------------------------------------------------------------------------------------ the model


class ClozeModel(CausalModel):
    """A decoder whose output is {"logits" (B, labels)}: the scores of labels by their words.

    words: how many belong to each label, the first label's first.  All else is shared with the
    language model it is made of.
    """

    INPUTS = (*CausalModel.INPUTS, "answers")
    words: tuple[int, ...]

    @classmethod
    def of(cls, model: CausalModel, words: Sequence[int]) -> ClozeModel:
        made = cls.__new__(cls)
        made.__dict__.update(model.__dict__, words=tuple(words))
        return made

    @known_arguments
    def inputs(
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        cache: Cache | None = None,
        prefix_lengths: Any = None,
        answers: Any = None,
    ) -> dict[str, Any]:
        """The inputs of a decoder with an axis for the words after the first, checked.

        answers (B, words, T): the targets of each word's tokens, -100 elsewhere.
        """
        for name, value in (("inputs_embeds", inputs_embeds), ("cache", cache)):
            if value is not None:
                raise wrong(name, "None for words of labels", value)
        given = {"input_ids": input_ids, "answers": answers, "attention_mask": attention_mask}
        given |= {"position_ids": position_ids, "prefix_lengths": prefix_lengths}
        arrays = {n: checks.ids(n, a) for n, a in given.items() if a is not None or n == "answers"}
        shape = arrays["answers"].shape
        if len(shape) != 3 or 0 in shape:
            raise mismatch("answers", "shape (B, words, T) with all of them >= 1", shape)
        check_words(self.words, arrays["answers"])
        for name, array in arrays.items():
            full = shape if name in ("input_ids", "attention_mask") else shape[:2]
            if array.shape[: len(full)] != full:
                raise mismatch(name, f"shape {full} of answers", array.shape)
        each = {n: a.reshape(-1, *a.shape[2:]) for n, a in arrays.items() if n != "answers"}
        found = super().inputs(**each) | self._moved({"answers": arrays["answers"]})
        return {
            n: a if a is None or n == "answers" else a.reshape(*shape[:2], *a.shape[1:])
            for n, a in found.items()
        }

    def head_rows(self, targets: Arrays) -> int:
        """0: the head's gradient is never in factors."""
        return 0

    def _scores(self, inputs: Arrays, *, grad: bool = True) -> Head:
        answers = inputs["answers"]
        options: dict[str, Any] = {"cap": self.config.logit_cap, "entropy": False, "grad": grad}
        targets = answers.reshape(-1, answers.shape[2])
        head = self._over_vocabulary(partial(vocabulary_log_probs, targets=targets, **options))

        def scores(outputs: Arrays) -> tuple[Arrays, Callable]:
            x = outputs["log_probs"]
            y, back = label_scores(x.reshape(answers.shape), words=self.words)
            return {"logits": y}, lambda d: {"log_probs": back(d["logits"]).reshape(x.shape)}

        return then(head, scores)

    def _outputs_head(self, inputs: Arrays) -> Head:
        return with_hidden(self._scores(inputs))

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        if list(loss.targets) != ["logits"]:
            raise wrong("targets", "a dict with logits", list(loss.targets))
        given = loss.targets, loss.total or {}, loss.options.smoothing, self.config
        return then(self._scores(inputs, grad=grad), output_losses(*given))

    def _whole(
        self, head: Head, inputs: Arrays, stacking: StackOptions, targets: Any = None
    ) -> Passed:
        return super()._whole(head, _each(inputs), stacking, targets)

    def _in_parts(self, emit: Emit, head: Head, inputs: Arrays, stacking: StackOptions) -> InParts:
        return super()._in_parts(emit, head, _each(inputs), stacking)


def _each(inputs: Arrays) -> Arrays:
    """What the body reads: each word's sequence as a sample of its own."""
    each = flattened({n: a for n, a in inputs.items() if n != "answers"})[1]
    return {**each, "inputs_embeds": None}


# ------------------------------------------------------------------------------------ the samples


@dataclasses.dataclass(frozen=True)
class Clozes(Classes):
    """Texts with one class each, and as many sequences as the labels have words.

    targets: {"logits": class numbers}; rows: the sequences, words: how many belong to each label.
    """

    rows: list[Scored] = dataclasses.field(default_factory=list)
    words: tuple[int, ...] = ()

    def _inputs(self, numbers: Indices) -> dict[str, np.ndarray]:
        some = [
            self.rows[n * (self.count or 1) + i] for n in numbers for i in range(self.count or 1)
        ]
        inputs, answers = scored_arrays(some)
        arrays = inputs | {"answers": answers}
        return {n: a.reshape(len(numbers), -1, *a.shape[1:]) for n, a in arrays.items()}

    def model_for(self, model: Model) -> Model:
        check_decoder("model", model)
        assert isinstance(model, CausalModel)
        return ClozeModel.of(model, self.words)


@known_arguments
def cloze_classification(
    model: CausalModel,
    pattern: Cloze | Prefix,
    samples: Sequence[Mapping[str, Any]],
    labels: Sequence[str | int] | None = None,
) -> Clozes:
    """Samples to classify by words, for a GLM with a Cloze, or any decoder with a Prefix.

    samples: dicts with the fields of the template; labels: those of the verbaliser, by name or
    number; None: for prediction only.  ValueError for other models and for sequences that are
    longer than the context.
    """
    check_decoder("model", model)
    if not isinstance(pattern, (Cloze, Prefix)):
        raise wrong("pattern", "a Cloze or a Prefix", pattern)
    if isinstance(pattern, Prefix) and pattern.mean:
        raise wrong("pattern", "a Prefix whose words are not scored by their mean", pattern)
    samples = listed("samples", samples, "a list of dicts with the template's fields")
    if not samples:
        raise ValueError("samples: expected at least 1, got 0")
    names = pattern.verbaliser.labels
    targets = {}
    if labels is not None:
        labels = listed("labels", labels, "a label for each sample")
        if len(labels) != len(samples):
            raise mismatch("labels", f"one for each of {len(samples)} samples", len(labels))
        numbers = [label_number(label, names, f"sample {i}") for i, label in enumerate(labels)]
        targets = {"logits": numbers}
    rows = [row for n, sample in enumerate(samples) for row in _rows(model, pattern, sample, n)]
    words = tuple(map(len, pattern.verbaliser.lists))
    token = model.text_tokenizer().id_to_token
    encodings = [Encoding.special(row.ids, list(map(token, row.ids))) for row in rows]
    facts: dict[str, Any] = {"padding": Padding(), "inputs": (), "count": sum(words)}
    return Clozes(encodings, targets, **facts, rows=rows, words=words)


def _rows(model: CausalModel, pattern: Cloze | Prefix, sample: Any, n: int) -> list[Scored]:
    """The sequences of one sample, within the context."""
    where = f"sample {n}"
    if isinstance(pattern, Cloze):
        if model.config.position_rows is None:
            raise wrong("pattern", "a Prefix for a decoder that fills no blanks", pattern)
        rows, longest = pattern.blanks(model, sample, where), model.config.cache_context
    else:
        sequences = pattern.sequences(model.text_tokenizer(), sample)
        rows, longest = [_scored(sequence) for sequence in sequences], model.config.context
    for row in rows:
        if len(row.ids) > longest or max(row.prefix or 0, 0) > model.config.context:
            raise mismatch(where, f"at most {model.config.context} tokens", len(row.ids))
    return rows


def _scored(sequence: TokenSequence) -> Scored:
    pairs = zip(sequence.ids[1:], sequence.counts[1:])
    return Scored(sequence.ids[:-1], [id if counts else -100 for id, counts in pairs])

"""Distillation: a student learns from a teacher's distributions or answers.     Hinton et al. 2015

    loss = a CE(student, text) + (1 - a) T^2 KL(teacher || student),   means over tokens that count

With the teacher's own answers as the text (DeepSeek-AI 2025, sec. 2.4), use sampled_answers and
tuning.align.sft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_flag, check_number, check_out, check_whole, wrong
from ...core import IGNORED, Tree, add
from ...kernels.cross_entropy import vocabulary_cross_entropy
from ...kernels.distillation import vocabulary_distillation
from ...models.causal_lm import INFERENCE, vocabulary_head
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...models.parts import Head
from ...models.protocol import Arrays, OutputOptions
from ...training.step import check_finite
from ..data.sequences import Sequence, batch_numbers, check_sequences
from ..settings import RecipeSettings
from .learner import Journal, Learner
from .rollouts import rollouts
from .sft import answer_loss, batch_of


@dataclasses.dataclass(frozen=True)
class DistillSettings(RecipeSettings):
    """temperature     T of both distributions
    reverse         KL(student || teacher) in place of KL(teacher || student)
    hard            the share a of the cross-entropy on the text; 1: no teacher is asked
    evaluate_every  steps between losses on the validation sequences; None: before and after only
    """

    temperature: float = 2.0
    reverse: bool = False
    hard: float = 0.5
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, above=0)
        check_flag("reverse", self.reverse)
        check_number("hard", self.hard, least=0, most=1)
        check_whole("evaluate_every", self.evaluate_every, 1, or_none=True)


@dataclasses.dataclass(frozen=True)
class Result:
    """history: the values of each step; validation: {step: cross-entropy on the text in nats per
    token}; theta: that of the transform."""

    history: list[dict[str, float]]
    validation: dict[int, float]
    theta: Tree


def distill(
    student: CausalModel,
    teacher: CausalModel,
    sequences: SequenceOf[Sequence],
    settings: DistillSettings | None = None,
    *,
    validation: SequenceOf[Sequence] = (),
    out: str | Path | None = None,
    progress: bool = True,
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a student on sequences with a teacher; student.params are then those of the last step.

    The log of each step: loss, hard (cross-entropy, nats per token), kl (T^2 times the divergence,
    in the direction trained).
    ValueError for a teacher with another vocabulary or a shorter context; NonFiniteError for a loss
    or gradient that is not finite; on any error student.params do not change.
    """
    settings = DistillSettings.given(settings)
    check_teacher(student, teacher)
    check_out(out)
    context = min(student.config.context, teacher.config.context)
    for name, some in (("sequence", sequences), ("validation sequence", validation)):
        check_sequences(some, context=context, vocabulary=student.config.vocab_size, name=name)
    if not len(sequences):
        raise ValueError("there are no sequences to train on")
    learner = Learner(
        Student(student, teacher, settings), settings, transform=transform, theta=theta
    )
    order, losses = random.fold(random.key(settings.seed), 0), {}
    with Journal(out, settings.steps, progress=progress) as journal:

        def evaluate() -> None:
            if not len(validation):
                return
            losses[learner.done] = answer_loss(learner.model, validation, workers=settings.workers)
            check_finite(learner.done - 1, {"validation loss": losses[learner.done]})
            journal.write(step=learner.done, validation_loss=losses[learner.done])
            journal.progress.say(f"step {learner.done}: validation loss {losses[learner.done]:.4f}")

        evaluate()
        for step in range(settings.steps):
            numbers = batch_numbers(len(sequences), settings.batch_size, step, key=order)
            batch, total = batch_of([sequences[n] for n in numbers])
            values = learner.step(batch, mixture(settings), OutputOptions(total=total))
            journal.record(step + 1, values, shown=("loss", "hard", "kl"))
            if settings.evaluate_every and (step + 1) % settings.evaluate_every == 0:
                evaluate()
        if learner.done not in losses:
            evaluate()
        journal.finish(learner, validation=losses)
    student.params = learner.model.params
    return Result(journal.history, losses, learner.theta)


def mixture(settings: DistillSettings) -> Callable:
    """The loss above for Learner.step, of the outputs of a Student."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        shares = {"hard": settings.hard, "kl": 1 - settings.hard}
        shares = {name: share for name, share in shares.items() if name in outputs}
        value = sum(share * outputs[name] for name, share in shares.items())
        return {"loss": value, **outputs}, lambda dloss: (
            {name: share * dloss for name, share in shares.items()},
            None,
        )

    return loss


class Student(CausalModel):
    """A decoder with its teacher: its training outputs are {"hard", "kl"}, divided by `total`."""

    def __init__(self, model: CausalModel, teacher: CausalModel, settings: DistillSettings) -> None:
        super().__init__(
            model.family, model.config, model.params, tokenizer=model.tokenizer, device=model.device
        )
        self.generation, self.files = model.generation, model.files
        self.teacher, self.settings = teacher, settings

    def _training_head(
        self, inputs: Arrays, targets: Arrays | None, options: OutputOptions
    ) -> Head:
        """{"hard": cross-entropy, "kl": T^2 KL} of the tokens that count, in chunks over the
        vocabulary; dhidden and dW are sums over both."""
        settings, t, total = self.settings, _targets(targets), options.total
        losses = {"hard": partial(vocabulary_cross_entropy, targets=t, total=total)}
        if settings.hard < 1:
            family, params, config = self.teacher.family, self.teacher.params, self.teacher.config
            arrays = {name: a for name, a in inputs.items() if name != "key"}  # without dropout
            teacher_hidden, _ = family.body(
                params["body"], config=config, stacking=INFERENCE, **arrays
            )
            teacher_W, _ = family.output_matrix(params, config=config)
            losses["kl"] = partial(
                vocabulary_distillation,
                teacher_x=teacher_hidden,
                teacher_W=teacher_W,
                temperature=settings.temperature,
                reverse=settings.reverse,
                weights=(t != IGNORED).astype(teacher_hidden.dtype),
                total=total,
            )

        def f(hidden: Any, W: Any) -> tuple[dict[str, Any], Callable]:
            found = {name: loss(hidden, W) for name, loss in losses.items()}

            def backward(doutputs: dict[str, Any]) -> tuple[Any, Any]:
                dhidden = dW = None
                for name, d in doutputs.items():
                    dh, dw, _ = found[name][1](d)
                    dhidden, dW = add(dhidden, dh), add(dW, dw)
                return dhidden, dW

            return {name: value for name, (value, _) in found.items()}, backward

        return vocabulary_head(f, self.family, self.config)


def _targets(targets: Arrays | None) -> Any:
    if not isinstance(targets, Mapping) or targets.keys() != {"logits"}:
        raise wrong("targets", "a dict with logits alone", targets)
    return targets["logits"]


def sampled_answers(
    teacher: CausalModel,
    prompts: SequenceOf[SequenceOf[int]],
    *,
    accept: Callable | None = None,
    **options: Any,
) -> list[Sequence]:
    """The teacher's own answers as sequences to train a student on, with tuning.align.sft.

    accept(prompt, answer): whether to keep an answer (token ids, including the one that ended it),
    such as a rule that knows the right one (rejection sampling).  Truncated answers are dropped.
    options: those of tuning.align.rollouts.  ValueError if no answer remains.
    """
    drawn = rollouts(teacher, prompts, **options)
    rows = zip(drawn.sequences(), drawn.prompts, drawn.answers, drawn.finished)
    kept = [
        sequence
        for sequence, prompt, answer, finished in rows
        if finished and (accept is None or accept(prompt, answer))
    ]
    if not kept:
        raise ValueError(f"of {len(drawn)} answers of the teacher none ended and was accepted")
    return kept


def text_sequences(tokens: np.ndarray, length: int) -> list[Sequence]:
    """A token array as sequences of `length` + 1 tokens, each predicted from those before it."""
    ids = [
        tokens[start : start + length + 1].tolist() for start in range(0, len(tokens) - 1, length)
    ]
    return [Sequence(some, [False] + [True] * (len(some) - 1)) for some in ids]


def check_teacher(student: CausalModel, teacher: CausalModel) -> None:
    """ValueError for a teacher with another vocabulary."""
    check_decoder("student", student)
    check_decoder("teacher", teacher)
    if student.config.vocab_size != teacher.config.vocab_size:
        raise ValueError(
            f"the teacher has a vocabulary of {teacher.config.vocab_size} tokens, the student of "
            f"{student.config.vocab_size}: expected the same"
        )

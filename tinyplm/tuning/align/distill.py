"""Distillation: a student learns from a teacher's distributions or answers.     Hinton et al. 2015

    loss = a CE(student, text) + (1 - a) T^2 KL(teacher || student),   means over tokens that count

or another divergence (losses/distillation.py).

With the teacher's own answers as the text (DeepSeek-AI 2025, sec. 2.4), use sampled_answers and
tuning.align.sft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import (
    as_ids,
    check_choice,
    check_function,
    check_number,
    check_out,
    check_whole,
    known_arguments,
    mismatch,
    wrong,
)
from ...core import IGNORED, Tree, add
from ...kernels.cross_entropy import vocabulary_cross_entropy
from ...kernels.distillation import vocabulary_distillation
from ...losses.distillation import DIVERGENCES
from ...models.causal_lm import INFERENCE, vocabulary_head
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...models.parts import Head
from ...models.protocol import Arrays, OutputOptions
from ...models.routed import causal_body
from ...training.writers import check_writers
from ..data.sequences import TokenSequence, check_sequences
from ..settings import EvaluatedSettings
from .journal import Journal
from .learner import Learner
from .recipe import Result, check_vocabulary, run_steps
from .rollouts import rollouts
from .sft import answer_loss, batch_of


@dataclasses.dataclass(frozen=True)
class DistillSettings(EvaluatedSettings):
    """temperature  T of both distributions
    divergence   "forward", KL(teacher || student); "reverse", KL(student || teacher); or
                 "jensen-shannon", which is bounded and lies between both (GKD)
    beta         the teacher's share of the mixture in Jensen-Shannon's divergence
    hard         the share a of the cross-entropy on the text; 1: no teacher is asked
    """

    temperature: float = 2.0
    divergence: str = "forward"
    beta: float = 0.5
    hard: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, above=0)
        check_choice("divergence", self.divergence, DIVERGENCES)
        check_number("beta", self.beta, above=0, below=1)
        check_number("hard", self.hard, least=0, most=1)


@known_arguments
def distill(
    student: CausalModel,
    teacher: CausalModel,
    sequences: Sequence[TokenSequence],
    settings: DistillSettings | None = None,
    *,
    validation: Sequence[TokenSequence] = (),
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    writers: Sequence[str] = (),
    transform: Callable | None = None,
    theta: Tree = None,
) -> Result:
    """Train a student on sequences with a teacher; student.params are then those of the last step.

    The log of each step: loss, hard (cross-entropy, nats per token), kl (T^2 times the divergence
    trained with).  The result's validation is {step: nats per token of the text}.
    ValueError for a teacher with another vocabulary or a shorter context; NonFiniteError for a loss
    or gradient that is not finite; on any error student.params do not change.
    """
    settings = DistillSettings.given(settings)
    check_teacher(student, teacher)
    check_out(out, resume)
    check_writers(writers)
    context = min(student.config.context, teacher.config.context)
    limits = {"context": context, "vocabulary": student.config.vocab_size}
    check_sequences(sequences, **limits, least=1)
    check_sequences(validation, **limits, name="validation sequence")
    pair = Student(student, teacher, settings)
    learner = Learner(pair, settings, transform=transform, theta=theta)

    def update(numbers: np.ndarray) -> dict[str, float]:
        batch, total = batch_of([sequences[n] for n in numbers])
        return learner.step(batch, mixture(settings), OutputOptions(total=total))

    def evaluate(model: CausalModel) -> dict[str, float]:
        return {"loss": answer_loss(model, validation, workers=settings.workers)}

    judge, shown = evaluate if len(validation) else None, ("loss", "hard", "kl")
    data = {"teacher": teacher, "sequences": sequences, "validation": validation}
    run: dict[str, Any] = {"learner": learner, "data": data, "resume": resume}
    run["writers"] = writers
    with Journal(out, settings.steps, progress=progress, **run) as journal:
        found = run_steps(learner, journal, len(sequences), update, judge, shown=shown)
        losses = {step: values["loss"] for step, values in found.items()}
        journal.finish(learner, validation=losses)
    if journal.complete:
        student.params = learner.model.params
    return Result(journal.history, learner.theta, losses, signal=journal.signal)


def mixture(settings: DistillSettings) -> Callable:
    """The loss above for Learner.step, of the outputs of a Student."""

    def loss(outputs: dict, extra: Tree, part: dict) -> tuple[dict, Callable]:
        shares = {"hard": settings.hard, "kl": 1 - settings.hard}
        shares = {name: share for name, share in shares.items() if name in outputs}
        value = sum(share * outputs[name] for name, share in shares.items())

        def backward(dloss: float) -> tuple[dict, Tree]:
            return {name: share * dloss for name, share in shares.items()}, None

        return {"loss": value, **outputs}, backward

    return loss


class Student(CausalModel):
    """A decoder with its teacher: its training outputs are {"hard", "kl"}, divided by `total`."""

    def __init__(self, model: CausalModel, teacher: CausalModel, settings: DistillSettings) -> None:
        super().__init__(
            *(model.family, model.config, model.params),
            buffers=model.buffers,
            tokenizer=model.tokenizer,
            device=model.device,
        )
        self.generation, self.files = model.generation, model.files
        self.teacher, self.settings = teacher, settings

    def _training_head(self, inputs: Arrays, targets: Any, options: OutputOptions) -> Head:
        """{"hard": cross-entropy, "kl": T^2 KL} of the tokens that count, in chunks over the
        vocabulary; dhidden and dW are sums over both."""
        if not isinstance(targets, Mapping) or targets.keys() != {"logits"}:
            raise wrong("targets", "a dict with logits alone", targets)
        settings, t, total = self.settings, targets["logits"], options.total
        cap = self.config.logit_cap
        hard = partial(vocabulary_cross_entropy, targets=t, total=total, cap=cap)
        losses: dict[str, Callable[..., tuple[Any, Any]]] = {"hard": hard}
        if settings.hard < 1:
            family, params, config = self.teacher.family, self.teacher.params, self.teacher.config
            body = causal_body(family, config, self.teacher.buffers)
            arrays = {name: a for name, a in inputs.items() if name != "key"}  # without dropout
            x, _ = body(params["body"], stacking=INFERENCE, **arrays)
            teacher = {"teacher_x": x, "teacher_W": family.output_matrix(params, config=config)[0]}
            losses["kl"] = partial(
                vocabulary_distillation,
                **teacher,
                cap=cap,
                teacher_cap=config.logit_cap,
                temperature=settings.temperature,
                divergence=settings.divergence,
                beta=settings.beta,
                weights=(t != IGNORED).astype(x.dtype),
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


def sampled_answers(
    teacher: CausalModel,
    prompts: Sequence[Sequence[int]],
    *,
    accept: Callable | None = None,
    **options: Any,
) -> list[TokenSequence]:
    """The teacher's own answers as sequences to train a student on, with tuning.align.sft.

    accept(prompt, answer): whether to keep an answer (token ids, including the one that ended it),
    such as a rule that knows the right one (rejection sampling).  Truncated answers are dropped.
    options: those of tuning.align.rollouts.  ValueError if no answer remains.
    """
    check_decoder("teacher", teacher)
    check_function("accept", accept, or_none=True)
    drawn = rollouts(teacher, prompts, **options)
    rows = zip(drawn.sequences(), drawn.prompts, drawn.answers, drawn.finished)
    kept = [
        sequence
        for sequence, prompt, answer, finished in rows
        if finished and (accept is None or accept(prompt, answer))
    ]
    if not kept:
        raise mismatch("accept", f"at least one of {len(drawn)} answers to be accepted", "none")
    return kept


def text_sequences(tokens: np.ndarray, length: int) -> list[TokenSequence]:
    """A token array as sequences of `length` + 1 tokens, each predicted from those before it."""
    tokens = as_ids("tokens", tokens)
    check_whole("length", length, 1)
    starts = range(0, len(tokens) - 1, length)
    ids = [tokens[start : start + length + 1].tolist() for start in starts]
    return [TokenSequence(some, [False] + [True] * (len(some) - 1)) for some in ids]


def check_teacher(student: CausalModel, teacher: CausalModel) -> None:
    """ValueError for a teacher with another vocabulary."""
    check_decoder("student", student)
    check_vocabulary("teacher", teacher, student, "student")

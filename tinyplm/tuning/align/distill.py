"""Distillation: a student learns from a teacher's distributions over the vocabulary, or from its answers.    Hinton et al. 2015

    loss = a CE(student, text) + (1 - a) T^2 KL(teacher || student),   means over the tokens that count

On samples (DeepSeek-AI 2025, sec. 2.4): the teacher's own answers are the text, and tuning.sft does the rest: sampled_answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_flag, check_number, check_out, check_whole
from ...core import IGNORED, Tree, add
from ...kernels.cross_entropy import vocabulary_cross_entropy
from ...kernels.distillation import vocabulary_distillation
from ...models import causal_lm
from ...models.causal_model import CausalModel
from ...models.checks import run_body
from ...models.model import check_decoder
from ..data.sequences import Sequence, batch_numbers, check_sequences
from ..settings import RecipeSettings
from .learner import Journal, Learner, check_finite
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
    """history: the numbers of each step; validation: {step: nats a token, by the text alone}; theta: of the transform."""

    history: list[dict[str, float]]
    validation: dict[int, float]
    theta: Tree


def distill(student: CausalModel, teacher: CausalModel, sequences: SequenceOf[Sequence],
            settings: DistillSettings | None = None, *, validation: SequenceOf[Sequence] = (), out: str | Path | None = None,
            progress: bool = True, transform: Callable | None = None, theta: Tree = None) -> Result:  # fmt: skip
    """Train a student on sequences with a teacher; afterwards student.params are those of the last step, the teacher as before.

    The log of each step: loss, hard (cross-entropy, nats a token), kl (T^2 times the divergence, in the direction trained).
    ValueError for a teacher with another vocabulary or a shorter context; NonFiniteError for a loss or gradient that is not
    finite; on any error student.params stay what they were.
    """
    settings = DistillSettings.given(settings)
    check_teacher(student, teacher)
    check_out(out)
    context = min(student.config.context, teacher.config.context)
    for name, some in (("sequence", sequences), ("validation sequence", validation)):
        check_sequences(some, context=context, vocabulary=student.config.vocab_size, name=name)
    if not len(sequences):
        raise ValueError("there are no sequences to train on")
    learner = Learner(Student(student, teacher, settings), settings, transform=transform, theta=theta)
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
            values = learner.step(batch, mixture(settings), total=total)
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
        return {"loss": value, **outputs}, lambda dloss: ({name: share * dloss for name, share in shares.items()}, None)

    return loss


class Student(CausalModel):
    """A decoder beside its teacher, for a learner: its outputs in training are {"hard", "kl"}, already divided by `total`."""

    def __init__(self, model: CausalModel, teacher: CausalModel, settings: DistillSettings) -> None:
        super().__init__(model.family, model.config, model.params, tokenizer=model.tokenizer, device=model.device)
        self.generation, self.files = model.generation, model.files
        self.teacher, self.settings = teacher, settings

    def outputs_in_parts(self, give: Callable, *, targets: dict, total: float, key: Any = None, checkpointing: int = 0,
                         **inputs: Any) -> tuple[dict, Callable]:  # fmt: skip
        """Cross-entropy and T^2 KL of the tokens that count, in chunks over the vocabulary; backward as in causal_lm."""
        settings, t, inputs = self.settings, targets["logits"], self.checked(inputs)
        hidden, body_back = causal_lm.body_in_parts(self.family, self.params, give, config=self.config, key=key,
                                                    checkpointing=checkpointing, **inputs)  # fmt: skip
        W, W_back = self.family.output_matrix(self.params, config=self.config)
        outputs, backs = {}, {}
        outputs["hard"], backs["hard"] = vocabulary_cross_entropy(hidden, W, targets=t, total=total)
        if settings.hard < 1:
            family, params, config = self.teacher.family, self.teacher.params, self.teacher.config
            teacher_hidden, _ = run_body(family, params["body"], config=config, grad=False, **inputs)
            teacher_W, _ = family.output_matrix(params, config=config)
            outputs["kl"], backs["kl"] = vocabulary_distillation(
                hidden, W, teacher_x=teacher_hidden, teacher_W=teacher_W, temperature=settings.temperature,
                reverse=settings.reverse, weights=(t != IGNORED).astype(hidden.dtype), total=total)  # fmt: skip

        def backward(doutputs):
            dhidden = dW = None
            for name, d in doutputs.items():
                dh, dw, _ = backs[name](d)
                dhidden, dW = add(dhidden, dh), add(dW, dw)
            give("", W_back(dW))
            return body_back(dhidden)

        return outputs, backward


def sampled_answers(teacher: CausalModel, prompts: SequenceOf[SequenceOf[int]], *, accept: Callable | None = None,
                    **options: Any) -> list[Sequence]:  # fmt: skip
    """The teacher's own answers as sequences to train a student on, with tuning.sft.

    accept(prompt, answer): whether an answer (token ids, with the one that ended it) is kept, such as a rule that knows what is
    right (rejection sampling).  Answers that did not end are left out.  options: of tuning.rollouts.  ValueError if none is left.
    """
    drawn = rollouts(teacher, prompts, **options)
    rows = zip(drawn.sequences(), drawn.prompts, drawn.answers, drawn.finished)
    kept = [sequence for sequence, prompt, answer, finished in rows if finished and (accept is None or accept(prompt, answer))]
    if not kept:
        raise ValueError(f"of {len(drawn)} answers of the teacher none ended and was accepted")
    return kept


def text_sequences(tokens: np.ndarray, length: int) -> list[Sequence]:
    """A token array as sequences of `length` places, of which every token is to be predicted from those before it in its own."""
    ids = [tokens[start : start + length + 1].tolist() for start in range(0, len(tokens) - 1, length)]
    return [Sequence(some, [False] + [True] * (len(some) - 1)) for some in ids]


def check_teacher(student: CausalModel, teacher: CausalModel) -> None:
    """ValueError for a teacher with another vocabulary."""
    check_decoder("student", student)
    check_decoder("teacher", teacher)
    if student.config.vocab_size != teacher.config.vocab_size:
        raise ValueError(f"the teacher has a vocabulary of {teacher.config.vocab_size} tokens, the student of "
                         f"{student.config.vocab_size}: expected the same")  # fmt: skip

"""Distillation on logits and on samples."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, relative_error
from tests.tuning.align.test_learner import some_sequences, tiny
from tests.tuning.align.test_sft import copying
from tinyplm.core import tree_map
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.losses.distillation import distillation
from tinyplm.models.protocol import OutputOptions
from tinyplm.tuning.adapters.lora import lora_of
from tinyplm.tuning.align.distill import DistillSettings, Student, distill, mixture, sampled_answers, text_sequences
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.sft import SFTSettings, batch_of, sft


@pytest.mark.parametrize("changes", [{}, {"divergence": "reverse", "temperature": 1.5},
                                     {"divergence": "jensen-shannon", "beta": 0.3}, {"hard": 0.0}, {"hard": 1.0}])  # fmt: skip
@pytest.mark.parametrize(("student", "teacher"), [("llama", "llama"), ("llama", "gpt2"), ("qwen2_moe", "qwen2_moe")])
def test_the_step_is_both_losses_on_full_logits(changes, student, teacher):
    model, teacher = tiny(student), tiny(teacher, key=8)
    settings = DistillSettings(workers=2, micro_batch_size=4, **changes)
    batch, total = batch_of(some_sequences())
    learner = Learner(Student(model, teacher, settings), settings)
    values = learner.accumulate(batch, mixture(settings), OutputOptions(total=total))
    targets = batch["targets"]["logits"]
    outputs, back = model(**batch["inputs"])
    soft = {"teacher_logits": teacher(**batch["inputs"])[0]["logits"], "weights": (targets != -100).astype(float), "total": total,
            "temperature": settings.temperature, "divergence": settings.divergence, "beta": settings.beta}  # fmt: skip
    (hard, hard_back), (kl, kl_back) = cross_entropy(outputs["logits"], targets=targets), distillation(outputs["logits"], **soft)
    a = settings.hard
    assert values["loss"] == pytest.approx(float(a * hard + (1 - a) * kl), rel=MODEL)
    assert values["hard"] == pytest.approx(float(hard), rel=MODEL)
    assert ("kl" in values) == (a < 1) and (a == 1 or values["kl"] == pytest.approx(float(kl), rel=MODEL))
    dlogits = (hard_back(a) if a else 0) + (kl_back(1 - a) if a < 1 else 0)
    assert relative_error(learner.optimizer.gradient.tree["model"], back({"logits": dlogits})) < MODEL


def test_a_student_with_the_teachers_parameters_has_nothing_to_learn():
    model = tiny()
    settings = DistillSettings(hard=0.0)
    batch, total = batch_of(some_sequences())
    learner = Learner(Student(model, model, settings), settings)
    values = learner.accumulate(batch, mixture(settings), OutputOptions(total=total))
    assert abs(values["kl"]) < MODEL and float(learner.optimizer.gradient_norm()) < MODEL


def test_a_student_follows_its_teacher(tmp_path):
    teacher, student = tiny(dtype="float32"), tiny(dtype="float32", key=7)
    sft(teacher, copying(300, 0), SFTSettings(steps=150, batch_size=32, learning_rate=2e-2), progress=False)
    before, after = (tree_map(np.copy, m.params) for m in (teacher, student))
    settings = DistillSettings(steps=60, batch_size=32, learning_rate=2e-2, evaluate_every=30, workers=2)
    result = distill(student, teacher, copying(100, 2), settings, validation=copying(50, 1), out=tmp_path, progress=False)
    assert list(result.validation) == [0, 30, 60] and result.validation[60] < 0.8 * result.validation[0]
    assert result.history[-1]["kl"] < 0.7 * result.history[0]["kl"]
    assert relative_error(teacher.params, before) == 0 and relative_error(student.params, after) > 0.01
    again = tinyplm.load(tmp_path / "final")
    assert relative_error(again.params, student.params) == 0 and type(student).__name__ == "CausalModel"


def test_the_same_seed_gives_the_same_bits_also_with_lora():
    def run(seed, rank=None):
        student = tiny(dtype="float32", key=7)
        adapter = {} if rank is None else lora_of(student, rank=rank)
        settings = DistillSettings(steps=3, batch_size=4, seed=seed, workers=2, learning_rate=1e-2)
        distill(student, tiny(dtype="float32"), some_sequences(), settings, progress=False, **adapter)
        return student.params

    assert relative_error(run(0), run(0)) == 0 and relative_error(run(0), run(1)) > 1e-5
    assert relative_error(run(0, rank=1), run(0)) > 1e-5


def test_samples_of_the_teacher():
    teacher = tiny()
    options = {"samples": 4, "max_new_tokens": 5, "stop_ids": range(10), "seed": 3}
    every = sampled_answers(teacher, [[20], [21, 22]], **options)
    short = sampled_answers(teacher, [[20], [21, 22]], accept=lambda prompt, answer: len(answer) <= 2, **options)
    assert 0 < len(short) < len(every) <= 8
    assert all(s.ids[-1] < 10 and s.ids[: s.counts.index(True)] in ([20], [21, 22]) for s in every)
    with pytest.raises(ValueError, match="accept: expected at least one of 8 answers to be accepted, got none"):
        sampled_answers(teacher, [[20], [21, 22]], accept=lambda prompt, answer: False, **options)


def test_a_text_as_sequences():
    some = text_sequences(np.arange(8, dtype=np.uint16), 3)
    assert [s.ids for s in some] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]
    assert all(s.counts == [False] + [True] * len(s) for s in some)


def test_bad_input():
    student, teacher = tiny(), tinyplm.create("gpt2", vocab_size=41, n_embd=12, n_layer=1, n_head=3, n_positions=16)
    before = tree_map(np.copy, student.params)
    with pytest.raises(ValueError, match="teacher: expected a vocabulary of 40 tokens, as the student has, got 41"):
        distill(student, teacher, some_sequences(), progress=False)
    short = tinyplm.create("gpt2", vocab_size=40, n_embd=12, n_layer=1, n_head=3, n_positions=4, dtype="float64")
    with pytest.raises(ValueError, match="expected at most 4 tokens, the model's context, got 5"):
        distill(student, short, some_sequences(), progress=False)
    with pytest.raises(ValueError, match="sequences: expected at least 1, got 0"):
        distill(student, tiny(), [], progress=False)
    assert relative_error(student.params, before) == 0

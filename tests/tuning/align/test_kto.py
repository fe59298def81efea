"""Feedback and KTO."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, relative_error
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_learner import tiny
from tinyplm import random
from tinyplm.core import tree_map
from tinyplm.losses import feedback as losses
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES
from tinyplm.training.log import read
from tinyplm.tuning.align.kto import Judged, KTOSettings, kto, kto_batch, kto_loss, sums
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.data.conversations import plain, preference
from tinyplm.tuning.data.feedback import feedback, mismatched
from tinyplm.tuning.data.records import check_records
from tinyplm.tuning.data.sequences import TokenSequence, answered


def some_feedback(count=6, seed=0):
    """Desirable answers end with 1, others with 2."""
    return [(pair[n % 2], n % 2 == 0) for n, pair in enumerate(some_pairs(count, seed))]


def test_each_prompt_gets_another_answer():
    samples = [(answered([n] * (n + 1), [10 + n] * (n + 1)), True) for n in range(4)]
    found = mismatched(samples, context=6, key=random.key(5))
    for n, sequence in enumerate(found):
        prompt, answer = sequence.ids[: n + 1], sequence.ids[n + 1 :]
        assert prompt == [n] * (n + 1) and sequence.counts == [False] * len(prompt) + [True] * len(answer)
        assert answer[0] != 10 + n and answer == [answer[0]] * min(answer[0] - 9, 7 - len(prompt))  # truncated to the context
    assert {s.ids[-1] for s in found} == {10, 11, 12, 13}
    again = [mismatched(samples, context=6, key=random.key(key)) for key in (5, 6, 7, 8)]
    assert found == again[0] and any(found != other for other in again)
    turns = TokenSequence([1, 2, 3, 4], [False, True, False, True])
    (first, _) = mismatched([(turns, True), (answered([5], [6]), False)], context=9, key=0)
    assert first.ids == [1, 6] and first.counts == [False, True]


def values_by_hand(model, settings, judged, kl):
    r = sums(model, judged.sequences, settings) - judged.reference
    good, sign = judged.desirable, np.where(judged.desirable, 1, -1)
    lam = np.where(good, settings.desirable_weight, settings.undesirable_weight)
    beta, value = settings.beta, 1 / (1 + np.exp(-sign * settings.beta * (r - kl)))
    means = {"desirable": beta * r[good].mean(), "undesirable": beta * r[~good].mean()}
    return {"loss": (lam * (1 - value)).mean(), "accuracy": ((r > kl) == good).mean(), **means,
            "margin": means["desirable"] - means["undesirable"]}, lam * value * (1 - value) * sign * beta  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_step_is_the_loss_on_whole_answers(family):
    """Loss, statistics and gradient through the learner, in parts, against the formula on sums of one plain call."""
    model, other = tiny(family), tiny(family, key=9)
    settings = KTOSettings(beta=0.5, desirable_weight=1.2, undesirable_weight=0.7, micro_batch_size=2, workers=2)
    judged = Judged.of(other, some_feedback(), settings)
    kl = judged.reference_point(model, settings)
    assert kl == pytest.approx(max(0.0, np.mean(sums(model, judged.others, settings) - sums(other, judged.others, settings))))
    kl = 0.4
    learner = Learner(model, settings)
    batch = kto_batch(judged)
    values = learner.accumulate(batch, kto_loss(settings, kl, judged.desirable))
    expected, slope = values_by_hand(model, settings, judged, kl)
    assert values == pytest.approx(expected, rel=MODEL, abs=MODEL)
    outputs, back = model.token_outputs(**batch["inputs"], targets=batch["targets"]["logits"])
    gradient = back({"log_probs": -slope[:, None] / 6 * np.ones(outputs["log_probs"].shape)})
    assert relative_error(learner.optimizer.gradient.tree["model"], gradient) < MODEL


def test_it_learns_what_is_desirable(tmp_path):
    """Over five seeds of model, answers and order: losses of 0.37 to 0.43, margins of 0.6 to 1.2, accuracies of 0.6 to 0.78."""
    model = tiny(dtype="float32")
    before = tree_map(np.copy, model.params)
    settings = KTOSettings(steps=60, batch_size=8, learning_rate=1e-2, beta=0.2, workers=2, evaluate_every=30)
    result = kto(model, some_feedback(40), settings, validation=some_feedback(40, seed=1), out=tmp_path, progress=False)
    assert result.history[0]["loss"] == pytest.approx(0.5, abs=1e-6) and result.history[0]["kl"] == 0
    assert list(result.validation) == [0, 30, 60] and result.validation[0]["loss"] == pytest.approx(0.5, abs=1e-6)
    first, last = result.validation[0], result.validation[60]
    assert last["loss"] < 0.45 and last["margin"] > 0.3 and last["accuracy"] > first["accuracy"] + 0.05
    assert relative_error(model.params, before) > 0.01
    assert relative_error(tinyplm.load(tmp_path / "final").params, model.params) == 0
    assert [r["step"] for r in read(tmp_path / "log.jsonl") if "validation_kl" in r] == [0, 30, 60]


def test_the_reference_point_is_of_the_policy_before_each_step():
    """By a copy of the model trained in the same way for one step less."""

    def run(steps):
        model = tiny()
        settings = KTOSettings(steps=steps, batch_size=6, learning_rate=0.05, schedule="constant", warmup=0)
        return model, settings, kto(model, some_feedback(), settings, progress=False).history

    (model, settings, _), (*_, history) = run(2), run(3)
    judged = Judged.of(tiny(), some_feedback(), settings)
    now = sums(model, judged.others, settings)
    assert history[2]["kl"] == pytest.approx(float(losses.reference_point(now, judged.others_reference)), rel=MODEL, abs=MODEL)
    assert any(h["kl"] > 0 for h in history)


def test_bits_repeat_and_one_kind_alone_is_logged():
    def run(seed, samples, **options):
        model = tiny(dtype="float32")
        settings = KTOSettings(steps=3, batch_size=4, seed=seed, learning_rate=1e-3, workers=2)
        return model, kto(model, samples, settings, progress=False, **options).history

    a, b, c = (run(seed, some_feedback())[0].params for seed in (0, 0, 1))
    assert relative_error(a, b) == 0 and relative_error(a, c) > 1e-5
    assert relative_error(a, run(0, some_feedback(), reference=tiny(dtype="float32", key=8))[0].params) > 1e-5
    history = run(0, [(sequence, True) for sequence, _ in some_feedback()])[1]
    assert all("desirable" in h and not {"undesirable", "margin"} & h.keys() for h in history)


def test_bad_input():
    model, good = tiny(), some_feedback(2)
    before = tree_map(np.copy, model.params)
    cases = [
        ([good[0]], "feedback: expected at least 2, got 1"),
        ([good[0], (good[1][0], 1)], "feedback 1: expected a TokenSequence with True or False"),
        ([good[0], good[1][0]], "feedback 1: expected a TokenSequence with True or False"),
        ([good[0], (answered([1], [2] * 20), True)], "feedback 1: expected at most 16 tokens"),
        ([good[0], (answered([1], [44]), True)], "feedback 1: expected token ids from 0 to 39, got 44"),
    ]
    for samples, message in cases:
        with pytest.raises(ValueError, match=message):
            kto(model, samples, KTOSettings(steps=1), progress=False)
    with pytest.raises(ValueError, match="validation: expected no answers, or 2 and more, got 1"):
        kto(model, good, KTOSettings(steps=1), validation=good[:1], progress=False)
    assert relative_error(model.params, before) == 0


# ------------------------------------------------------------------------------------------------------- records

ASKED, SAID = [{"role": "user", "content": "Is it late?"}], {"role": "assistant", "content": "Yes."}


def test_records_of_feedback():
    expected = {"prompt": "Is it late?", "answer": "Yes.", "label": False, "by": "me"}
    for record in (expected, {"prompt": "Is it late?", "completion": "Yes.", "label": False, "by": "me"},
                   {**expected, "answer": [SAID]}):  # fmt: skip
        assert check_records([record], "feedback") == [expected]
    assert check_records([{"prompt": ASKED, "completion": "Yes.", "label": True}], "feedback")[0]["prompt"] == ASKED


@pytest.mark.parametrize(("record", "message"), [
    ({"prompt": "a", "label": True}, "expected a record of kind feedback .*, got one of kind prompt"),
    ({"prompt": "a", "answer": "b", "completion": "b", "label": True}, "expected 'answer' or 'completion', got both"),
    ({"answer": "b", "label": True}, "expected a text 'prompt', got only 'answer', 'label'"),
    ({"prompt": "a", "answer": "b", "label": 1}, "expected true or false as 'label', got 1"),
    ({"prompt": "a", "answer": "b", "label": None}, "expected true or false as 'label', got None"),
    ({"prompt": "", "answer": "b", "label": True}, "prompt: expected a text, got an empty one"),
    ({"prompt": [SAID], "answer": "b", "label": True}, "messages: expected "),
    ({"prompt": "a", "completion": " ", "label": True}, "answer: expected a text, got an empty one"),
    ({"prompt": "a", "answer": ASKED, "label": True}, "answer: expected an answer of the assistant, got "),
])  # fmt: skip
def test_bad_records(record, message):
    with pytest.raises(ValueError, match=f"^feedback 0[,:] {message}"):
        check_records([record], "feedback")


def test_records_become_judged_answers():
    tokenizer = Tokenizer.train(
        ["Is it late? Yes, very. user assistant"] * 3, 300, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )
    record = {"prompt": "Is it late?", "answer": " Yes.", "label": True}
    assert feedback(tokenizer, None, [record]) == [(plain(tokenizer, "Is it late?", " Yes."), True)]
    talk = [*ASKED, SAID, {"role": "user", "content": "Thanks"}]
    ((found, label),) = feedback(tokenizer, TEMPLATES["chatml"], [{"prompt": talk, "answer": "Bye", "label": False}])
    chosen, _ = preference(tokenizer, TEMPLATES["chatml"], {"prompt": talk, "chosen": "Bye", "rejected": "No"})
    assert found == chosen and label is False
    for bad, message in (({"prompt": "a", "answer": "b"}, "record 0: expected a dict with 'prompt', 'answer' and 'label'"),
                         ({**record, "label": 1}, "record 0: label: expected True or False, got 1"),
                         ({**record, "prompt": ASKED}, "record 0: template: expected a Template, since"),
                         ({**record, "answer": ""}, "record 0: ")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            feedback(tokenizer, None, [bad])

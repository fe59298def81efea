"""Supervised fine-tuning on answers."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, MODEL, MODEL_32, relative_error
from tests.tuning.align.test_learner import some_sequences, tiny
from tinyplm.core import tree_map
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.training.log import read
from tinyplm.tuning.align.sft import SFTSettings, answer_likelihood, answer_loss, batch_of, sft
from tinyplm.tuning.data.sequences import answered, batch_numbers, sequence_arrays


def copying(count, seed):
    """Answers that repeat the prompt's last token and then end (token 0)."""
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(1, 40, 4).tolist() for _ in range(count)]
    return [answered(prompt, [prompt[-1], 0]) for prompt in prompts]


def test_every_epoch_has_every_sample_once():
    drawn = np.concatenate([batch_numbers(7, 3, step, key=5) for step in range(7)])
    assert [sorted(drawn[7 * e : 7 * e + 7].tolist()) for e in range(3)] == [list(range(7))] * 3
    assert not np.array_equal(drawn[:7], drawn[7:14])
    assert sorted(batch_numbers(2, 5, 1, key=5).tolist()) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])  # a batch spanning several epochs
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        batch_numbers(0, 1, 0, key=5)


def test_the_loss_is_the_cross_entropy_of_the_answers():
    model, sequences = tiny(), some_sequences()
    batch, total = batch_of(sequences)
    outputs, _ = model(batch["inputs"]["input_ids"], attention_mask=batch["inputs"]["attention_mask"])
    expected, back = cross_entropy(outputs["logits"], targets=batch["targets"]["logits"])
    found = model.token_outputs(**batch["inputs"], targets=batch["targets"]["logits"])[0]
    values, backward = answer_likelihood(total)(found, None, {})
    assert total == sum(sum(s.counts) for s in sequences)
    assert values["loss"] == pytest.approx(float(expected), rel=MODEL)
    assert relative_error(backward(2.0)[0]["log_probs"], np.full(found["log_probs"].shape, -2.0 / total)) < FEW
    assert answer_loss(model, sequences, batch_size=2) == pytest.approx(float(expected), rel=MODEL)


def test_it_learns_to_copy_and_writes_what_it_did(tmp_path):
    model = tiny(dtype="float32")
    before = tree_map(np.copy, model.params)
    train, held_out = copying(200, 0), copying(50, 1)
    settings = SFTSettings(steps=120, batch_size=32, learning_rate=2e-2, workers=2, evaluate_every=50)
    result = sft(model, train, settings, validation=held_out, out=tmp_path, progress=False)
    assert list(result.validation) == [0, 50, 100, 120] and len(result.history) == 120
    assert result.validation[120] < 0.5 * result.validation[0]
    assert relative_error(model.params, before) > 0.1
    assert answer_loss(model, held_out) == pytest.approx(result.validation[120], rel=MODEL_32)
    again = tinyplm.load(tmp_path / "final")
    assert relative_error(again.params, model.params) == 0
    assert [r["step"] for r in read(tmp_path / "log.jsonl") if "validation_loss" in r] == [0, 50, 100, 120]


def test_the_same_seed_gives_the_same_bits():
    def run(seed):
        model = tiny(dtype="float32")
        sft(model, copying(30, 0), SFTSettings(steps=5, batch_size=8, workers=2, seed=seed), progress=False)
        return model.params

    assert relative_error(run(0), run(0)) == 0
    assert relative_error(run(0), run(1)) > 1e-4


def test_errors_leave_the_model_alone():
    model = tiny()
    before = tree_map(np.copy, model.params)
    with pytest.raises(ValueError, match="sequences: expected at least 1, got 0"):
        sft(model, [], progress=False)
    with pytest.raises(ValueError, match="^packed: expected None or an integer from 1 to 16, got 17"):
        sft(model, [answered([1], [2])], SFTSettings(packed=17), progress=False)
    with pytest.raises(ValueError, match="sequence 1: expected at most 16 tokens, the model's context, got 20"):
        sft(model, [answered([1], [2]), answered([1], [2] * 20)], progress=False)
    with pytest.raises(ValueError, match="validation sequence 0: expected token ids from 0 to 39, got 40"):
        sft(model, [answered([1], [2])], validation=[answered([40], [2])], progress=False)
    with pytest.raises(ValueError, match="expected a decoder"):
        sft(tinyplm.create("bert", vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8),
            [answered([1], [2])], progress=False)  # fmt: skip
    assert relative_error(model.params, before) == 0
    assert sequence_arrays([answered([1], [2])])["targets"].tolist() == [[2]]

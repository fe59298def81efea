# ruff: noqa: E402 - imports follow importorskip
"""GPT-1's tasks against transformers: OpenAIGPTDoubleHeadsModel in float64 to 1e-9 (see pair.py), and a fine-tuned folder."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import TOLERANCE, float64, named_gradients, random_model, with_ours
from tests.laws import relative_error
from tests.tuning.finetuning.test_delimiters import formats, model
from tinyplm.core import IGNORED
from tinyplm.hub import folders as hub
from tinyplm.tuning.finetuning.finetune import finetune, next_tokens
from tinyplm.tuning.finetuning.predict import predict
from tinyplm.tuning.settings import TuningSettings


def pair(folder, **changes):
    row = FAMILIES["openai-gpt"]
    config = row.config(**{**row.tiny, **changes}, attn_implementation="eager")
    return with_ours(random_model(transformers.OpenAIGPTDoubleHeadsModel, config), folder)


@pytest.mark.parametrize(("B", "N", "T", "odd"), [(2, 3, 7, False), (1, 2, 2, False), (3, 2, 5, True)])
def test_choices_the_language_model_and_every_gradient(B, N, T, odd, tmp_path):
    theirs, ours = pair(tmp_path, **(FAMILIES["openai-gpt"].odd if odd else {}))
    assert ours.task == "multiple_choice" and ours.fresh == []
    draw = np.random.default_rng(1)
    lengths = draw.integers(2, T + 1, (B, N))
    mask = (np.arange(T) < lengths[..., None]).astype(np.int64)
    ids, answers = draw.integers(0, 41, (B, N, T)), draw.integers(0, N, B)
    words = np.where(mask == 1, ids, IGNORED)
    with float64():
        found = theirs(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.reshape(B * N, T)),
                       mc_token_ids=torch.from_numpy(lengths - 1), labels=torch.from_numpy(words),
                       mc_labels=torch.from_numpy(answers))  # fmt: skip
        (found.mc_loss + 0.5 * found.loss).backward()
    inputs = {"input_ids": ids, "attention_mask": mask}
    outputs, _ = ours(**inputs)
    assert relative_error(outputs["logits"], found.mc_logits.detach().numpy()) < TOLERANCE
    alone, _ = ours.loss(targets={"logits": answers}, grad=False, **inputs)
    assert float(alone) == pytest.approx(found.mc_loss.item(), rel=TOLERANCE)
    aims = {"logits": answers, "language_model": next_tokens(**inputs)}
    loss, back = ours.loss(targets=aims, auxiliary=0.5, **inputs)
    assert float(loss) == pytest.approx((found.mc_loss + 0.5 * found.loss).item(), rel=TOLERANCE)
    gradients, expected = hub.gradients_by_hub_name(ours, back(1.0)), named_gradients(theirs)
    assert gradients.keys() == expected.keys()
    size = max(np.abs(g).max() for g in expected.values())
    for name, wanted in expected.items():
        assert np.abs(gradients[name] - wanted).max() < TOLERANCE * size, name


def test_files_go_both_ways_bit_by_bit(tmp_path):
    theirs, ours = pair(tmp_path / "theirs")
    tinyplm.save(ours, tmp_path / "ours")
    kind = transformers.OpenAIGPTDoubleHeadsModel
    again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True, dtype=torch.float64)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, p in theirs.state_dict().items():
        assert torch.equal(p, again.state_dict()[name]), name
    assert again.config.summary_first_dropout == ours.config.summary_first_dropout == 0.1


@pytest.mark.parametrize("task", ["sequence_classification", "multiple_choice"])
def test_transformers_loads_what_was_fine_tuned_with_delimiters(task, tmp_path):
    """The tokenizer makes the same sequences, and the model the same logits: of a similarity, the sum of two orders."""
    made = model(task)
    samples = formats(made, task)
    finetune(made, samples, samples, TuningSettings(epochs=1, batch_size=4, learning_rate=1e-2, auxiliary=0.5), out=tmp_path,
             progress=False)  # fmt: skip
    kind = {"multiple_choice": "DoubleHeadsModel", "sequence_classification": "ForSequenceClassification"}[task]
    theirs = getattr(transformers, f"OpenAIGPT{kind}").from_pretrained(tmp_path / "best").eval()
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path / "best")
    texts = [(encoding.tokens, encoding.ids) for encoding in samples.encodings]
    logits = []
    for tokens, ids in texts:
        assert cutter.convert_tokens_to_ids(tokens) == ids
        with torch.no_grad():
            outputs = theirs(torch.tensor([ids]))
        logits.append(outputs.logits.numpy()[0] if task == "sequence_classification" else outputs.mc_logits.numpy().reshape(()))
    logits = np.array(logits).reshape(10, 2, -1)
    expected = logits.sum(axis=1) if task == "sequence_classification" else logits[..., 0]
    np.testing.assert_allclose(predict(made, samples)["logits"], expected, rtol=1e-4, atol=1e-5)  # float32
    assert cutter("a cat", "the bank")["input_ids"] == made.tokenizer.encoding("a cat", "the bank").ids
    assert [cutter.bos_token, cutter.sep_token, cutter.cls_token] == ["<start>", "<delimiter>", "<extract>"]

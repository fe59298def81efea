"""Decoders with a score head: outputs, gradients, losses, files, fine-tuning."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, difference_rounding, relative_error
from tests.support.tuning import KINDS, TEXTS
from tests.tuning.align.test_learner import SIZES
from tinyplm.core import flatten, tree_map
from tinyplm.losses.auxiliary import with_language_model
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.models.config import labels
from tinyplm.models.score_model import ScoreModel
from tinyplm.optim.adamw import AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.postprocessing import TemplateProcessing
from tinyplm.training.step import accumulate
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.finetune import finetune, next_tokens
from tinyplm.tuning.finetuning.predict import outputs_and_loss
from tinyplm.tuning.settings import TuningSettings


def scored(family="llama", names=("a", "b", "c"), dtype="float64", **changes):
    return tinyplm.create(family, task="sequence_classification", key=2, dtype=dtype,
                          **{**SIZES[family], **labels(names), **changes})  # fmt: skip


def batch(B=4, T=6, seed=0, side="right"):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, T + 1, B)[:, None]
    mask = np.arange(T) < lengths if side == "right" else np.arange(T) >= T - lengths
    return {"input_ids": draw.integers(0, 40, (B, T)), "attention_mask": mask.astype(np.int64)}


@pytest.mark.parametrize("family", SIZES)
def test_the_score_is_that_of_the_last_real_token(family):
    model = scored(family)
    inputs = batch()
    outputs, _ = model(**inputs)
    W = model.params["head"]["score"]
    for b, L in enumerate(inputs["attention_mask"].sum(axis=1)):
        alone, _ = model(inputs["input_ids"][b : b + 1, :L])
        assert relative_error(outputs["logits"][b], alone["logits"][0]) < MODEL
        assert relative_error(alone["logits"][0], alone["hidden"][0, -1] @ W) < MODEL
    shifted = {name: np.pad(a, ((0, 0), (2, 0))) for name, a in inputs.items()}  # left-padded too
    positions = np.maximum(np.cumsum(shifted["attention_mask"], axis=1) - 1, 0)
    assert relative_error(model(**shifted, position_ids=positions)[0]["logits"], outputs["logits"]) < MODEL


@pytest.mark.parametrize("family", SIZES)
def test_gradients_by_differences_and_none_from_padding(family):
    model, draw = scored(family), np.random.default_rng(1)
    inputs = batch()
    c = {"logits": draw.normal(size=(4, 3)), "hidden": draw.normal(size=(4, 6, 12)) * inputs["attention_mask"][:, :, None]}

    def value(params):
        outputs, _ = model._with(params=params)(**inputs, grad=False)
        return sum(float((outputs[name] * c[name]).sum()) for name in c)

    outputs, back = model(**inputs)
    noise = sum(difference_rounding(outputs[name] * c[name], 1e-6) for name in c)
    dparams = back(c)
    direction = tree_map(lambda a: draw.normal(size=a.shape), model.params)
    ends = [value(tree_map(lambda a, d, h=h: a + h * d, model.params, direction)) for h in (1e-6, -1e-6)]
    parts = [(flatten(dparams)[path] * d).sum() for path, d in flatten(direction).items()]
    assert abs(sum(parts) - (ends[0] - ends[1]) / 2e-6) < 1e-7 * sum(map(abs, parts)) + noise
    embeds = model.params["body"]["tokens"][inputs["input_ids"]]
    outputs, back = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
    _, dembeds = back({"logits": c["logits"]})
    assert not dembeds[inputs["attention_mask"] == 0].any() and dembeds.any()
    assert relative_error(back({"hidden": None, "logits": None})[0], tree_map(np.zeros_like, model.params)) == 0


@pytest.mark.parametrize("targets", [np.array([0, 2, 1, 2]), np.eye(4, 3)], ids=["classes", "sets"])
@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_parts_give_the_gradient_of_the_whole(targets, auxiliary):
    model, inputs = scored(tie_word_embeddings=True), batch()
    aims = {"logits": targets} | ({"language_model": next_tokens(**inputs)} if auxiliary else {})
    loss, back = model.loss(targets=aims, auxiliary=auxiliary, **inputs)
    optimizer = AdamW(model.params)
    found = accumulate(model, optimizer, inputs, aims, settings=TuningSettings(workers=2, auxiliary=auxiliary))
    assert float(found) == pytest.approx(float(loss), rel=MODEL)
    assert relative_error(optimizer.gradient.tree, back(1.0)) < MODEL


def test_the_auxiliary_loss_is_the_papers():
    """Against losses.auxiliary on full logits."""
    model, inputs = scored("gpt2"), batch()
    aims = {"logits": np.array([0, 2, 1, 2]), "language_model": next_tokens(**inputs)}
    loss, back = model.loss(targets=aims, auxiliary=0.5, **inputs)
    outputs, model_back = model(**inputs)
    table = model.params["body"]["tokens"]
    expected, loss_back = with_language_model(outputs["logits"], outputs["hidden"] @ table.T, labels=aims["logits"],
                                              targets=aims["language_model"])  # fmt: skip
    assert float(loss) == pytest.approx(float(expected), rel=MODEL)
    dclass, dlm = loss_back(1.0)
    dparams = flatten(model_back({"logits": dclass, "hidden": dlm @ table}))
    dparams["body.tokens"] = dparams["body.tokens"] + dlm.reshape(-1, 40).T @ outputs["hidden"].reshape(-1, 12)
    assert relative_error(list(flatten(back(1.0)).values()), list(dparams.values())) < MODEL
    with pytest.raises(ValueError, match="tie_word_embeddings = true, got false$"):
        scored().loss(targets=aims, auxiliary=0.5, **inputs)


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_smoothing_is_that_of_the_classes(auxiliary):
    model, inputs = scored(tie_word_embeddings=True), batch()
    aims = {"logits": np.array([0, 2, 1, 2])} | ({"language_model": next_tokens(**inputs)} if auxiliary else {})
    plain, smooth = (model.loss(targets=aims, smoothing=e, auxiliary=auxiliary, **inputs)[0] for e in (0.0, 0.1))
    logits = model(**inputs)[0]["logits"]
    expected = [cross_entropy(logits, targets=aims["logits"], smoothing=e)[0] for e in (0.0, 0.1)]
    assert abs((smooth - plain) - (expected[1] - expected[0])) < MODEL * (smooth + plain) and expected[1] != expected[0]


def test_only_the_auxiliary_loss_has_rows_over_the_vocabulary():
    aims = {"logits": np.array([0, 2]), "language_model": np.array([[1, -100, 3], [-100, -100, 5]])}
    assert scored().head_rows(aims) == 3 and scored().head_rows({"logits": aims["logits"]}) == 0


def test_next_tokens_by_hand():
    ids, mask = np.array([[5, 6, 7, 0], [0, 1, 2, 3]]), np.array([[1, 1, 1, 0], [0, 1, 1, 1]])
    assert next_tokens(ids, mask).tolist() == [[6, 7, -100, -100], [-100, 2, 3, -100]]
    assert next_tokens(ids[None], mask[None]).tolist() == [next_tokens(ids, mask).tolist()]  # several sequences a sample


@pytest.mark.parametrize("family", SIZES)
def test_files(family, tmp_path):
    model = scored(family)
    tinyplm.save(model, tmp_path / "scored")
    again = tinyplm.load(tmp_path / "scored")
    assert isinstance(again, ScoreModel) and again.task == "sequence_classification" and again.fresh == []
    assert relative_error(again.params, model.params) == 0 and again.config == model.config
    config = json.loads((tmp_path / "scored/config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification") and config["id2label"]["2"] == "c"
    plain = tinyplm.create(family, dtype="float64", **SIZES[family])
    tinyplm.save(plain, tmp_path / "plain")
    assert not {"id2label", "label2id", "problem_type"} & json.loads((tmp_path / "plain/config.json").read_text()).keys()
    fresh = tinyplm.load(tmp_path / "plain", task="sequence_classification", labels=["x", "y"], key=5)
    assert fresh.fresh == ["head.score"] and fresh.params["head"]["score"].shape == (12, 2)
    assert relative_error(fresh.params["body"], plain.params["body"]) == 0
    body = tinyplm.load(tmp_path / "scored", task="causal_lm")
    assert relative_error(body.params["body"], model.params["body"]) == 0
    with pytest.raises(ValueError, match="labels: expected a classifier.s task with them, got .causal_lm"):
        tinyplm.load(tmp_path / "plain", labels=["x", "y"])
    with pytest.raises(ValueError, match="expected a decoder"):
        tinyplm.generate(model, [1], max_new_tokens=1)
    with pytest.raises(ValueError, match="expected a decoder"):
        model.empty_cache(1)


def with_tokenizer(names, template=None):
    model = scored("gpt2", names, dtype="float32", vocab_size=300, n_positions=64)
    model.tokenizer = Tokenizer.train([*TEXTS, "abcdefghijklmnopqrstuvwxyz "], 290)
    if template:
        end = {"<|endoftext|>": model.tokenizer.eos_id}
        model.tokenizer = Tokenizer(**{**model.tokenizer.parts, "post_processor": TemplateProcessing.of(*template, end)})
    return model


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_fine_tuning_a_decoder(auxiliary, tmp_path):
    model = with_tokenizer(sorted(set(KINDS)))
    samples = classification(model, TEXTS, KINDS)
    _, before = outputs_and_loss(model, samples)
    settings = TuningSettings(epochs=15, batch_size=4, learning_rate=2e-2, auxiliary=auxiliary, dropout=False, metric="loss")
    result = finetune(model, samples, samples, settings, out=tmp_path, progress=False)
    assert result.scores["accuracy"] == 1 and result.scores["loss"] < before / 2
    again = tinyplm.load(tmp_path / "best")
    assert outputs_and_loss(again, classification(again, TEXTS, KINDS))[1] == pytest.approx(result.scores["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="adds 0 to a text and 0 to a pair"):
        classification(model, TEXTS, KINDS, pairs=TEXTS)


def test_pairs_with_a_delimiter():
    """Radford et al. 2018, fig. 1: text, delimiter, text, extract."""
    model = with_tokenizer(["no", "yes"], ("$A <|endoftext|>", "$A <|endoftext|> $B <|endoftext|>"))
    samples = classification(model, ["ab"], ["yes"], pairs=["c"])
    inputs, targets = samples.batch([0])
    end, encode = model.tokenizer.eos_id, model.tokenizer.encode
    assert inputs["input_ids"].tolist() == [[*encode("ab"), end, *encode("c"), end]] and targets["logits"].tolist() == [1]


def test_auxiliary_is_for_decoders_and_plain_decoders_are_not_classifiers():
    from tests.support.tuning import model as encoder

    made = encoder("sequence_classification")
    samples = classification(made, TEXTS, KINDS)
    with pytest.raises(ValueError, match="auxiliary: expected 0, since"):
        finetune(made, samples, samples, TuningSettings(auxiliary=0.5), progress=False)
    with pytest.raises(TypeError, match="a decoder with task sequence_classification"):
        finetune(tinyplm.create("gpt2", **SIZES["gpt2"]), samples, samples, progress=False)

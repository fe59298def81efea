"""Score heads on samples of several sequences: a similarity in both orders, a choice, and the dropout before the head."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from reference.losses.auxiliary import with_language_model
from tests.laws import MODEL, difference_rounding, relative_error
from tinyplm import random
from tinyplm.core import flatten, tree_map
from tinyplm.layers.dropout import dropout
from tinyplm.models.config import labels
from tinyplm.models.heads import HEAD_KEY
from tinyplm.models.score_model import score_head
from tinyplm.optim.adamw import AdamW
from tinyplm.training.step import accumulate
from tinyplm.tuning.finetuning.finetune import next_tokens
from tinyplm.tuning.settings import TuningSettings

SIZES = {"vocab_size": 23, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 16, "initializer_range": 0.3}
TASKS = ["sequence_classification", "multiple_choice"]
each_task = pytest.mark.parametrize("task", TASKS)


def gpt(task="sequence_classification", **changes):
    model = tinyplm.create("openai-gpt", task=task, key=4, dtype="float64", **{**SIZES, **labels(["a", "b", "c"]), **changes})
    head = tree_map(lambda a: np.random.default_rng(0).normal(size=a.shape), model.params["head"])  # a bias other than 0
    return model.with_params({**model.params, "head": head})


def batch(B=3, N=2, T=5, seed=0):
    draw = np.random.default_rng(seed)
    mask = np.arange(T) < draw.integers(2, T + 1, (B, N, 1))
    return {"input_ids": draw.integers(0, 23, (B, N, T)), "attention_mask": mask.astype(np.int64)}


def last_hidden(model, inputs):
    """(B, N, D): the hidden state of each sequence's last token, read alone and without padding."""
    ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(axis=-1)
    rows = [[model(ids[b, n : n + 1, : lengths[b, n]])[0]["hidden"][0, -1] for n in range(2)] for b in range(len(ids))]
    return np.array(rows)


def by_hand(model, inputs):
    """The logits in scalar loops: of a similarity, sum over d of (h_1d + h_2d) W_dc; of a choice, b + sum over d of h_nd W_d."""
    one = gpt()
    one.params = {**model.params, "head": one.params["head"]}
    h, head = last_hidden(one, inputs), model.params["head"]
    if "score" in head:
        W = head["score"]
        return [[sum((x[d] + y[d]) * W[d, c] for d in range(12)) for c in range(W.shape[1])] for x, y in h]
    W, b = head["choice"]["W"], head["choice"]["b"]
    return [[b[0] + sum(x[d] * W[d, 0] for d in range(12)) for x in row] for row in h]


@each_task
def test_logits_and_both_losses_are_the_formulas(task):
    model, inputs = gpt(task), batch()
    outputs, _ = model(**inputs)
    expected = np.array(by_hand(model, inputs))
    assert outputs["logits"].shape == expected.shape and relative_error(outputs["logits"], expected) < MODEL
    words = next_tokens(**inputs)
    aims = {"logits": np.array([1, 0, 1]), "language_model": words}
    loss, _ = model.loss(targets=aims, auxiliary=0.5, grad=False, **inputs)
    lm_logits = outputs["hidden"].reshape(3, 2, 5, 12) @ model.params["body"]["tokens"].T
    by_loops = with_language_model(expected, lm_logits, labels=aims["logits"], targets=words, weight=0.5)
    assert float(loss) == pytest.approx(float(by_loops), rel=MODEL)
    plain, _ = model.loss(targets={"logits": aims["logits"]}, grad=False, **inputs)
    assert float(plain) < float(loss)


def test_a_similarity_does_not_depend_on_the_order_and_a_choice_follows_it():
    inputs = batch()
    turned = {name: a[:, ::-1] for name, a in inputs.items()}
    similarity, choice = gpt(), gpt("multiple_choice")
    assert relative_error(similarity(**turned)[0]["logits"], similarity(**inputs)[0]["logits"]) < MODEL
    assert relative_error(choice(**turned)[0]["logits"], choice(**inputs)[0]["logits"][:, ::-1]) < MODEL
    one = similarity(inputs["input_ids"][:, 0], attention_mask=inputs["attention_mask"][:, 0])[0]["logits"]
    alone = similarity(**{name: a[:, :1] for name, a in inputs.items()})[0]["logits"]
    assert relative_error(alone, one) < MODEL


@each_task
@pytest.mark.parametrize("key", [None, 7])
def test_gradients_by_differences(task, key):
    """Of a random sum of the logits and of the loss with its language model, in a random direction."""
    model, inputs, draw = gpt(task), batch(), np.random.default_rng(1)
    keys = None if key is None else random.sample_keys(key, np.arange(3))
    aims = {"logits": np.array([1, 0, 1]), "language_model": next_tokens(**inputs)}
    outputs, back = model(**inputs, key=key)
    c = draw.normal(size=outputs["logits"].shape)
    loss, loss_back = model.loss(targets=aims, auxiliary=0.5, key=keys, **inputs)
    direction = tree_map(lambda a: draw.normal(size=a.shape), model.params)

    def values(params):
        made = model.with_params(params)
        logits = made(**inputs, key=key, grad=False)[0]["logits"]
        return (logits * c).sum(), made.loss(targets=aims, auxiliary=0.5, key=keys, grad=False, **inputs)[0]

    ends = [values(tree_map(lambda a, d, h=h: a + h * d, model.params, direction)) for h in (1e-6, -1e-6)]
    found = [back({"logits": c}), loss_back(1.0)]
    terms = [outputs["logits"] * c, np.full(inputs["input_ids"].size, loss)]
    for n, dparams in enumerate(found):
        parts = [(flatten(dparams)[path] * d).sum() for path, d in flatten(direction).items()]
        slack = 1e-7 * sum(map(abs, parts)) + difference_rounding(terms[n], 1e-6)
        assert abs(sum(parts) - (ends[0][n] - ends[1][n]) / 2e-6) < slack


@each_task
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_the_heads_backward(task, B, N, T, seed):
    """Linear in dlogits, nothing at padding, and the adjoint of the head in the hidden states."""
    draw = np.random.default_rng(seed)
    W = {"score": draw.normal(size=(6, 3))} if task == TASKS[0] else {"choice": {"W": draw.normal(size=(6, 1)), "b": np.ones(1)}}
    mask = np.arange(T) < draw.integers(1, T + 1, (B * N, 1))
    hidden, v = draw.normal(size=(2, B * N, T, 6))
    rows = B if task == TASKS[0] else B * N
    options = {"attention_mask": mask, "several": N, "rate": 0.3, "key": random.sample_keys(seed, np.arange(rows))}
    outputs, back = score_head({"head": W}, hidden, **options)
    c = draw.normal(size=outputs["logits"].shape)
    dparams, dhidden = back({"logits": c})
    along = score_head({"head": W}, hidden + v, **options)[0]["logits"] - outputs["logits"]  # affine in hidden
    size = np.abs(dhidden * v).sum() + np.abs(c * outputs["logits"]).sum() + np.abs(c * along).sum()
    assert abs((dhidden * v).sum() - (c * along).sum()) < MODEL * size
    others = mask.copy()
    others[np.arange(B * N), mask.sum(axis=1) - 1] = False
    assert not dhidden[~mask].any() and not dhidden[others].any()
    twice = back({"logits": 2 * c})  # exact: a power of two
    assert relative_error(twice[0], tree_map(lambda a: 2 * a, dparams)) == 0 and (twice[1] == 2 * dhidden).all()


@each_task
@pytest.mark.parametrize("workers, micro", [(1, 3), (2, 3), (1, 2)])
def test_parts_give_the_gradient_of_the_whole(task, workers, micro):
    model, inputs = gpt(task), batch()
    aims = {"logits": np.array([1, 0, 1]), "language_model": next_tokens(**inputs)}
    loss, back = model.loss(targets=aims, auxiliary=0.5, key=random.sample_keys(7, np.arange(3)), **inputs)
    optimizer = AdamW(model.params)
    settings = TuningSettings(workers=workers, auxiliary=0.5, batch_size=micro)
    found = accumulate(model, optimizer, inputs, aims, settings=settings, key=7)
    assert float(found) == pytest.approx(float(loss), rel=MODEL)
    assert relative_error(optimizer.gradient.tree, back(1.0)) < MODEL


def test_the_dropout_before_the_head_is_the_papers():
    """Rate 0.1 by default: of the sum in a similarity, of each choice's own in a multiple choice; only in training."""
    assert gpt().config.summary_first_dropout == 0.1
    inputs, keys = batch(), random.sample_keys(5, np.arange(3))
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "summary_first_dropout": 0.4}
    model = gpt(**quiet)
    h = last_hidden(model, inputs)
    dropped, _ = dropout(h.sum(axis=1), rate=0.4, key=random.fold(keys, HEAD_KEY))
    found = model(**inputs, key=5)[0]["logits"]
    assert relative_error(found, dropped @ model.params["head"]["score"]) < MODEL and (dropped == 0).any()
    choice = gpt("multiple_choice", **quiet)
    choice.params = {**model.params, "head": choice.params["head"]}
    each = random.fold(random.fold(keys[:, None], np.arange(2)).reshape(-1), HEAD_KEY)
    dropped, _ = dropout(h.reshape(6, 12), rate=0.4, key=each)
    p = choice.params["head"]["choice"]
    assert relative_error(choice(**inputs, key=5)[0]["logits"], (dropped @ p["W"] + p["b"]).reshape(3, 2)) < MODEL
    assert relative_error(model(**inputs)[0]["logits"], h.sum(axis=1) @ model.params["head"]["score"]) < MODEL
    other = tinyplm.create("gpt2", task=TASKS[0], **{k: v for k, v in SIZES.items() if k != "initializer_range"})
    assert other.config.score_rate == 0  # as transformers' classifiers


@each_task
def test_files(task, tmp_path):
    model = gpt(task, summary_first_dropout=0.25)
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.task == task and again.fresh == [] and again.config == model.config
    assert relative_error(again.params, model.params) == 0
    other = tinyplm.load(tmp_path, task=TASKS[1 - TASKS.index(task)])
    assert all(path.startswith("head.") for path in other.fresh) and other.fresh
    with pytest.raises(ValueError, match="task: expected one of causal_lm, sequence_classification for gpt2"):
        tinyplm.create("gpt2", task="multiple_choice")


@pytest.mark.parametrize(("task", "inputs", "message"), [
    (TASKS[1], {"input_ids": [[1, 2]]}, "input_ids: expected shape (B, choices, T) with all of them >= 1, got (1, 2)"),
    (TASKS[0], {"input_ids": [[[[1]]]]}, "input_ids: expected shape (B, T) with B, T >= 1, got (1, 1, 1, 1)"),
    (TASKS[0], {"input_ids": [[[]]]}, "input_ids: expected shape (B, sequences, T) with all of them >= 1, got (1, 1, 0)"),
    (TASKS[0], {"input_ids": [[[1, 23]]]}, "input_ids: expected integers from 0 to 22, got 23"),
    (TASKS[0], {"input_ids": [[[1, 2]]], "attention_mask": [[1, 1]]}, "attention_mask: expected shape (1, 1, 2), got (1, 2)"),
    (TASKS[0], {"input_ids": [[[1] * 17]]}, "input_ids: expected at most 16 tokens, the context, got 17"),
    (TASKS[1], {"inputs_embeds": np.ones((1, 2, 12))}, "inputs_embeds: expected None and input_ids for a multiple choice, got"),
])  # fmt: skip
def test_bad_input_is_one_line(task, inputs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        gpt(task)(**inputs)
    assert "\n" not in str(caught.value)

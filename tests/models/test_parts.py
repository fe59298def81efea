"""The gradient emitted in parts against the full gradient, for every kind of model and every option."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest

import tinyplm
from tests.families.test_xlnet import tiny as tiny_xlnet
from tests.laws import MODEL, apart, leaves
from tests.support import encoder_families, families, seq2seq_families
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import Product, Rows, StackOptions, flatten, tree_map
from tinyplm.families import SEQ2SEQ
from tinyplm.models import parts
from tinyplm.models.config import labels
from tinyplm.models.heads import with_hidden
from tinyplm.models.protocol import LossInputs, LossOptions, OutputOptions
from tinyplm.optim.flat import FlatTree
from tinyplm.tuning.adapters.soft_prompt import SoftPrompted
from tinyplm.tuning.align.distill import DistillSettings, Student

rng = np.random.default_rng(0)
IDS = rng.integers(2, 10, (3, 4))
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
TARGETS = np.where(MASK == 1, 10 - IDS, -100)
SPARSE = np.where(np.arange(4) == 1, TARGETS, -100)
KEYS = random.sample_keys(3, np.arange(3))


def decoder(family, task=None, **changes):
    names = labels(["a", "b", "c"]) if task == "sequence_classification" else {}
    config = dataclasses.replace(families.FAMILIES[family].config, **names, **changes)
    return tinyplm.create(family, config, task=task, dtype="float64", key=1)


def encoder(family, task, **changes):
    return encoder_families.tiny(family, task, **changes)


CLASSES = {"logits": np.array([0, 2, 1])}
ENDS = {"start_logits": np.array([0, 2, 1]), "end_logits": np.array([1, 2, -100])}
PAIRS = {"logits": SPARSE, "pair_logits": np.array([0, 1, 1])}

# name: (model, targets, loss options)
LOSSES = {
    "tied": (decoder("gpt2", attn_pdrop=0.2), {"logits": TARGETS}, {"smoothing": 0.1}),
    "untied": (decoder("llama", tie_word_embeddings=False), {"logits": TARGETS}, {}),
    "in chunks": (decoder("llama"), {"logits": TARGETS}, {"chunk": 5}),
    "later tokens": (
        decoder("deepseek_v3", "multi_token_lm", num_nextn_predict_layers=2, attention_dropout=0.2),
        {"logits": TARGETS},
        {"multi_token": 0.3, "balance": 0.1},
    ),
    "score": (decoder("gpt2", "sequence_classification", resid_pdrop=0.2), CLASSES, {}),
    "score, auxiliary": (
        decoder("gpt2", "sequence_classification"),
        {**CLASSES, "language_model": TARGETS},
        {"auxiliary": 0.5},
    ),
    "masked": (encoder("bert", "masked_lm"), {"logits": SPARSE}, {"smoothing": 0.1}),
    "positions by ids": (encoder("roberta", "masked_lm"), {"logits": SPARSE}, {}),
    "shared layers": (encoder("albert", "masked_lm"), {"logits": SPARSE}, {}),
    "two heads": (encoder("bert", "pretraining", hidden_dropout_prob=0.2), PAIRS, {}),
    "classes": (encoder("roberta", "sequence_classification", classifier_dropout=0.3), CLASSES, {}),
    "numbers": (
        encoder("deberta-v2", "sequence_classification"),
        {"logits": rng.random((3, 3))},
        {},
    ),
    "tokens": (encoder("distilbert", "token_classification"), {"logits": SPARSE % 3}, {}),
    "answers": (encoder("deberta", "question_answering"), ENDS, {"smoothing": 0.1}),
    "choices": (encoder("bert", "multiple_choice", classifier_dropout=0.3), {"logits": np.array([0, 1, 1])}, {}),
    "two streams": (tiny_xlnet("permutation_lm", dropout=0.2), {"logits": TARGETS[:, :2]}, {}),
    "soft prompt": (SoftPrompted(decoder("gpt2"), rng.normal(size=(2, 6))), {"logits": TARGETS}, {}),
    "two sides": (seq2seq_families.tiny("t5", dropout_rate=0.2), {"logits": TARGETS}, {"smoothing": 0.1}),
    "two sides, untied": (seq2seq_families.tiny("mt5"), {"logits": SPARSE}, {"chunk": 5}),
    "two sides, post-norm": (seq2seq_families.tiny("bart", dropout=0.2), {"logits": TARGETS}, {}),
}  # fmt: skip
OUTPUTS = {
    "log-probabilities": (decoder("llama"), {"logits": TARGETS}, {}),
    "and entropy": (decoder("gpt2", embd_pdrop=0.2), {"logits": TARGETS}, {"entropy": True, "temperature": 0.8}),
    "untied": (decoder("llama", tie_word_embeddings=False), {"logits": SPARSE}, {"chunk": 5}),
    "score": (decoder("gpt2", "sequence_classification"), None, {}),
    "encoder": (encoder("bert", "pretraining"), None, {}),
    "two sides": (seq2seq_families.tiny("bart", attention_dropout=0.2), {"logits": TARGETS}, {"entropy": True}),
    "two sides, states": (seq2seq_families.tiny("t5"), {"logits": SPARSE}, {"chunk": 5, "temperature": 0.8}),
    "soft prompt": (SoftPrompted(decoder("llama"), rng.normal(size=(2, 6))), {"logits": TARGETS}, {"entropy": True}),
    "distillation": (
        Student(decoder("gpt2"), decoder("llama"), DistillSettings()), {"logits": SPARSE}, {"total": 7.0}
    ),
    "distillation, reverse": (
        Student(decoder("llama"), decoder("llama", hidden_size=8), DistillSettings(divergence="reverse")),
        {"logits": TARGETS},
        {"total": 7.0},
    ),
    "the text alone": (
        Student(decoder("gpt2"), decoder("llama"), DistillSettings(hard=1.0)), {"logits": SPARSE}, {"total": 7.0}
    ),
}  # fmt: skip
STACKING = {
    "plain": {},
    "checkpointing": {"checkpointing": 2},
    "each layer": {"checkpointing": True},
    "frozen": {"frozen": 1},
    "once": {"once": True},
}


def two_sides(model):
    return getattr(model, "task", None) == SEQ2SEQ


def inputs_of(model):
    inputs = {"input_ids": IDS, "attention_mask": MASK, "key": KEYS}
    if model.task == "multiple_choice":
        arrays = {n: np.stack([inputs[n], inputs[n][::-1]], axis=1) for n in ("input_ids", "attention_mask")}
        return inputs | arrays
    if two_sides(model):
        return inputs | {"decoder_input_ids": IDS[:, ::-1] + 1, "decoder_attention_mask": MASK}
    if model.task == "permutation_lm":
        mapping = np.eye(4)[None, :2].repeat(3, 0)
        return inputs | {"target_mapping": mapping, "perm_mask": np.eye(4)[None].repeat(3, 0)}
    return inputs


def whole_of(model, head, inputs, stacking):
    """The gradient as one tree."""
    value, back = model._whole(head(), inputs, stacking)
    return value, lambda d: back(d)[0]


def check(model, head, in_parts, stacking, products):
    """value and gradient of `in_parts`, a function that takes emit, against those of the full tree."""
    options = StackOptions(**stacking)
    inputs = model.checked(inputs_of(model))
    value, back = whole_of(model, lambda: head(inputs), inputs, options)
    sums, emitted = FlatTree(to_host(model.params)), []

    def emit(path, tree):
        emitted.extend(flatten(tree, path))
        sums.add(tree, path)

    same, parts_back = in_parts(emit, options)
    close = {"rel": 1e-14} if products else {"rel": 0, "abs": 0}  # all tokens then form one chunk
    for name, a in flatten(value, "value").items():
        assert flatten(same, "value")[name] == pytest.approx(a, **close), name
    if isinstance(value, dict):
        d = {n: rng.normal(size=a.shape) for n, a in value.items()}
    else:
        d = 1.5
    remaining = parts_back(d)
    assert len(emitted) == len(set(emitted)), "an array in two parts has no fixed order of summation"
    kinds = [type(leaf) for tree in remaining for leaf in flatten(tree).values()]
    rows = [] if isinstance(model, SoftPrompted) else [Rows] * (1 + two_sides(model))
    assert kinds == [Product] * products + rows
    for tree in remaining:
        sums.add(tree, workers=2)
    expected = back(d)
    scale = sum(np.abs(a).sum() for a in flatten(expected).values())
    nothing = isinstance(model, SoftPrompted) and options.frozen  # the rows are below all layers
    assert scale == 0 if nothing else (scale > 0 and apart(sums.tree, expected) < MODEL)
    if not products:  # bit-equal where an array has one part; factors hold all tokens in one chunk
        found, once = flatten(sums.tree), set(emitted) - {"body.tokens"}
        assert once and all(np.array_equal(found[path], flatten(expected)[path]) for path in once)


@pytest.mark.parametrize("stacking", STACKING)
@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss(name, factors, stacking):
    model, targets, options = LOSSES[name]
    options = LossOptions(factors=factors, **options)

    def in_parts(emit, stacking):
        return model.loss_in_parts(emit, inputs_of(model), targets=targets, options=options, stacking=stacking)

    def head(inputs):
        return model._loss_head(inputs, LossInputs(targets, None, dataclasses.replace(options, factors=False)))

    language_model = name in ("tied", "untied", "in chunks", "masked", "positions by ids", "shared layers", "two heads",
                              "two streams", "two sides", "two sides, untied", "two sides, post-norm")  # fmt: skip
    check(model, head, in_parts, STACKING[stacking], int(factors and language_model))


@pytest.mark.parametrize("stacking", STACKING)
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name, stacking):
    model, targets, options = OUTPUTS[name]
    options = OutputOptions(**options)

    def in_parts(emit, stacking):
        return model.outputs_in_parts(emit, inputs_of(model), targets=targets, options=options, stacking=stacking)

    check(model, lambda inputs: model._training_head(inputs, targets, options), in_parts, STACKING[stacking], 0)


@pytest.mark.parametrize("name", ["tied", "untied", "later tokens", "masked", "two heads", "shared layers", "two sides"])
def test_the_order_of_parts(name):
    model, targets, _ = LOSSES[name]
    paths = []
    _, back = model.loss_in_parts(lambda path, d: paths.append(path), inputs_of(model), targets=targets)
    back(1.0)
    body = model.params["body"]
    layers = [f"body.{side}layers.{i}" for side in ("encoder.", "decoder.") for i in range(2)]
    if not two_sides(model):
        layers = [f"body.layers.{i}" for i in range(len(body["layers"]))]
    assert paths == ["", *reversed(layers), "body"]


def test_a_part_of_the_outputs_has_a_gradient():
    """A missing or None part counts as zero, even if the head or the entire model gets no gradient."""
    model, targets, _ = OUTPUTS["log-probabilities"]
    for names in ([], ["hidden"], ["log_probs"]):
        d = {n: rng.normal(size=(3, 4, 6)[: 3 if n == "hidden" else 2]) for n in names} | {"entropy": None}
        sums = FlatTree(model.params)
        _, back = model.outputs_in_parts(lambda path, tree, sums=sums: sums.add(tree, path), inputs_of(model),
                                          targets=targets)  # fmt: skip
        for tree in back(d):
            sums.add(tree)
        _, whole_back = model.token_outputs(IDS, targets=TARGETS, attention_mask=MASK, key=KEYS)
        del d["entropy"]
        found, expected = leaves(sums.tree), leaves(whole_back(d))
        assert all(np.abs(a - b).max() < MODEL * (1 + np.abs(b).max()) for a, b in zip(found, expected, strict=True))
        assert any(a.any() for a in found) == bool(names)


def test_heads_without_outputs():
    outputs, back = with_hidden()(None, IDS * 1.0)
    assert list(outputs) == ["hidden"] and back({}) == (None, None)


@pytest.mark.parametrize("name", ["tied", "later tokens", "masked", "score, auxiliary", "soft prompt", "two sides, post-norm"])
def test_every_device(name, device):
    model, targets, options = LOSSES[name]
    moved = model.to(device)
    if isinstance(model, SoftPrompted):
        moved.base = model.base.to(device)
    found = []
    for m in (model, moved):
        sums = {}

        def emit(path, tree, sums=sums):
            sums |= flatten(to_host(tree), path)

        value, back = m.loss_in_parts(emit, to_device(inputs_of(m), m.device), targets=to_device(targets, m.device),
                                      options=LossOptions(**options))  # fmt: skip
        back(1.0)
        found.append({"loss": to_host(value), **sums})
    assert apart(*found) < MODEL


def test_the_two_wrappers_on_plain_arrays():
    """A body x -> x A and a head that reads the table, with hand-written gradients."""
    params = {"body": {"tokens": rng.normal(size=(5, 3)), "layers": [{"A": rng.normal(size=(3, 3))}], "b": np.ones(3)}}
    ids = np.array([[0, 2, 2]])

    def body(p, inputs_embeds=None, *, stacking, input_ids=None):
        x = p["tokens"][input_ids] if inputs_embeds is None else inputs_embeds
        A = p["layers"][0]["A"]

        def backward(dy):
            layer, rest = {"A": np.einsum("bti,btj->ij", x, dy)}, {"b": dy.sum(axis=(0, 1))}
            if stacking.on_gradient:
                stacking.on_gradient(0, layer)
            dp = {**rest, "layers": [None if stacking.on_gradient else layer]}
            dx = dy @ A.T
            if inputs_embeds is not None:
                return dp, dx
            table = np.zeros_like(p["tokens"])
            np.add.at(table, input_ids, dx)
            return {**dp, "tokens": table}, None

        return x @ A + p["b"], backward

    def head(p, hidden):
        z = np.einsum("btd,vd->btv", hidden, p["body"]["tokens"])

        def backward(dloss):
            dz = dloss * 2 * z
            return {"body": {"tokens": np.einsum("btv,btd->vd", dz, hidden)}}, dz @ p["body"]["tokens"]

        return (z**2).sum(), backward

    value, back = parts.whole(body, head, params, {"input_ids": ids}, StackOptions())
    sums = FlatTree(params)
    same, parts_back = parts.in_parts(body, head, params, lambda p, d: sums.add(d, p), (ids,), {}, StackOptions())
    for tree in parts_back(2.0):
        sums.add(tree)
    gradient = back(2.0)[0]
    assert value == same and apart(sums.tree, gradient) < MODEL
    assert parts.whole(body, head, params, {"input_ids": ids}, StackOptions(grad=False)) == (value, None)
    d = tree_map(lambda a: rng.normal(size=a.shape), params)
    ends = [parts.whole(body, head, tree_map(lambda a, b, h=h: a + h * b, params, d), {"input_ids": ids},
                        StackOptions(grad=False))[0] for h in (1e-6, -1e-6)]  # fmt: skip
    products = [a * b for a, b in zip(flatten(gradient).values(), [flatten(d)[p] for p in flatten(gradient)])]
    assert abs(2 * (ends[0] - ends[1]) / 2e-6 - sum(x.sum() for x in products)) < 1e-6 * sum(np.abs(x).sum() for x in products)


def test_what_was_emitted_and_the_heads_closure_are_gone_before_the_body_goes_back():
    """Both are as large as the head."""
    alive = []

    def body(p, x, *, stacking):
        assert stacking.once  # the stack does the same with its layers

        def backward(dhidden):
            gc.collect()
            alive.append([ref() is not None for ref in large])
            return {"layers": None}, dhidden

        return x, backward

    def head(p, hidden):
        kept, dW = np.ones((3, 5)), np.ones((3, 5))
        large.extend([weakref.ref(kept), weakref.ref(dW)])
        given = [dW]
        del dW
        return hidden.sum(), lambda d: ({"head": {"W": given.pop()}}, np.ones_like(hidden) * kept[0, 0])

    large: list = []
    params = {"body": {"tokens": np.ones((4, 2)), "layers": []}}
    _, back = parts.in_parts(body, head, params, lambda path, tree: None, np.array([[0, 1]]), {}, StackOptions())
    assert all(ref() is not None for ref in large)
    back(1.0)
    assert alive == [[False, False]]

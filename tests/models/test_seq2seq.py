"""Behaviour common to all encoder-decoders: the formula, every gradient, padding, dropout, recomputation, dtypes.

Training in parts is in test_seq2seq_training.py, decoding in test_seq2seq_decoding.py, what a family has alone in tests/families.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.laws import MODEL, apart, equal, leaves, relative_error
from tests.models.test_causal_lm import assert_gradients
from tests.support.encoder_families import keys_of_masks, random_like
from tests.support.seq2seq_families import FAMILIES, MASKS, SOURCE, TARGET, VARIANTS, batch, by_formula, labels, tiny
from tinyplm import families as models
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten, tree_map
from tinyplm.families import SEQ2SEQ

each_family = pytest.mark.parametrize("family", FAMILIES)
# T5's own body, and the walk after and before its norms
each_kind = pytest.mark.parametrize("family", ["t5", "bart", "mbart"])
OUTPUTS = ["logits", "encoder_hidden", "hidden"]


def test_every_family_has_a_row():
    assert FAMILIES.keys() == {name for name in models.FAMILIES if models.is_seq2seq(models.family(name))}
    for name, family in FAMILIES.items():
        assert family.module is models.family(name) and family.config.MODEL_TYPE == name and tiny(name).task == SEQ2SEQ
        rates = {rate for rate in vars(family.config) if "dropout" in rate and "classifier" not in rate}
        assert rates == family.dropout.keys() and not any(getattr(family.config, rate) for rate in rates)


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_logits_are_those_of_the_formula(family, variant):
    model = tiny(family, **FAMILIES[family].variants.get(variant, {}))
    inputs = batch()
    outputs, _ = model(**inputs, grad=False)
    assert list(outputs) == OUTPUTS
    real = TARGET == 1
    assert relative_error(outputs["logits"][real], by_formula(family, model, inputs)[real]) < MODEL


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_gradient_of_the_loss_by_every_parameter_through_dropout(family, variant):
    model = tiny(family, **FAMILIES[family].dropout, **FAMILIES[family].variants.get(variant, {}))
    assert_gradients(model, input_ids=batch()["input_ids"], targets={"logits": labels()}, **MASKS,
                     key=random.sample_keys(5, np.arange(3)))  # fmt: skip


@each_family
def test_gradient_of_all_outputs_by_parameters_and_both_embeddings(device, family):
    """Along one random direction of all of them: the gradient is the device's, the differences are taken on the host."""
    model = tiny(family, device=device)
    rng = np.random.default_rng(2)
    embeds = {"inputs_embeds": rng.normal(size=(3, 5, 6)), "decoder_inputs_embeds": rng.normal(size=(3, 4, 6))}
    outputs, backward = model(**embeds, **MASKS)
    c = random_like(outputs)
    gradient = dict(zip(["params", *embeds], to_host(list(backward(to_device(c, device))))))
    on_host = model.to("cpu")
    point = {"params": on_host.params, **embeds}
    assert list(flatten(gradient)) == list(flatten(point))
    d = random_like(point, seed=3)

    def value(h):
        moved = tree_map(lambda a, b: a + h * b, point, d)
        found, _ = on_host.with_params(moved.pop("params"))(**moved, **MASKS, grad=False)
        return sum((found[name] * c[name]).sum() for name in c)

    products = [(a * flatten(d)[path]).sum() for path, a in flatten(gradient).items()]
    difference = (value(1e-5) - value(-1e-5)) / 2e-5
    assert abs(difference - sum(products)) < 1e-7 * np.abs(products).sum()


@each_family
def test_the_backward_is_linear_and_outputs_have_gradients_each_and_together(family):
    model = tiny(family)
    outputs, backward = model(**batch())
    c, c2 = random_like(outputs), random_like(outputs, seed=2)
    parts = [backward({name: c[name]}) for name in OUTPUTS]
    together = backward(c)
    assert all(any(a.any() for a in leaves(part)) for part in parts)
    assert apart(together, tree_map(lambda *a: sum(a), *parts)) < MODEL
    assert equal(together, backward(c)) and equal(backward({**c, "hidden": None}), backward({n: c[n] for n in OUTPUTS[:2]}))
    mixed = backward(tree_map(lambda a, b: 2 * a - 3 * b, c, c2))
    assert apart(mixed, tree_map(lambda a, b: 2 * a - 3 * b, together, backward(c2))) < MODEL
    assert not any(a.any() for a in leaves(backward({})))
    decoder = parts[1]["body"]["decoder"]
    assert not any(a.any() for a in leaves(decoder)), "the encoder's states do not depend on the decoder"
    with pytest.raises(ValueError, match=re.escape("backward: expected some of encoder_hidden, hidden, logits, got ['x']")):
        backward({"x": c["hidden"]})


@each_family
def test_embeddings_as_inputs_are_the_looked_up_rows(family):
    """On both sides or on one: what was looked up alone has its gradient in the table."""
    model = tiny(family)
    inputs = batch()
    expected, ids_backward = model(**inputs)
    tokens, c = model.params["body"]["tokens"], random_like(expected)
    del c["logits"]  # a tied table has its gradient as well
    wanted = ids_backward(c)["body"]["tokens"]
    scattered = np.zeros_like(tokens)
    for replaced in (("",), ("decoder_",), ("", "decoder_")):
        given = dict(inputs)
        for prefix in replaced:
            given[f"{prefix}inputs_embeds"] = tokens[given.pop(f"{prefix}input_ids")]
        outputs, backward = model(**given)
        assert equal(outputs, expected)
        dparams, *dembeds = backward(c)
        assert [d is None for d in dembeds] == [prefix not in replaced for prefix in ("", "decoder_")]
        scattered = dparams["body"]["tokens"].copy()
        for prefix, d in zip(("", "decoder_"), dembeds):
            if d is not None:
                np.add.at(scattered, inputs[f"{prefix}input_ids"], d)
        assert relative_error(scattered, wanted) < MODEL
    assert not dparams["body"]["tokens"].any()
    zeros, *dzeros = backward({})
    assert not any(a.any() for a in leaves([zeros, *dzeros])) and [d.shape for d in dzeros] == [(3, 5, 6), (3, 4, 6)]


@each_kind
@pytest.mark.parametrize("frozen", [1, 2, 3, 4])
def test_frozen_layers_are_the_encoders_first(family, frozen):
    """Those above have the same gradient; below them nothing has one, and of frozen decoder layers the encoder's states
    have none either."""
    model = tiny(family)
    outputs, backward = model(**batch())
    c = random_like(outputs)
    del c["logits"], c["encoder_hidden"]
    full = backward(c)["body"]
    body = model(**batch(), frozen=frozen)[1](c)["body"]
    layers = [*body["encoder"]["layers"], *body["decoder"]["layers"]]
    for i, (found, expected) in enumerate(zip(layers, [*full["encoder"]["layers"], *full["decoder"]["layers"]])):
        assert not any(a.any() for a in leaves(found)) if i < frozen else equal(found, expected) or apart(found, expected) < MODEL
    for name in {"positions", "embed_norm"} & body["encoder"].keys():
        assert not any(a.any() for a in leaves(body["encoder"][name]))
        assert any(a.any() for a in leaves(body["decoder"][name])) == (frozen <= 2)
    if "norm" in body["encoder"]:  # after its layers, so frozen layers of the encoder leave it be
        assert equal(body["encoder"]["norm"], full["encoder"]["norm"]) == (frozen <= 2)
        assert any(a.any() for a in leaves(body["encoder"]["norm"])) == (frozen < 4)
    assert body["tokens"].any() == (frozen <= 2), "the decoder's look-up"


@each_family
def test_layer_gradients_go_to_the_callback_and_are_not_built_again(family):
    model = tiny(family)
    outputs, backward = model(**batch())
    c, handed = random_like(outputs), {}
    gradient = model(**batch(), on_gradient=handed.__setitem__)[1](c)
    assert list(handed) == [3, 2, 1, 0]
    for side, numbers in (("encoder", (0, 1)), ("decoder", (2, 3))):
        assert gradient["body"][side]["layers"] == [None, None]
        gradient["body"][side]["layers"] = [handed[n] for n in numbers]
    expected = flatten(backward(c))
    found = flatten(gradient)
    assert found.keys() == expected.keys() and all(np.array_equal(a, found[path]) for path, a in expected.items())


# ----------------------------------------------------------------------------------------------------- labels, padding


@each_family
def test_labels_are_what_the_decoder_reads_shifted(family):
    model = tiny(family)
    inputs, wanted = batch(), labels()
    inputs["decoder_input_ids"] = model.config.decoder_ids(wanted)
    given = {name: a for name, a in inputs.items() if name != "decoder_input_ids"}
    outputs, expected = model(**given, labels=wanted, grad=False)[0], model(**inputs, grad=False)[0]
    assert equal(outputs, expected)
    loss, back = model.loss(**given, targets={"logits": wanted})
    same, same_back = model.loss(**inputs, targets={"logits": wanted})
    assert loss == same and equal(back(1.5), same_back(1.5))
    ids = inputs["decoder_input_ids"]
    assert ids.min() >= 0
    if family != "mbart":
        start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
        assert (ids[:, 0] == start).all()
        assert np.array_equal(ids[:, 1:], np.where(wanted[:, :-1] == -100, pad, wanted[:, :-1]))


@each_family
def test_padding_and_the_future_have_exactly_no_influence(device, family):
    model = tiny(family, device=device)
    inputs = batch()
    source, target = SOURCE == 1, TARGET == 1

    def outputs(**changes):
        return to_host(model(**{**inputs, **changes}, grad=False)[0])

    expected = outputs()
    ids, decoder_ids = inputs["input_ids"], inputs["decoder_input_ids"]
    other = outputs(input_ids=np.where(source, ids, 13 - ids), decoder_input_ids=np.where(target, decoder_ids, 13 - decoder_ids))
    later = outputs(decoder_input_ids=np.where(np.arange(4) < 2, decoder_ids, 13 - decoder_ids))
    for name, real in (("logits", target), ("hidden", target), ("encoder_hidden", source)):
        assert np.array_equal(other[name][real], expected[name][real]), name
        if name != "encoder_hidden":
            assert np.array_equal(later[name][:, :2], expected[name][:, :2])
            assert not np.array_equal(later[name][:, 2:], expected[name][:, 2:])
    assert equal(later["encoder_hidden"], expected["encoder_hidden"])


@each_family
def test_padding_and_the_future_get_exactly_no_gradient(device, family):
    model = tiny(family, device=device)
    rng = np.random.default_rng(0)
    embeds = {"inputs_embeds": rng.normal(size=(3, 5, 6)), "decoder_inputs_embeds": rng.normal(size=(3, 4, 6))}
    outputs, backward = model(**embeds, **MASKS)
    wanted = (TARGET == 1) & (np.arange(4) < 3)  # the last position is in the future of all of them
    c = random_like({name: to_host(outputs[name]) for name in ("logits", "hidden")})
    c = {name: a * wanted[..., None] for name, a in c.items()}
    _, dsource, dtarget = to_host(list(backward(to_device(c, device))))
    assert not dsource[SOURCE == 0].any() and dsource[SOURCE == 1].all()
    assert not dtarget[~wanted].any() and dtarget[wanted].all()


@each_family
def test_a_padded_sample_is_as_if_alone(family):
    """Up to rounding: matrices of another height may use another order of summation."""
    model = tiny(family)
    inputs = batch()
    outputs, _ = model(**inputs, grad=False)
    alone, _ = model(inputs["input_ids"][1:2, :3], decoder_input_ids=inputs["decoder_input_ids"][1:2, :2], grad=False)
    for name, a in alone.items():
        assert relative_error(outputs[name][1:2, : a.shape[1]], a) < MODEL


# ----------------------------------------------------------------------------------- dropout, recomputation, dtype, device


@each_family
def test_dropout_depends_on_the_key_alone(device, family):
    model = tiny(family, device=device, **FAMILIES[family].dropout)
    inputs = batch()

    def outputs(key, inputs=inputs, **options):
        return to_host(model(**inputs, key=key, **options)[0])

    a = outputs(1)
    assert equal(a, outputs(1, grad=False))
    for other in (outputs(2), outputs(None)):
        assert not any(np.array_equal(a[name], other[name]) for name in a)
    two = outputs(1, inputs={name: array[:2] for name, array in inputs.items()})
    for name in a:
        assert relative_error(a[name][:2], two[name]) < MODEL, "a sample's mask must not depend on the batch around it"


@pytest.mark.parametrize(("family", "rate"), [(name, rate) for name, family in FAMILIES.items() for rate in family.dropout])
def test_every_dropout_rate_is_used(family, rate):
    without, alone = (tiny(family, **changes)(**batch(), key=1)[0] for changes in ({}, {rate: 0.2}))
    assert equal(without, tiny(family)(**batch())[0]) and not any(np.array_equal(without[n], alone[n]) for n in OUTPUTS)


@each_family
def test_every_mask_has_a_key_of_its_own(monkeypatch, family):
    """Sublayers, attention and feed-forward layers of both sides: layers with the same key would drop the same positions."""
    model = tiny(family, **FAMILIES[family].dropout)
    keys = keys_of_masks(monkeypatch, lambda: model(**batch(), key=1))
    # per layer of the encoder two sublayers, attention's weights, the feed-forward layer; of the decoder two more; around them
    ends = {"t5": 4, "mt5": 4}.get(family, 2)
    assert len(set(keys)) == len(keys) == 2 * 4 + 2 * 6 + ends


@each_family
@pytest.mark.parametrize("options", [{"checkpointing": True}, {"checkpointing": 2}, {"once": True}])
def test_checkpointing_is_bit_equal_with_dropout(family, options):
    model = tiny(family, **FAMILIES[family].dropout)
    outputs, backward = model(**batch(), key=3)
    outputs2, backward2 = model(**batch(), key=3, **options)
    c = random_like(outputs)
    assert equal(outputs, outputs2) and equal(backward(c), backward2(c))


@each_family
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtypes_hold(device, family, dtype):
    """Outputs and gradients; a loss has at least float32, and float16 is close to float64."""
    model = tiny(family, dtype=dtype, device=device, **FAMILIES[family].dropout)
    outputs, backward = model(**batch(), key=1)
    assert all(a.dtype == dtype for a in leaves(outputs))
    c = tree_map(lambda a: a.astype(dtype), random_like(outputs))
    assert all(a.dtype == dtype for a in leaves(backward(to_device(c, device))))
    loss, back = model.loss(input_ids=batch()["input_ids"], targets={"logits": labels()}, **MASKS, key=1)
    assert loss.dtype == np.float32 and all(a.dtype == dtype for a in leaves(back(1.0)))
    exact, _ = tiny(family, **FAMILIES[family].dropout)(**batch(), key=1, grad=False)
    # some 60 roundings in a chain, each of half the dtype's epsilon; a norm of six numbers amplifies them
    assert relative_error(to_host(outputs), exact) < 10 * 60 * np.finfo(dtype).eps / 2


# ----------------------------------------------------------------------------------------------------------- bad input

IDS, EMBEDS = {"input_ids": [[3, 4]]}, np.ones((1, 2, 6))
ONE_OF = "expected one of decoder_input_ids, decoder_inputs_embeds and labels, got"


@each_kind
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (IDS, f"{ONE_OF} none of them"),
        ({**IDS, "decoder_input_ids": [[3]], "labels": [[3]]}, f"{ONE_OF} decoder_input_ids and labels"),
        (
            {**IDS, "decoder_input_ids": [[3]], "decoder_inputs_embeds": EMBEDS},
            f"{ONE_OF} decoder_input_ids and decoder_inputs_embeds",
        ),
        ({"labels": [[3]]}, "expected either input_ids or inputs_embeds, and not both"),
        ({**IDS, "inputs_embeds": EMBEDS, "labels": [[3]]}, "expected either input_ids or inputs_embeds, and not both"),
        ({"input_ids": [[3, 11]], "labels": [[3]]}, "input_ids: expected integers from 0 to 10, got 11"),
        ({**IDS, "decoder_input_ids": [[-1]]}, "decoder_input_ids: expected integers from 0 to 10, got -1"),
        ({**IDS, "labels": [[3, 11, 4]]}, "labels: expected integers from 0 to 10, got 11"),
        ({**IDS, "labels": [[0.5]]}, "labels: expected integers, got "),
        ({**IDS, "labels": 3}, "labels: expected shape (B, T) with B, T >= 1, got ()"),
        ({**IDS, "labels": [[]]}, "labels: expected shape (B, T) with B, T >= 1, got (1, 0)"),
        ({**IDS, "decoder_input_ids": [3, 4]}, "decoder_input_ids: expected shape (B, T) with B, T >= 1, got (2,)"),
        ({**IDS, "decoder_input_ids": [[]]}, "decoder_input_ids: expected shape (B, T) with B, T >= 1, got (1, 0)"),
        (
            {**IDS, "decoder_inputs_embeds": EMBEDS[..., :5]},
            "decoder_inputs_embeds: expected shape (B, T, 6) with B, T >= 1, got",
        ),
        ({**IDS, "decoder_input_ids": [[3], [4]]}, "decoder_input_ids: expected as many samples as in the source, 1, got 2"),
        ({**IDS, "labels": [[3], [4]]}, "labels: expected as many samples as in the source, 1, got 2"),
        (
            {"inputs_embeds": np.ones((2, 2, 6)), "labels": [[3]]},
            "labels: expected as many samples as in the source, 2, got 1",
        ),
        ({**IDS, "labels": [[3]], "attention_mask": [[1]]}, "attention_mask: expected shape (1, 2), got (1, 1)"),
        ({**IDS, "labels": [[3]], "attention_mask": np.ones((1, 1, 2, 2), bool)}, "attention_mask: expected shape (1, 2), got "),
        (
            {**IDS, "labels": [[3]], "attention_mask": [[1, 2]]},
            "attention_mask: expected 0 and 1 as integers, or booleans, got 2",
        ),
        (
            {**IDS, "labels": [[3]], "decoder_attention_mask": [[1, 1]]},
            "decoder_attention_mask: expected shape (1, 1), got (1, 2)",
        ),
        ({**IDS, "labels": [[3]], "decoder_attention_mask": [[-1]]}, "decoder_attention_mask: expected 0 and 1 as integers, "),
        ({**IDS, "labels": [[3]], "key": -1}, "key: expected "),
        ({**IDS, "labels": [[3]], "frozen": 5}, "stack: frozen: expected "),
        ({**IDS, "labels": [[3]], "position_ids": [[0, 1]]}, "model: expected some of the arguments input_ids, "),
        ({**IDS, "labels": [[3]], "cache": None}, "model: expected some of the arguments input_ids, "),
        ({"input_ids": [[3] * 9], "labels": [[3]]}, "input_ids: expected at most 8 tokens, the context, got 9"),
        ({**IDS, "labels": [[3] * 9]}, "decoder_input_ids: expected at most 8 tokens, the context, got 9"),
        (
            {**IDS, "decoder_inputs_embeds": np.ones((1, 9, 6))},
            "decoder_inputs_embeds: expected at most 8 tokens, the context, got 9",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(family, inputs, message):
    model = tiny(family)
    if "context" in message and model.config.context is None:
        assert model(**inputs, grad=False)[0]["logits"].shape[2] == 11
        return
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}") as error:
        model(**inputs)
    assert "\n" not in str(error.value)


def test_bad_input_of_a_loss_is_refused_in_one_line():
    model, wanted = tiny("bart"), {"logits": np.array([[3, 4]])}
    wrong = [
        ({"targets": {}}, "targets: expected a dict with logits alone, got "),
        ({"targets": {"logits": np.array([[3, 11]])}}, "11"),
        ({"targets": {"logits": np.array([[3, 4]]), "x": np.array([1])}}, "targets: expected a dict with logits alone, got "),
        ({"total": {"x": 3}}, "total: expected a dict with logits, got "),
        ({"decoder_input_ids": [[3, 4]], "labels": [[3, 4]]}, f"{ONE_OF} decoder_input_ids and labels"),
        ({"decoder_input_ids": [[3, 4, 5]]}, "targets: expected "),
        ({"input_ids": [[3], [4]]}, "labels: expected as many samples as in the source, 2, got 1"),
        ({"token_type_ids": [[0, 0]]}, "loss: expected "),
    ]
    for changes, message in wrong:
        with pytest.raises((ValueError, TypeError), match=re.escape(message)) as error:
            model.loss(**{"targets": wanted, **IDS, **changes})
        assert "\n" not in str(error.value)

    def emit(path, gradient):
        raise AssertionError("no gradient is formed")

    for inputs, message in [
        ({**IDS, "decoder_inputs_embeds": EMBEDS}, "inputs: expected a dict of arrays with decoder_input_ids, got "),
        ({"inputs_embeds": EMBEDS, "decoder_input_ids": [[3]]}, "inputs: expected a dict of arrays with input_ids, got "),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            model.loss_in_parts(emit, inputs, targets=wanted)

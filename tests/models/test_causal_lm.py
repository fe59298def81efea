"""Behaviour common to all causal families: every gradient of the loss, padding, packing, dropout, checkpointing, dtypes.

Family-specific behaviour is in the family's own file (test_gpt2.py, test_llama.py); the key/value cache is in test_cache.py.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, apart, difference_rounding, equal, leaves, relative_error
from tests.support.differences import slope_error
from tests.support.encoder_families import keys_of_masks
from tests.support.families import FAMILIES, KINDS, PADDING, VARIANTS, batch, tiny
from tinyplm import families as models
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import add, flatten, tree_map, unflatten
from tinyplm.data.batches import document_positions
from tinyplm.layers.mask import packed_mask
from tinyplm.models.protocol import LossOptions
from tinyplm.optim.flat import FlatTree

each_family = pytest.mark.parametrize("family", FAMILIES)
each_kind = pytest.mark.parametrize("family", KINDS)
each_variant = pytest.mark.parametrize(("family", "variant"), VARIANTS)


def loss_of(model, params, **options):
    """The loss with a different parameter tree."""
    return model.with_params(params).loss(**options)


def test_every_family_has_a_row():
    decoders = {name for name in models.FAMILIES if "causal_lm" in models.architectures(models.family(name))}
    assert FAMILIES.keys() == decoders
    for name, family in FAMILIES.items():
        assert family.module is models.family(name) and family.config.MODEL_TYPE == name
        assert not any(getattr(family.config, rate) for rate in family.dropout) and all(family.dropout.values())


# ----------------------------------------------------------------------------------------------------------- gradients


def assert_gradients(model, **options):
    """Central differences of the chunked loss along a random direction, for each parameter tensor separately.

    The gradient is the device's; the differences are taken on the host, where the loss is the same.
    """
    value, backward = loss_of(model, model.params, chunk=4, **options)
    gradient = {path: to_host(g) for path, g in flatten(backward(1.0)).items()}
    on_host = model.to("cpu")
    host = flatten(on_host.params)
    assert list(gradient) == list(host)
    for same in (model, on_host):
        alone, _ = loss_of(same, same.params, chunk=4, grad=False, **options)
        assert float(to_host(alone)) == pytest.approx(float(to_host(value)), rel=MODEL)
    rng = np.random.default_rng(1)
    for path, a in host.items():
        d = rng.normal(size=a.shape)

        def at(h, path=path, a=a, d=d):
            moved = unflatten({**host, path: a + h * d}, on_host.params)
            return float(loss_of(on_host, moved, chunk=4, grad=False, **options)[0])

        products, noise = gradient[path] * d, difference_rounding(float(to_host(value))) / 1e-7
        error = slope_error(at, products.sum(), np.abs(products).sum() + noise)
        assert error < 1e-7, f"{path}: {error:.1e}"


@each_variant
def test_gradient_of_the_loss_by_every_parameter(device, family, variant):
    if device != "cpu" and variant != next(iter(FAMILIES[family].variants)):
        pytest.skip("one of a family's variants on each other device")
    model = tiny(family, device=device, **FAMILIES[family].variants[variant])
    ids, targets = batch()
    assert_gradients(model, input_ids=ids, targets={"logits": targets}, attention_mask=PADDING)


@each_kind
def test_gradient_through_dropout_and_with_positions_of_each_sample(family):
    model = tiny(family, **FAMILIES[family].dropout)
    ids, targets = batch()
    positions = np.maximum(np.cumsum(PADDING, axis=1) - 1, 0)
    assert_gradients(model, input_ids=ids, targets={"logits": targets}, attention_mask=PADDING, position_ids=positions,
                     key=random.sample_keys(5, np.arange(3)))  # fmt: skip


@each_kind
def test_outputs_have_gradients_each_and_together(family):
    model = tiny(family)
    ids, _ = batch()
    outputs, backward = model(ids)
    rng = np.random.default_rng(0)
    d = {name: rng.normal(size=a.shape) for name, a in outputs.items()}
    assert list(d) == ["logits", "hidden"]
    both, parts = backward(d), [backward({name: d[name]}) for name in d]
    assert apart(both, tree_map(lambda a, b: a + b, *parts)) < MODEL
    assert not any(a.any() for a in leaves(backward({})))
    with pytest.raises(ValueError, match="backward: expected some of hidden, logits, got \\['logit'\\]"):
        backward({"logit": d["logits"]})


@each_kind
@pytest.mark.parametrize("tied", [True, False])
def test_layer_gradients_go_to_the_callback_and_are_not_built_again(family, tied):
    model = tiny(family, tie_word_embeddings=tied)
    ids, targets = batch()
    dlogits = np.random.default_rng(0).normal(size=(3, 5, 11))

    def loss_back(**options):
        return loss_of(model, model.params, input_ids=ids, targets={"logits": targets}, **options)[1]

    def model_back(**options):
        back = model(ids, **options)[1]
        return lambda d: back({"logits": d * dlogits})

    for run in (loss_back, model_back):
        handed = {}
        gradient = run(on_gradient=handed.__setitem__)(1.5)
        assert gradient["body"]["layers"] == [None, None], "zeros for what the callback has would be the full tree"
        gradient["body"]["layers"] = [handed[0], handed[1]]
        expected = run()(1.5)
        assert all(np.array_equal(a, flatten(expected)[path]) for path, a in flatten(gradient).items())
        assert flatten(gradient).keys() == flatten(expected).keys()
    assert model(ids, on_gradient=handed.__setitem__)[1]({}) == {}


@each_family
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("factored", [True, False])
def test_the_parts_of_a_training_step_add_up_to_the_gradient(family, tied, factored):
    model = tiny(family, tie_word_embeddings=tied)
    ids, targets = batch()
    loss, back = loss_of(model, model.params, input_ids=ids, targets={"logits": targets}, total={"logits": 7})
    total, parts = FlatTree(model.params), []

    def give(path, gradient):
        parts.extend(flatten(gradient, path))
        total.add(gradient, path)

    same, parts_back = model.loss_in_parts(give, {"input_ids": ids}, targets={"logits": targets}, total={"logits": 7},
                                           options=LossOptions(factors=factored))  # fmt: skip
    left = parts_back(1.5)
    assert len(left) == 1 + factored
    assert len(parts) == len(set(parts)), "an array in two parts has no fixed order of summation"
    norm = next(path for path in flatten(model.params) if path.startswith("body.layers.0.norm"))
    mlp = next(path for path in flatten(model.params) if path.startswith("body.layers.1.mlp."))
    assert parts.index(mlp) < parts.index(norm)
    for tree in left:
        total.add(tree, workers=2)
    assert float(same) == pytest.approx(float(loss), rel=MODEL) and relative_error(total.tree, back(1.5)) < MODEL


@each_kind
def test_embeddings_as_inputs_get_their_gradient(family):
    model = tiny(family)
    ids, _ = batch()
    embeds = model.params["body"]["tokens"][ids]
    outputs, backward = model(inputs_embeds=embeds)
    expected, ids_backward = model(ids)
    assert np.array_equal(outputs["logits"], expected["logits"])
    c = np.random.default_rng(0).normal(size=expected["hidden"].shape)
    dparams, dembeds = backward({"hidden": c})
    assert not dparams["body"]["tokens"].any()
    scattered = np.zeros_like(model.params["body"]["tokens"])
    np.add.at(scattered, ids, dembeds)
    assert relative_error(scattered, ids_backward({"hidden": c})["body"]["tokens"]) < MODEL


@each_kind
def test_no_gradient_of_any_output_is_zeros_for_parameters_and_embeddings(family):
    model = tiny(family)
    dparams, dembeds = model(inputs_embeds=np.ones((1, 3, model.width)))[1]({})
    assert dembeds.shape == (1, 3, model.width) and not dembeds.any()
    assert not any(a.any() for a in flatten(dparams).values())


@each_kind
def test_embeddings_of_any_kind_are_cast_to_the_models_dtype(family):
    model = tiny(family, dtype="float32")
    embeds = np.random.default_rng(0).normal(size=(2, 3, 6))
    expected = model(inputs_embeds=embeds.astype("float32"))[0]["logits"]
    for given in (embeds, embeds.tolist()):
        outputs, backward = model(inputs_embeds=given)
        assert outputs["logits"].dtype == np.float32 and np.array_equal(outputs["logits"], expected)
        assert backward({"logits": expected})[1].dtype == np.float32


# ------------------------------------------------------------------------------------------------ masks, padding, packing


@each_kind
def test_two_documents_in_one_row_are_as_if_apart(device, family):
    """Packed with packed_mask and their own positions: the logits of separate runs, and the sum of their gradients."""
    model = tiny(family, device=device)
    ids = np.array([[0, 3, 4, 0, 5], [0, 7, 0, 2, 2]])  # 0 starts a document
    documents, positions = document_positions(ids, 0)
    assert positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    outputs, backward = model(ids, attention_mask=packed_mask(documents), position_ids=positions)
    logits = to_host(outputs["logits"])
    cotangent = np.random.default_rng(0).normal(size=logits.shape)
    gradient = to_host(backward({"logits": to_device(cotangent, device)}))
    total = None
    for row, lo, hi in ((0, 0, 3), (0, 3, 5), (1, 0, 2), (1, 2, 5)):
        alone, back = model(ids[row : row + 1, lo:hi])
        assert relative_error(logits[row, lo:hi], to_host(alone["logits"])[0]) < MODEL
        total = add(total, to_host(back({"logits": to_device(cotangent[row : row + 1, lo:hi], device)})))
    for path, a in flatten(total).items():
        assert np.abs(flatten(gradient)[path] - a).max() < MODEL * max(1, np.abs(a).max()), path


@each_kind
def test_masks_of_four_dimensions(family):
    """One for all samples or one per sample, one for all heads or one per head; combined with the causal mask."""
    model = tiny(family)
    ids, _ = batch()
    full = np.broadcast_to((PADDING == 1)[:, None, None], (3, 1, 5, 5))
    expected = model(ids, attention_mask=PADDING)[0]["logits"]
    found = [model(ids, attention_mask=mask)[0]["logits"] for mask in (full, np.repeat(full, model.config.heads, axis=1))]
    assert np.array_equal(*found)
    # ALiBi takes its places from a mask of two dimensions alone, so that its offsets differ by a constant
    assert relative_error(found[0], expected) < MODEL if family == "bloom" else np.array_equal(found[0], expected)
    assert np.array_equal(model(ids, attention_mask=np.ones((1, 1, 5, 5), bool))[0]["logits"], model(ids)[0]["logits"])
    by_head = np.eye(5, dtype=bool) | np.arange(model.config.heads)[None, :, None, None].astype(bool)
    found = [model(ids, attention_mask=mask)[0]["logits"] for mask in (by_head, by_head[:, :1], by_head[:, ::-1])]
    assert all(apart(found[0], other) > 1e-6 for other in found[1:])  # each head has its own mask


@each_family
def test_padding_and_the_future_have_exactly_no_influence(device, family):
    model = tiny(family, device=device)
    ids, _ = batch()
    real = PADDING.astype(bool)

    def logits(ids):
        return to_host(model(ids, attention_mask=PADDING, grad=False)[0]["logits"])

    expected = logits(ids)
    assert np.array_equal(logits(np.where(real, ids, 10 - ids))[real], expected[real])
    later = ids.copy()
    later[:, 3:] = 10 - later[:, 3:]
    assert np.array_equal(logits(later)[:, :3][real[:, :3]], expected[:, :3][real[:, :3]])


@each_variant
def test_a_padded_sample_is_as_if_alone(family, variant):
    """Up to rounding: matrices of another height may be summed in another order; with left padding, positions count from 0."""
    model = tiny(family, **FAMILIES[family].variants[variant])
    ids, _ = batch()
    positions = np.maximum(np.cumsum(PADDING, axis=1) - 1, 0)
    outputs, _ = model(ids, attention_mask=PADDING, position_ids=positions)
    for row, real in enumerate(PADDING.astype(bool)):
        alone, _ = model(ids[row : row + 1, real])
        for name in ("logits", "hidden"):
            assert relative_error(outputs[name][row, real], alone[name][0]) < MODEL


@each_kind
def test_padding_and_the_future_get_exactly_no_gradient(device, family):
    model = tiny(family, device=device)
    rng = np.random.default_rng(0)
    real = PADDING.astype(bool)
    outputs, backward = model(inputs_embeds=rng.normal(size=(3, 5, 6)), attention_mask=PADDING)
    wanted = real & (np.arange(5) < 4)  # the last position is in the future of all of them
    cotangent = rng.normal(size=outputs["logits"].shape) * wanted[..., None]
    dembeds = to_host(backward({"logits": to_device(cotangent, device)})[1])
    assert not dembeds[~wanted].any() and dembeds[wanted].all()


# --------------------------------------------------------------------------------------------- dropout, recomputation, dtype


@each_kind
def test_dropout_depends_on_the_key_alone(device, family):
    model = tiny(family, device=device, **FAMILIES[family].dropout)
    ids, _ = batch()

    def logits(key, ids=ids, **options):
        return to_host(model(ids, key=key, **options)[0]["logits"])

    a = logits(1)
    assert np.array_equal(a, logits(1)) and np.array_equal(a, logits(1, grad=False))
    assert not np.array_equal(a, logits(2)) and not np.array_equal(a, logits(None))
    # up to rounding: fewer rows may use another order of summation; another mask would change a tenth
    assert relative_error(a[:2], logits(1, ids=ids[:2])) < MODEL, "a sample's mask must not depend on the batch around it"


@each_kind
def test_every_mask_has_a_key_of_its_own(monkeypatch, family):
    """Layers with the same key would drop the same positions."""
    model = tiny(family, **FAMILIES[family].dropout)
    keys = keys_of_masks(monkeypatch, lambda: model(batch()[0], key=1))
    assert len(set(keys)) == len(keys) >= len(model.params["body"]["layers"])


@pytest.mark.parametrize(("family", "rate"), [(name, rate) for name, family in FAMILIES.items() for rate in family.dropout])
def test_every_dropout_rate_is_used(family, rate):
    ids, _ = batch()
    without, alone = (tiny(family, **changes)(ids, key=1)[0]["logits"] for changes in ({}, {rate: 0.2}))
    assert np.array_equal(without, tiny(family)(ids)[0]["logits"]) and not np.array_equal(without, alone)


@each_kind
@pytest.mark.parametrize("options", [{"checkpointing": True}, {"once": True}])
def test_checkpointing_is_bit_equal_with_dropout(family, options):
    model = tiny(family, **FAMILIES[family].dropout)
    ids, _ = batch()
    outputs, backward = model(ids, key=3)
    outputs2, backward2 = model(ids, key=3, **options)
    d = {"logits": np.random.default_rng(0).normal(size=outputs["logits"].shape)}
    assert equal(outputs, outputs2) and equal(backward(d), backward2(d))


@each_family
def test_float32_stays_float32(device, family):
    model = tiny(family, dtype="float32", device=device)
    ids, targets = batch()
    outputs, backward = model(ids)
    assert all(a.dtype == np.float32 for name, a in outputs.items() if name != "chosen_experts")
    dlogits = to_device(np.random.default_rng(0).normal(size=(3, 5, 11)).astype("float32"), device)
    assert all(a.dtype == np.float32 for a in leaves(backward({"logits": dlogits})))
    key = random.sample_keys(random.key(0), np.arange(3))
    loss, back = loss_of(model, model.params, input_ids=ids, targets={"logits": targets}, key=key)
    assert loss.dtype == np.float32 and all(a.dtype == np.float32 for a in leaves(back(1.0)))


# ----------------------------------------------------------------------------------------------------------- bad input


def whole(shape):
    """A 4-dimensional mask that hides nothing; H stands for the number of heads."""
    return lambda heads: np.ones([heads if n == "H" else n for n in shape], bool)


@each_kind
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[1, 11]]}, "input_ids: expected integers from 0 to 10, got 11"),
        ({"input_ids": [[-1]]}, "input_ids: expected integers from 0 to 10, got -1"),
        ({"input_ids": [1, 2]}, "input_ids: expected shape (B, T)"),
        ({"input_ids": [[]]}, "B, T >= 1, got (1, 0)"),
        ({"input_ids": [[0.5]]}, "input_ids: expected integers"),
        ({"input_ids": [[1] * 7]}, "input_ids: expected at most 6 tokens, the context, got 7"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1, 1]]}, "attention_mask: expected shape (1, 2), got (1, 3)"),
        ({"input_ids": [[1, 2]], "position_ids": [[0, 6]]}, "position_ids: expected integers from 0 to 5, got 6"),
        ({"input_ids": [[1, 2]], "position_ids": [[0, -1]]}, "position_ids: expected integers from 0 to 5, got -1"),
        ({"input_ids": [[1, 2]], "position_ids": [0]}, "position_ids: expected shape (2,) or (1, 2)"),
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": [[1, 2]], "inputs_embeds": np.ones((1, 2, 6))}, "either input_ids or inputs_embeds"),
        ({"inputs_embeds": np.ones((1, 2, 5))}, "expected shape (B, T, 6)"),
        ({"inputs_embeds": np.ones((0, 2, 6))}, "(B, T, 6) with B, T >= 1, got (0, 2, 6)"),
        ({"inputs_embeds": np.ones((1, 0, 6))}, "(B, T, 6) with B, T >= 1, got (1, 0, 6)"),
        ({"inputs_embeds": np.ones((1, 7, 6))}, "inputs_embeds: expected at most 6 tokens, the context, got 7"),
        ({"inputs_embeds": np.ones((1, 2, 6), bool)}, "inputs_embeds: expected real numbers, got bool array of shape (1, 2, 6)"),
        ({"input_ids": [[1, 2]], "attention_mask": np.ones((1, 1, 2, 2), int)},
         "expected booleans, True = may attend, in 4 dimensions, got dtype int64"),
        ({"input_ids": [[1, 2]], "attention_mask": whole((1, 9, 2, 2))},
         "expected shape (1 or 1, H or 1, 2, 2), got (1, 9, 2, 2)"),
        ({"input_ids": [[1, 2]], "attention_mask": whole((2, 1, 2, 2))}, "got (2, 1, 2, 2)"),
        ({"input_ids": [[1, 2]], "attention_mask": whole((1, "H", 2, 3))}, "got (1, H, 2, 3)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(family, inputs, message):
    if not FAMILIES[family].context and ("context" in message or "position_ids: expected integers" in message):
        pytest.skip("no longest sequence")
    model = tiny(family)
    heads = model.config.heads
    inputs = {name: value(heads) if callable(value) else value for name, value in inputs.items()}
    with pytest.raises(ValueError, match=re.escape(message.replace("H", str(heads)))) as error:
        model(**inputs)
    assert "\n" not in str(error.value)


@each_family
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda name, config: tinyplm.create(name, f"{name}-huge"), "config: expected one of the sizes {first}, "),
        (lambda name, config: tinyplm.create(name, config, width=3), "config: expected some of the fields "),
        (lambda name, config: tinyplm.create(name, config, dtype="int8"), "dtype: expected one of float32, "),
        (lambda name, config: tinyplm.create(name, config, device="tpu"), "device: expected one of cpu, "),
        (lambda name, config: tinyplm.create(name + "x", config), "model_type: expected one of albert, "),
    ],
)
def test_what_cannot_be_created_is_refused_in_one_line(family, call, message):
    expected = message.format(name=family, first=next(iter(FAMILIES[family].module.SIZES)))
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        call(family, FAMILIES[family].config)
    assert "\n" not in str(error.value)

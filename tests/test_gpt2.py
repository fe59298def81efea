"""GPT-2 as a whole: published counts, init, gradients of the loss by every parameter, padding, dropout, checkpointing."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

import tinyplm
from tests.laws import equal, leaves, relative_error
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import add, flatten, tree_map
from tinyplm.data.batches import document_positions
from tinyplm.layers.mask import packed_mask
from tinyplm.models import causal_lm, gpt2
from tinyplm.weights import count_parameters

TINY = gpt2.Config(vocab_size=11, n_positions=6, n_embd=6, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
                   attn_pdrop=0.0, bos_token_id=None, eos_token_id=None)  # fmt: skip


def tiny(seed=0, dtype="float64", device="cpu", **changes):
    """A tiny model with every parameter random, also biases and norm weights."""
    model = tinyplm.create("gpt2", dataclasses.replace(TINY, **changes), dtype="float64")
    rng = np.random.default_rng(seed)
    model.params = tree_map(lambda a: (a + rng.normal(0, 0.3, a.shape)).astype(dtype), model.params)
    return model.to(device)


def batch(seed=0, B=3, T=5, V=11):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, V, (B, T))
    targets[0, 2] = -100
    return rng.integers(0, V, (B, T)), targets


# The released checkpoints, counted by transformers (the paper's own table 2 says 117M, 345M, 762M, 1542M).
@pytest.mark.parametrize(("size", "count"), [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080),
                                             ("gpt2-xl", 1_557_611_200)])  # fmt: skip
def test_published_sizes_have_the_published_counts(size, count):
    start = time.perf_counter()
    assert count_parameters(gpt2.shapes(gpt2.SIZES[size])) == count
    assert time.perf_counter() - start < 0.1, "counting must not allocate"


def test_init_is_as_published_and_repeatable():
    config = dataclasses.replace(TINY, n_embd=64, vocab_size=500, n_layer=3)
    params = flatten(tinyplm.create("gpt2", config, key=5).params)
    assert equal(list(params.values()), list(flatten(tinyplm.create("gpt2", config, key=5).params).values()))
    assert not equal(params["body.tokens"], tinyplm.create("gpt2", config, key=6).params["body"]["tokens"])
    for path, a in params.items():
        assert a.dtype == np.float32
        name = path.rsplit(".", 1)[-1]
        if name == "gamma":
            assert (a == 1).all()
        elif name == "beta" or name.startswith("b"):
            assert not a.any()
        else:
            std = 0.02 / (6**0.5 if name in ("Wo", "W2") else 1)  # 2 residual additions in each of 3 layers
            assert abs(a.std() / std - 1) < 5 / (2 * a.size) ** 0.5 and abs(a.mean()) < 5 * std / a.size**0.5, path


@pytest.mark.parametrize("tied", [True, False])
def test_gradient_of_the_loss_by_every_parameter(device, tied):
    """Central differences along a random direction in each parameter tensor on its own, through the chunked loss."""
    model = tiny(tie_word_embeddings=tied, device=device)
    ids, targets = (to_device(a, device) for a in batch())
    mask = to_device(np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]), device)

    def loss(params, grad=False):
        return causal_lm.loss(gpt2, params, config=model.config, input_ids=ids, targets=targets, attention_mask=mask, chunk=4,
                              grad=grad)  # fmt: skip

    _, backward = loss(model.params, grad=True)
    gradient = {path: to_host(g) for path, g in flatten(backward(1.0)).items()}
    host = flatten(to_host(model.params))
    assert list(gradient) == list(host)
    rng = np.random.default_rng(1)
    for path, a in host.items():
        d = rng.normal(size=a.shape)

        def at(h, path=path, a=a, d=d):
            moved = {**host, path: a + h * d}
            tree = to_device(tinyplm.core.unflatten(moved, model.params), device)
            return float(to_host(loss(tree)[0]))

        numerical = (at(1e-5) - at(-1e-5)) / 2e-5
        error = abs(numerical - (gradient[path] * d).sum()) / max(np.abs(gradient[path] * d).sum(), 1e-3)
        assert error < 1e-7, f"{path}: {error:.1e}"


def test_outputs_have_gradients_each_and_together():
    model = tiny()
    ids, _ = batch()
    outputs, backward = model(ids)
    rng = np.random.default_rng(0)
    d = {name: rng.normal(size=a.shape) for name, a in outputs.items()}
    both, parts = backward(d), [backward({name: d[name]}) for name in d]
    assert relative_error(both, tree_map(lambda a, b: a + b, *parts)) < 1e-12
    assert not any(a.any() for a in leaves(backward({})))
    with pytest.raises(ValueError, match="unknown outputs \\['logit'\\]"):
        backward({"logit": d["logits"]})


@pytest.mark.parametrize("tied", [True, False])
def test_layer_gradients_go_to_the_callback_and_are_not_built_again(tied):
    model = tiny(tie_word_embeddings=tied)
    ids, targets = batch()

    def loss_back(**options):
        return causal_lm.loss(gpt2, model.params, config=model.config, input_ids=ids, targets=targets, **options)[1]

    def model_back(**options):
        back = model(ids, **options)[1]
        return lambda d: back({"logits": np.full((3, 5, 11), d)})

    for run in (loss_back, model_back):
        handed = {}
        gradient = run(on_gradient=handed.__setitem__)(1.5)
        assert gradient["body"]["layers"] == [None, None], "zeros for what the callback has would be the full tree"
        gradient["body"]["layers"] = [handed[0], handed[1]]
        expected = run()(1.5)
        assert all(np.array_equal(a, flatten(expected)[path]) for path, a in flatten(gradient).items())
        assert flatten(gradient).keys() == flatten(expected).keys()
    assert model(ids, on_gradient=handed.__setitem__)[1]({}) == {}


def test_two_documents_in_one_row_are_as_if_apart(device):
    """Packed with packed_mask and their own positions: the logits of two runs, and the sum of their gradients."""
    model = tiny(device=device)
    ids = np.array([[0, 3, 4, 0, 5], [0, 7, 0, 2, 2]])  # 0 begins a document
    documents, positions = document_positions(ids, 0)
    assert positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    outputs, backward = model(ids, attention_mask=packed_mask(documents), position_ids=positions)
    logits = to_host(outputs["logits"])
    cotangent = np.random.default_rng(0).normal(size=logits.shape)
    gradient = to_host(backward({"logits": to_device(cotangent, device)}))
    total = None
    for row, lo, hi in ((0, 0, 3), (0, 3, 5), (1, 0, 2), (1, 2, 5)):
        alone, back = model(ids[row : row + 1, lo:hi])
        assert relative_error(logits[row, lo:hi], to_host(alone["logits"])[0]) < 1e-12
        total = add(total, to_host(back({"logits": to_device(cotangent[row : row + 1, lo:hi], device)})))
    for path, a in flatten(total).items():
        assert np.abs(flatten(gradient)[path] - a).max() < 1e-12 * max(1, np.abs(a).max()), path


def test_masks_of_four_dimensions():
    """One for all samples or each its own, one for all heads or each its own; on top of the causal mask."""
    model = tiny()
    ids, _ = batch()
    attention_mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    full = np.broadcast_to((attention_mask == 1)[:, None, None], (3, 1, 5, 5))
    expected = model(ids, attention_mask=attention_mask)[0]["logits"]
    for mask in (full, np.repeat(full, 2, axis=1)):
        assert np.array_equal(model(ids, attention_mask=mask)[0]["logits"], expected)
    assert np.array_equal(model(ids, attention_mask=np.ones((1, 1, 5, 5), bool))[0]["logits"], model(ids)[0]["logits"])


def test_embeddings_of_any_kind_are_cast_to_the_models_dtype():
    model = tiny(dtype="float32")
    embeds = np.random.default_rng(0).normal(size=(2, 3, 6))
    expected = model(inputs_embeds=embeds.astype("float32"))[0]["logits"]
    for given in (embeds, embeds.tolist()):
        outputs, backward = model(inputs_embeds=given)
        assert outputs["logits"].dtype == np.float32 and np.array_equal(outputs["logits"], expected)
        assert backward({"logits": expected})[1].dtype == np.float32


def test_embeddings_as_inputs_get_their_gradient():
    model = tiny()
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
    assert relative_error(scattered, ids_backward({"hidden": c})["body"]["tokens"]) < 1e-13


def test_padding_and_the_future_have_exactly_no_influence(device):
    model = tiny(device=device)
    ids, _ = batch()
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    real = mask.astype(bool)

    def logits(ids):
        return to_host(model(ids, attention_mask=mask, grad=False)[0]["logits"])

    expected = logits(ids)
    assert np.array_equal(logits(np.where(real, ids, 10 - ids))[real], expected[real])
    later = ids.copy()
    later[:, 3:] = 10 - later[:, 3:]
    assert np.array_equal(logits(later)[:, :3][real[:, :3]], expected[:, :3][real[:, :3]])


def test_dropout_depends_on_the_key_alone(device):
    model = tiny(resid_pdrop=0.2, embd_pdrop=0.2, attn_pdrop=0.2, device=device)
    ids, _ = batch()

    def logits(key, ids=ids, **options):
        return to_host(model(ids, key=key, **options)[0]["logits"])

    a = logits(1)
    assert np.array_equal(a, logits(1)) and np.array_equal(a, logits(1, grad=False))
    assert not np.array_equal(a, logits(2)) and not np.array_equal(a, logits(None))
    assert np.array_equal(a[:2], logits(1, ids=ids[:2])), "a sample's mask must not depend on the batch around it"


@pytest.mark.parametrize("options", [{"checkpointing": True}, {"once": True}])
def test_checkpointing_is_bit_equal_with_dropout(options):
    model = tiny(resid_pdrop=0.2, attn_pdrop=0.2)
    ids, _ = batch()
    outputs, backward = model(ids, key=3)
    outputs2, backward2 = model(ids, key=3, **options)
    d = {"logits": np.random.default_rng(0).normal(size=outputs["logits"].shape)}
    assert equal(outputs, outputs2) and equal(backward(d), backward2(d))


def test_float32_stays_float32(device):
    model = tiny(dtype="float32", device=device)
    ids, targets = batch()
    outputs, backward = model(ids)
    assert all(a.dtype == np.float32 for a in leaves(outputs))
    dlogits = to_device(np.random.default_rng(0).normal(size=(3, 5, 11)).astype("float32"), device)
    assert all(a.dtype == np.float32 for a in leaves(backward({"logits": dlogits})))
    key = random.sample_keys(random.key(0), np.arange(3))
    loss, back = causal_lm.loss(gpt2, model.params, config=model.config, **{
        "input_ids": to_device(ids, device), "targets": to_device(targets, device), "key": to_device(key, device)})  # fmt: skip
    assert loss.dtype == np.float32 and all(a.dtype == np.float32 for a in leaves(back(1.0)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m([[1, 11]]), "token id 11 is out of range: expected 0 to 10"),
        (lambda m: m([[-1]]), "token id -1 is out of range"),
        (lambda m: m([1, 2]), r"input_ids: expected shape \(B, T\)"),
        (lambda m: m([[]]), r"B, T >= 1, got \(1, 0\)"),
        (lambda m: m([[0.5]]), "must be integers"),
        (lambda m: m([[1] * 7]), "7 tokens is longer than the context of 6"),
        (lambda m: m([[1, 2]], attention_mask=[[1, 1, 1]]), r"attention_mask: expected shape \(1, 2\), got \(1, 3\)"),
        (lambda m: m([[1, 2]], position_ids=[[0, 6]]), "position id 6 is out of range"),
        (lambda m: m([[1, 2]], position_ids=[0]), r"position_ids: expected shape \(2,\) or \(1, 2\)"),
        (lambda m: m(), "either input_ids or inputs_embeds"),
        (lambda m: m(inputs_embeds=np.ones((1, 2, 5))), r"expected shape \(B, T, 6\)"),
        (lambda m: m(inputs_embeds=np.ones((0, 2, 6))), r"\(B, T, 6\) with B, T >= 1, got \(0, 2, 6\)"),
        (lambda m: m(inputs_embeds=np.ones((1, 0, 6))), r"\(B, T, 6\) with B, T >= 1, got \(1, 0, 6\)"),
        (lambda m: m(inputs_embeds=np.ones((1, 2, 6), bool)), "inputs_embeds must be real numbers, got dtype bool"),
        (lambda m: m([[1, 2]], attention_mask=np.ones((1, 1, 2, 2))), "must be boolean, True = may attend, got dtype float64"),
        (lambda m: m([[1, 2]], attention_mask=np.ones((1, 3, 2, 2), bool)),
         r"expected shape \(1 or 1, 2 or 1, 2, 2\), got \(1, 3, 2, 2\)"),
        (lambda m: m([[1, 2]], attention_mask=np.ones((1, 1, 2, 3), bool)), r"got \(1, 1, 2, 3\)"),
        (lambda m: tinyplm.create("gpt2", "gpt2-huge"), "unknown size 'gpt2-huge'; expected one of gpt2, gpt2-medium"),
        (lambda m: tinyplm.create("gpt5"), "unknown model_type 'gpt5'"),
        (lambda m: tinyplm.create("gpt2", n_embd=10, n_head=4), "n_embd 10 is not a multiple of n_head 4"),
        (lambda m: tinyplm.create("gpt2", n_layer=0), "n_layer must be a positive integer, got 0"),
        (lambda m: tinyplm.create("gpt2", width=3), "unknown config field 'width'"),
        (lambda m: tinyplm.create("gpt2", add_cross_attention=True), "add_cross_attention"),
        (lambda m: tinyplm.create("gpt2", activation_function="mish"), "unknown activation_function 'mish'"),
        (lambda m: tinyplm.create("gpt2", TINY, dtype="int8"), "unknown dtype 'int8'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(tiny())
    assert "\n" not in str(error.value)

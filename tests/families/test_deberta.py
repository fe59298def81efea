"""DeBERTa's own features: configs, padding, and the enhanced mask decoder."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import reference.layers.activation as ref_activation
import reference.layers.block as ref_block
import reference.layers.disentangled as ref
import reference.layers.mlp as ref_mlp
import reference.layers.norm as ref_norm
import tinyplm
from tests.laws import MODEL, difference_rounding, equal, leaves, relative_error
from tests.support.encoder_families import keys_of_masks
from tinyplm.backend import to_device, to_host
from tinyplm.core import StackOptions, flatten, tree_map, unflatten
from tinyplm.families import deberta, deberta_v2
from tinyplm.models.encoder_model import EncoderModel
from tinyplm.random import sample_keys

_TINY = {"vocab_size": 11, "max_position_embeddings": 6, "hidden_size": 6, "intermediate_size": 7, "num_hidden_layers": 3,
         "num_attention_heads": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "relative_attention": True,
         "pos_att_type": "c2p|p2c", "position_biased_input": False, "type_vocab_size": 2}  # fmt: skip
CONFIGS = {
    "deberta": deberta.Config(**_TINY, max_relative_positions=3),
    "deberta-v2": deberta_v2.Config(**_TINY, position_buckets=4, norm_rel_ebd="layer_norm", share_att_key=True,
                                    conv_kernel_size=3, conv_act="gelu"),
}  # fmt: skip
PADDING = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]])
IDS = np.random.default_rng(9).integers(2, 9, (3, 5))
each_family = pytest.mark.parametrize("family", CONFIGS)


def tiny(family, task="masked_lm", seed=0, device="cpu", **changes):
    """A tiny model with all parameters random, including the positions of its mask decoder."""
    model = tinyplm.create(family, dataclasses.replace(CONFIGS[family], **changes), task=task, dtype="float64")
    rng = np.random.default_rng(seed)
    p = {**model.params, "body": {**model.params["body"], "decoder_positions": np.zeros((6, 6))}}
    model.params = tree_map(lambda a: a + rng.normal(0, 0.3, a.shape), p)
    return model.to(device)


def decode(model, p=None, embeds=None, **options):
    inputs = {"input_ids": IDS} if embeds is None else {}
    inputs = {name: to_device(a, model.device) for name, a in {**inputs, "attention_mask": PADDING}.items()}
    body = model.params["body"] if p is None else p
    stacking = StackOptions(
        **{n: options.pop(n) for n in ("grad", "once", "checkpointing", "frozen", "on_gradient") if n in options}
    )
    return model.family.decoder_body(body, embeds, config=model.config, stacking=stacking, **{**inputs, **options})


# ------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("deberta", {"pos_att_type": "c2p|p2p"}, "pos_att_type: expected c2p, p2c, both or none, got 'c2p|p2p'"),
        ("deberta", {"pos_att_type": ["c2p", "c2p"]}, "pos_att_type: expected c2p, p2c, both or none"),
        ("deberta", {"talking_head": True}, "talking_head: expected False for deberta, got True"),
        ("deberta", {"num_attention_heads": 4}, "hidden_size: expected a multiple of num_attention_heads = 4, got 6"),
        ("deberta", {"embedding_size": 4, "legacy": False}, "embedding_size: expected hidden_size 6 with legacy = false, got 4"),
        ("deberta", {"type_vocab_size": -1}, "type_vocab_size: expected a finite number >= 0, got -1"),
        ("deberta", {"pooler_hidden_size": 5}, "pooler_hidden_size: expected "),
        ("deberta-v2", {"tie_word_embeddings": False}, "tie_word_embeddings: expected True for deberta-v2, got False"),
        ("deberta-v2", {"attention_head_size": 4}, "attention_head_size: expected None or"),
        ("deberta-v2", {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd: expected one of layer_norm, none"),
        ("deberta-v2", {"conv_kernel_size": 4}, "conv_kernel_size: expected an odd number, got 4"),
        ("deberta-v2", {"conv_groups": 4}, "conv_groups: expected a divisor of 6, got 4"),
        ("deberta-v2", {"conv_act": "mish"}, "conv_act: expected one of "),
        ("deberta-v2", {"position_buckets": 1}, "position_buckets: expected 2 to 9, got 1"),
        ("deberta-v2", {"position_buckets": 10}, "position_buckets: expected 2 to 9, got 10"),
        ("deberta-v2", {"pooler_hidden_act": "mish"}, "pooler_hidden_act: expected one of "),
        ("deberta-v2", {"cls_dropout": 1.0}, "cls_dropout: expected a number in [0, 1), got 1.0"),
    ],
)
def test_configs_that_cannot_be_are_refused(family, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(CONFIGS[family], **fields)


@each_family
def test_the_terms_of_a_config_in_all_their_spellings(family):
    for given, terms in (("C2P | p2c", ("c2p", "p2c")), (["p2c"], ("p2c",)), (None, ()), ("", ()), ([], ())):
        assert dataclasses.replace(CONFIGS[family], pos_att_type=given).terms == terms


@each_family
def test_token_types_without_a_table_have_no_meaning(family):
    model = tiny(family, type_vocab_size=0)
    assert equal(model(IDS, token_type_ids=PADDING)[0], model(IDS)[0])


@each_family
def test_padding_is_zero_and_changes_nothing(family):
    """Not even through the convolution over neighbouring tokens."""
    model = tiny(family, "body")
    hidden, _ = model(IDS, attention_mask=PADDING)
    other, _ = model(np.where(PADDING == 1, IDS, 10 - IDS), attention_mask=PADDING)
    real = PADDING == 1
    np.testing.assert_array_equal(hidden["hidden"][real], other["hidden"][real])
    alone, _ = model(IDS[1:2, :3])
    assert relative_error(hidden["hidden"][1:2, :3], alone["hidden"]) < MODEL  # equal up to the order of summation


# ------------------------------------------------------------------------------------------------- the mask decoder


@each_family
def test_the_decoder_of_one_step_without_positions_is_the_last_layer(family):
    model = tiny(family, "body")
    p = {**model.params["body"], "decoder_positions": np.zeros((6, 6))}
    hidden, backward = decode(model, p, steps=1)
    expected, expected_back = model.family.body(p, config=model.config, input_ids=IDS, attention_mask=PADDING)
    np.testing.assert_array_equal(hidden, expected)
    c = np.random.default_rng(0).normal(size=hidden.shape)
    (dp, _), (dp2, _) = backward(c), expected_back(c)
    del dp["decoder_positions"]
    assert flatten(dp).keys() == flatten(dp2).keys()
    for path, a in flatten(dp2).items():
        assert relative_error(flatten(dp)[path], a) < MODEL, path


@each_family
def test_the_decoder_is_that_of_the_reference(family):
    """The lower layers from `body`, the last one from the reference, written as loops."""
    model = tiny(family, "body")
    p, config = model.params["body"], model.config
    hidden, _ = decode(model, steps=3)
    *below, last = p["layers"]
    h, _ = model.family.body({**p, "layers": below}, config=config, input_ids=IDS, attention_mask=PADDING)
    relative, row = p["relative"], partial(ref.clipped_row, span=3)
    if family == "deberta-v2":
        norm = p["relative_norm"]
        relative = ref_norm.layernorm(relative, norm["gamma"], norm["beta"], eps=config.layer_norm_eps)
        row = partial(ref.bucketed_row, buckets=4, longest=6)
    attention = partial(ref.disentangled_multi_head_attention, heads=2, terms=("c2p", "p2c"), delta=ref.row_table(5, 5, row),
                        mask=(PADDING[:, None, :, None] & PADDING[:, None, None, :]) == 1)  # fmt: skip

    def layer(q, h):
        return ref_block.block(last, q, h, relative, residual=ref_block.post_norm, attention=attention,
                               norm=lambda p, x: ref_norm.layernorm(x, p["gamma"], p["beta"], eps=config.layer_norm_eps),
                               mlp=partial(ref_mlp.mlp, activation=ref_activation.gelu))  # fmt: skip

    expected = ref.enhanced_mask_decoder(layer, h, p["decoder_positions"], steps=3)
    assert relative_error(hidden, expected) < MODEL


@each_family
def test_gradients_of_the_decoder(device, family):
    """With respect to each body parameter separately, and to embeddings passed instead of ids: central differences.

    The gradient is the device's; the differences are taken on the host, where the values are the same.
    """
    model = tiny(family, "body", device=device)
    hidden, backward = decode(model)
    rng = np.random.default_rng(1)
    c = rng.normal(size=hidden.shape) * PADDING[..., None]
    dp, none = backward(to_device(c, device))
    assert none is None and flatten(dp).keys() == flatten(model.params["body"]).keys()
    on_host = model.to("cpu")
    host = flatten(on_host.params["body"])
    for same in (model, on_host):
        assert relative_error(to_host(decode(same, grad=False)[0]), to_host(hidden)) < MODEL

    def value(leaves, embeds=None):
        return float((decode(on_host, unflatten(leaves, on_host.params["body"]), embeds, grad=False)[0] * c).sum())

    noise = difference_rounding(to_host(hidden) * c)
    for path, g in flatten(to_host(dp)).items():
        d = rng.normal(size=g.shape)
        ahead, behind = (value(host | {path: host[path] + h * d}) for h in (1e-5, -1e-5))
        assert abs((ahead - behind) / 2e-5 - (g * d).sum()) < 1e-7 * np.abs(g * d).sum() + noise, path
    embeds = rng.normal(size=(3, 5, 6))
    _, dembeds = decode(model, embeds=to_device(embeds, device))[1](to_device(c, device))
    d = rng.normal(size=embeds.shape)
    ahead, behind = (value(host, embeds + h * d) for h in (1e-5, -1e-5))
    exact = (to_host(dembeds) * d).sum()
    assert abs((ahead - behind) / 2e-5 - exact) < 1e-7 * np.abs(to_host(dembeds) * d).sum() + noise


@each_family
def test_every_mask_of_the_decoder_has_a_key_of_its_own(monkeypatch, family):
    model = tiny(family, "body", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    keys = keys_of_masks(monkeypatch, lambda: decode(model, key=sample_keys(5, np.arange(3))))
    assert len(set(keys)) == len(keys) > 3 * len(model.params["body"]["layers"])


@each_family
def test_the_decoders_gradients_come_the_same_in_every_way(family):
    """With checkpointing, with once, layer by layer, and with frozen lower layers."""
    model = tiny(family, "body", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    key = sample_keys(5, np.arange(3))
    hidden, backward = decode(model, key=key)
    c = np.random.default_rng(0).normal(size=hidden.shape)
    dp, _ = backward(c)
    assert equal(dp, backward(c)[0]) and not equal([hidden], [decode(model)[0]])
    for options in ({"checkpointing": 2}, {"once": True}):
        again, back = decode(model, key=key, **options)
        assert equal([again], [hidden]) and equal(back(c)[0], dp)
    given = {}
    rest, _ = decode(model, key=key, on_gradient=lambda i, d: given.__setitem__(i, d))[1](c)
    assert rest["layers"] == [None] * 3 and equal({**rest, "layers": [given[i] for i in range(3)]}, dp)
    part, _ = decode(model, key=key, frozen=2)[1](c)
    assert part["layers"][:2] == [None, None] and equal(part["layers"][2], dp["layers"][2])
    assert not part["tokens"].any() and equal(part["decoder_positions"], dp["decoder_positions"])


@each_family
def test_masked_language_modelling_with_the_decoder(family):
    """In a model whose family uses the decoder as its body: the gradient of the loss by central differences."""
    model = tiny(family)
    family = SimpleNamespace(body=model.family.decoder_body, TASKS=model.family.TASKS, INPUTS=model.family.INPUTS)
    targets = {"logits": np.where((PADDING == 1) & (IDS % 2 == 0), IDS, -100)}

    def loss(params, grad=True):
        decoder = EncoderModel(family, model.config, params, task="masked_lm")
        return decoder.loss(targets=targets, input_ids=IDS, attention_mask=PADDING, grad=grad)

    gradient = loss(model.params)[1](1.0)
    d = tree_map(lambda a: np.random.default_rng(a.size).normal(size=a.shape), model.params)
    ahead, behind = (loss(tree_map(lambda a, b, h=h: a + h * b, model.params, d), grad=False)[0] for h in (1e-5, -1e-5))
    products = [a * b for a, b in zip(leaves(gradient), leaves(d), strict=True)]
    bound = 1e-7 * sum(np.abs(x).sum() for x in products) + difference_rounding(ahead)
    assert abs((ahead - behind) / 2e-5 - sum(x.sum() for x in products)) < bound


def test_a_decoder_takes_the_place_of_the_last_of_two_layers():
    model = tiny("deberta", "body", num_hidden_layers=1)
    with pytest.raises(ValueError, match="mask decoder: expected at least 2 layers, got 1"):
        decode(model)

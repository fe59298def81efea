# ruff: noqa: E402 - imports follow importorskip
"""Encoder-decoders: T5's buckets and relative position bias, and the formulas of whole models, against transformers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.t5.modeling_t5 import T5Attention

from reference.layers.activation import relu, silu
from reference.models import encoder_decoder as ref
from tests.interop.pair import as_torch, assert_same, float64, random_model
from tinyplm.layers.relative_bias import relative_bias
from tinyplm.layers.relative_buckets import t5_buckets, t5_rows

# ------------------------------------------------------------------------------------------------- relative position bias

BUCKETS = [4, 5, 8, 12, 20, 31, 32, 33, 48, 64, 100, 128, 256, 320]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("longest", [20, 64, 100, 127, 128, 129, 200, 512, 1000, 16384])
def test_buckets(longest, bidirectional):
    """The logarithm is float32 on both sides; 32 buckets up to 128 are the published models'."""
    d = np.arange(-20_000, 20_001)
    compared = 0
    for buckets in BUCKETS:
        if (buckets // 2 if bidirectional else buckets) // 2 < longest:
            settings = {"bidirectional": bidirectional, "num_buckets": buckets, "max_distance": longest}
            expected = T5Attention._relative_position_bucket(torch.from_numpy(d), **settings).numpy()
            ours = t5_buckets(d, buckets=buckets, longest=longest, bidirectional=bidirectional)
            np.testing.assert_array_equal(ours, expected, err_msg=f"{buckets} buckets")
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (7, 7), (40, 40), (1, 40), (3, 40)])
def test_the_bias_and_its_gradient(T, S, decoder):
    """Of all positions, and of the last T of S, as with a cache."""
    config = transformers.T5Config(num_heads=3, relative_attention_num_buckets=8, relative_attention_max_distance=20,
                                   is_decoder=decoder)  # fmt: skip
    theirs = T5Attention(config, has_relative_attention_bias=True).double()
    expected = theirs.compute_bias(T, S, past_seen_tokens=S - T)
    table = theirs.relative_attention_bias.weight
    rows = t5_rows(T, S, buckets=8, longest=20, bidirectional=not decoder)
    bias, backward = relative_bias(table.detach().numpy(), rows=rows, keys=S)
    assert_same("bias", bias, expected.detach().numpy())
    cotangent = np.random.default_rng(0).normal(size=bias.shape)
    expected.backward(torch.from_numpy(cotangent))
    assert_same("the gradient of the table", backward(cotangent), table.grad.numpy())


# ---------------------------------------------------------------------------------------- whole models: reference/models

POST_NORM = {
    "vocab_size": 19, "d_model": 8, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 10, "decoder_ffn_dim": 12, "max_position_embeddings": 14,
    "pad_token_id": 1, "bos_token_id": None, "eos_token_id": None, "forced_eos_token_id": None, "decoder_start_token_id": 1,
}  # fmt: skip
T5 = {
    "vocab_size": 19, "d_model": 8, "d_kv": 3, "d_ff": 12, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 5, "decoder_start_token_id": 0,
}  # fmt: skip


def peer(model, config, **settings):
    """transformers' model, and Marian's positions in float64."""
    theirs = random_model(model, config(**settings, attn_implementation="eager"))
    frozen = {name: p for name, p in theirs.named_parameters() if not p.requires_grad}
    with torch.no_grad():
        for p in frozen.values():
            p.copy_(sines_then_cosines(p))
    assert [name.split(".")[-2] for name in frozen] == (["embed_positions"] * 2 if config.model_type == "marian" else [])
    return theirs


def sines_then_cosines(rounded):
    """Marian's table, which transformers rounds to float32, unrounded."""
    places, width = rounded.shape
    angles = np.arange(places)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    table = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    assert torch.equal(table.float(), rounded.float())
    return table


class Tensors:
    """A model's tensors by their names, for trees of weights (in, out)."""

    def __init__(self, theirs):
        self.named = {name: t.detach().numpy() for name, t in theirs.state_dict().items()}

    def norm(self, at):
        return {ours: self.named[f"{at}.{n}"] for ours, n in (("gamma", "weight"), ("beta", "bias")) if f"{at}.{n}" in self.named}

    def linear(self, names):
        """{W1, b1, ...} of {"1": the name of a layer, ...}, without biases where there are none."""
        tree = {f"W{n}": self.named[f"{at}.weight"].T for n, at in names.items()}
        return tree | {f"b{n}": self.named[f"{at}.bias"] for n, at in names.items() if f"{at}.bias" in self.named}


def bart_parameters(theirs, sides):
    """Of BART and Marian; sides: what an encoder and a decoder have besides layers, {ours: (reader, name)}."""
    tensors = Tensors(theirs)

    def attention(at):
        return tensors.linear({n: f"{at}.{theirs}_proj" for n, theirs in zip("qkvo", ("q", "k", "v", "out"))})

    def layer(at, decoder):
        norms = ["self_attn_layer_norm", *["encoder_attn_layer_norm"] * decoder, "final_layer_norm"]
        p = {f"norm{n}": tensors.norm(f"{at}.{name}") for n, name in enumerate(norms, 1)}
        p |= {"attention": attention(f"{at}.self_attn"), "mlp": tensors.linear({n: f"{at}.fc{n}" for n in "12"})}
        return p | ({"cross": attention(f"{at}.encoder_attn")} if decoder else {})

    def side(name, layers):
        at = f"model.{name}"
        tree = {"layers": [layer(f"{at}.layers.{i}", name == "decoder") for i in range(layers)]}
        return tree | {ours: getattr(tensors, kind)(f"{at}.{n}") for ours, (kind, n) in sides.items()}

    return {
        "tokens": tensors.named["model.shared.weight"],
        "encoder": side("encoder", theirs.config.encoder_layers),
        "decoder": side("decoder", theirs.config.decoder_layers),
        "logits_bias": tensors.named["final_logits_bias"][0],
    }


def t5_parameters(theirs):
    tensors, gated = Tensors(theirs), theirs.config.is_gated_act

    def layer(at, decoder):
        names = [("attention", "SelfAttention"), *[("cross", "EncDecAttention")] * decoder]
        p = {f"norm{n + 1}": tensors.norm(f"{at}.layer.{n}.layer_norm") for n in range(len(names) + 1)}
        for n, (ours, name) in enumerate(names):
            p[ours] = tensors.linear({q: f"{at}.layer.{n}.{name}.{q}" for q in "qkvo"})
        parts = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"1": "wi", "2": "wo"}
        mlp = f"{at}.layer.{len(names)}.DenseReluDense"
        return p | {"mlp": tensors.linear({ours: f"{mlp}.{name}" for ours, name in parts.items()})}

    def side(name, layers):
        table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return {
            "layers": [layer(f"{name}.block.{i}", name == "decoder") for i in range(layers)],
            "norm": tensors.norm(f"{name}.final_layer_norm"),
            "relative_bias": tensors.named[table],
        }

    return {
        "tokens": tensors.named["shared.weight"],
        "encoder": side("encoder", theirs.config.num_layers),
        "decoder": side("decoder", theirs.config.num_decoder_layers),
        **({} if theirs.lm_head.weight is theirs.shared.weight else {"head": tensors.linear({"": "lm_head"})}),
    }


def assert_formula(theirs, formula, params, **settings):
    """Logits at real tokens, with padding on the right of both sides; S and T differ."""
    rng = np.random.default_rng(1)
    ids, decoder_ids = rng.integers(2, 19, (2, 6)), rng.integers(2, 19, (2, 5))
    mask, decoder_mask = np.arange(6) < [[6], [4]], np.arange(5) < [[3], [5]]
    masks = {"attention_mask": mask.astype(int), "decoder_attention_mask": decoder_mask.astype(int)}
    with float64(), torch.no_grad():
        expected = theirs(**as_torch(input_ids=ids, decoder_input_ids=decoder_ids, **masks)).logits.numpy()
    logits = formula(params, ids, decoder_ids, mask=mask, decoder_mask=decoder_mask, **settings)
    assert_same("logits", logits[decoder_mask], expected[decoder_mask])
    without = formula(params, ids[:1], decoder_ids[:1, :3], **settings)
    assert_same("logits without padding", without, expected[:1, :3])


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("name", "activation"), [("relu", relu), ("swish", silu)])
def test_the_formula_of_the_transformer_of_2017_is_marian(name, activation, scaled):
    theirs = peer(transformers.MarianMTModel, transformers.MarianConfig, **POST_NORM, activation_function=name,
                  scale_embedding=scaled)  # fmt: skip
    assert_formula(theirs, ref.transformer, bart_parameters(theirs, {}), heads=2, decoder_heads=4, activation=activation,
                   scaled=scaled, halves=True)  # fmt: skip


def test_the_order_of_the_sines_is_a_permutation_of_the_width():
    """What `halves` says of Marian: its models are the paper's with components in another order."""
    theirs = peer(transformers.MarianMTModel, transformers.MarianConfig, **POST_NORM, activation_function="relu")
    params = bart_parameters(theirs, {})
    order = np.argsort(np.r_[0:8:2, 1:8:2])

    def permuted(tree):
        if isinstance(tree, list):
            return [permuted(branch) for branch in tree]
        if isinstance(tree, dict):
            return {name: permuted(a) if isinstance(a, (dict, list)) else moved(name, a) for name, a in tree.items()}

    def moved(name, a):
        rows = name in ("Wq", "Wk", "Wv", "W1")
        columns = name in ("Wo", "W2", "bo", "b2", "gamma", "beta", "tokens")
        return a[order] if rows else a[..., order] if columns else a

    rng = np.random.default_rng(2)
    ids, decoder_ids = rng.integers(0, 19, (1, 6)), rng.integers(0, 19, (1, 5))
    settings = {"heads": 2, "decoder_heads": 4}
    assert_same(
        "logits",
        ref.transformer(permuted(params), ids, decoder_ids, **settings),
        ref.transformer(params, ids, decoder_ids, **settings, halves=True),
    )


@pytest.mark.parametrize("scaled", [True, False])
def test_the_formula_of_bart(scaled):
    theirs = peer(transformers.BartForConditionalGeneration, transformers.BartConfig, **POST_NORM, scale_embedding=scaled)
    params = bart_parameters(theirs, {"embedding_norm": ("norm", "layernorm_embedding")})
    for side in ("encoder", "decoder"):
        params[side]["positions"] = Tensors(theirs).named[f"model.{side}.embed_positions.weight"]
    assert_formula(theirs, ref.bart, params, heads=2, decoder_heads=4, scaled=scaled)


@pytest.mark.parametrize(("tied", "scaled"), [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_the_formula_of_t5(projection, tied, scaled):
    """transformers 5 always ties the head of a new T5; one of its own comes from a file, or is set here."""
    theirs = peer(transformers.T5ForConditionalGeneration, transformers.T5Config, **T5, feed_forward_proj=projection,
                  scale_decoder_outputs=scaled)  # fmt: skip
    if not tied:
        theirs.lm_head.weight = torch.nn.Parameter(torch.from_numpy(np.random.default_rng(3).normal(size=(19, 8))))
    settings = {} if tied == scaled else {"scaled": scaled}
    assert_formula(theirs, ref.t5, t5_parameters(theirs), heads=2, buckets=8, longest=5, gated=projection != "relu", **settings)

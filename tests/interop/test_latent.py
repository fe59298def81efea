# ruff: noqa: E402 - imports follow importorskip
"""Latent attention against transformers' DeepseekV2Attention and DeepseekV3Attention in float64: values, all gradients, a cache.

1e-9, largest difference over largest value: see pair.py.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.cache_utils import DynamicCache
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3

from tests.interop.pair import TOLERANCE, float64
from tests.laws import relative_error
from tinyplm.kernels.latent import latent_attention as fast
from tinyplm.layers.cache import Cache, layer_cache
from tinyplm.layers.latent import absorbed_attention, latent_attention
from tinyplm.layers.mask import causal_mask
from tinyplm.layers.rope import rope, rotary_tables
from tinyplm.layers.rope_scaling import yarn_score_scale
from tinyplm.models.rope import read_rope

D, H, C, E, R, E2, T = 12, 3, 6, 4, 6, 5, 9
PLAIN = {"rope_type": "default", "rope_theta": 50.0}
YARN = {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0,
        "beta_slow": 1.0}  # fmt: skip
ROPES = {
    "plain": PLAIN,
    "yarn as in DeepSeek-V3": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    "yarn as in DeepSeek-V2-Lite": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    "yarn, unequal": {**YARN, "mscale": 1.3, "mscale_all_dim": 0.6},
    "yarn, no mscale_all_dim": {**YARN, "mscale": 1.3},
    "yarn of factor 1": {**YARN, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
}
VERSIONS = {"v2": (v2.DeepseekV2Attention, v2.DeepseekV2RotaryEmbedding, DeepseekV2Config),
            "v3": (v3.DeepseekV3Attention, v3.DeepseekV3RotaryEmbedding, DeepseekV3Config)}  # fmt: skip
FORMS = {"expanded": latent_attention, "absorbed": absorbed_attention}


class Pair:
    """Their attention and rotary module with random parameters, and ours from the same numbers."""

    def __init__(self, version, rope_parameters, *, q_lora_rank=7, bias=False, interleaved=True, seed=0):
        attention, rotary, config = VERSIONS[version]
        more = {"rope_interleave": interleaved} if version == "v3" else {}
        self.config = config(
            hidden_size=D, num_attention_heads=H, num_key_value_heads=H, q_lora_rank=q_lora_rank, kv_lora_rank=C,
            qk_nope_head_dim=E, qk_rope_head_dim=R, v_head_dim=E2, attention_bias=bias, rope_parameters=dict(rope_parameters),
            max_position_embeddings=64, rms_norm_eps=0.3, num_hidden_layers=1, attn_implementation="eager", **more,
        )  # fmt: skip
        with float64():
            self.theirs, self.rotary = attention(self.config, 0).double().eval(), rotary(self.config)
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for a in self.theirs.parameters():
                a.copy_(torch.from_numpy(rng.normal(0, 0.6, a.shape)))
        self.p = ours({name: a.detach().numpy() for name, a in self.theirs.named_parameters()})
        settings = read_rope(rope_parameters, None, None, 64)
        self.frequencies, self.magnitude = settings.frequencies(R, 64)
        self.interleaved = interleaved
        yarn = rope_parameters["rope_type"] == "yarn"
        more_scale = (
            yarn_score_scale(rope_parameters["factor"], mscale_all_dim=rope_parameters.get("mscale_all_dim")) if yarn else 1
        )
        self.scale = (E + R) ** -0.5 * more_scale

    def options(self, positions, mask):
        cos, sin = rotary_tables(positions, self.frequencies, magnitude=self.magnitude, dtype="float64")
        turn = partial(rope, cos=cos, sin=sin, interleaved=self.interleaved)
        return {"heads": H, "rotary": turn, "scale": self.scale, "mask": mask}

    def call(self, x, positions, mask, cache=None):
        with float64():
            embeddings = self.rotary(x, torch.from_numpy(positions))
            added = torch.zeros(mask.shape).double().masked_fill(~torch.from_numpy(mask), -1e300)
            return self.theirs(x, position_embeddings=embeddings, attention_mask=added, cache=cache)[0]


def ours(hub):
    """Their tensors, or gradients of them, under our names: matrices are (out, in) there, and two of them hold two of ours."""
    p = {}
    single = {
        "q_proj.weight": "Wq",
        "q_a_proj.weight": "Wdq",
        "q_a_proj.bias": "bdq",
        "q_a_layernorm.weight": "q_norm",
        "q_b_proj.weight": "Wuq",
        "kv_a_layernorm.weight": "kv_norm",
        "o_proj.weight": "Wo",
        "o_proj.bias": "bo",
    }
    for name, a in hub.items():
        a = a.T
        if name in single:
            p[single[name]] = a
        elif name.startswith("kv_a_proj_with_mqa"):
            kind = "b" if name.endswith("bias") else "W"
            p[f"{kind}dkv"], p[f"{kind}kr"] = a[..., :C], a[..., C:]
        else:
            by_head = a.reshape(C, H, E + E2)
            p["Wuk"], p["Wuv"] = by_head[..., :E].reshape(C, H * E), by_head[..., E:].reshape(C, H * E2)
    return p


def inputs(seed=1, padded=(0, 3)):
    """x, positions and mask of left-padded samples; padding sees itself, since transformers averages where nothing is seen."""
    x = np.random.default_rng(seed).normal(size=(len(padded), T, D))
    seen = np.arange(T) >= np.array(padded)[:, None]
    positions = np.maximum(np.cumsum(seen, axis=1) - 1, 0)
    return x, positions, (causal_mask(T) & seen[:, None, None]) | np.eye(T, dtype=bool)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("q_lora_rank", [7, None])
@pytest.mark.parametrize("rope_name", ROPES)
def test_values_and_gradients(version, q_lora_rank, rope_name, form):
    """The norms' eps is 1e-6 though the config says 0.3."""
    pair = Pair(version, ROPES[rope_name], q_lora_rank=q_lora_rank, bias=rope_name != "plain")
    check(pair, FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_pairs_of_halves(form):
    check(Pair("v3", ROPES["yarn as in DeepSeek-V3"], interleaved=False), FORMS[form])


def check(pair, f):
    x, positions, mask = inputs()
    theirs_x = torch.from_numpy(x.copy()).requires_grad_()
    expected = pair.call(theirs_x, positions, mask)
    y, back = f(pair.p, x, **pair.options(positions, mask))
    assert relative_error(y, expected.detach().numpy()) < TOLERANCE
    dy = np.random.default_rng(2).normal(size=y.shape)
    expected.backward(torch.from_numpy(dy))
    dp, dx = back(dy)
    assert relative_error(dx, theirs_x.grad.numpy()) < TOLERANCE
    gradients = ours({name: a.grad.numpy() for name, a in pair.theirs.named_parameters()})
    assert gradients.keys() == dp.keys() == pair.p.keys()
    for name, a in gradients.items():
        assert np.any(a) and relative_error(dp[name], a) < TOLERANCE, name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", [*FORMS.values(), fast], ids=["expanded", "absorbed", "kernel"])
def test_with_a_cache(version, form):
    """Both keep c and k_r alone: a prompt, one token, two, and the same contents at the end."""
    pair = Pair(version, ROPES["yarn as in DeepSeek-V3"])
    x, positions, mask = inputs()
    theirs = DynamicCache(config=pair.config)
    sizes = {"layers": 1, "kv_heads": 1, "width": {"c": C, "k_r": R}}
    cache = Cache.empty(**sizes, batch=2, capacity=T, dtype="float64")
    for lo, hi in ((0, 5), (5, 6), (6, 8), (8, 9)):
        seen = mask[:, :, lo:hi, :hi]
        with torch.no_grad():
            expected = pair.call(torch.from_numpy(x[:, lo:hi]), positions[:, lo:hi], seen, theirs).numpy()
        cache.begin()
        y, _ = form(pair.p, x[:, lo:hi], cache=layer_cache(cache, 0), **pair.options(positions[:, lo:hi], seen))
        cache = cache.advanced(hi - lo)
        assert relative_error(y, expected) < TOLERANCE
    layer = theirs.layers[0]
    assert relative_error(cache.layers[0]["c"], layer.keys.numpy()) < TOLERANCE
    assert layer.values.shape == cache.layers[0]["k_r"].shape


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rope_name", ROPES)
def test_the_scale_is_theirs(version, rope_name):
    pair = Pair(version, ROPES[rope_name])
    assert pair.theirs.scaling == pytest.approx(pair.scale, rel=1e-15)

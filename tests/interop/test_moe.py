# ruff: noqa: E402 - imports follow importorskip
"""Mixtures of experts against transformers in float64: values, and every gradient by torch's autograd, to 1e-9.

Its modules compute in float32 in places; tests.interop.pair.float64 makes those requests mean float64.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.qwen2_moe import modeling_qwen2_moe as qwen2_moe

from tests.laws import relative_error
from tinyplm.core import flatten
from tinyplm.layers.activation import silu
from tinyplm.layers.mlp import clamped_gated_mlp, gated_mlp
from tinyplm.layers.moe import moe, moe_and_logits, sigmoid_gated
from tinyplm.layers.routing import sigmoid_choice, sigmoid_weights, softmax_weights, top_experts
from tinyplm.losses.balance import load_balancing_loss

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("in_float64")

TOLERANCE = 1e-9
D, F, X, SHAPE = 5, 3, 8, (2, 7)
EXPERT = partial(gated_mlp, activation=silu)
SMALL = {"hidden_size": D, "intermediate_size": F, "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
GROUPS = {"n_routed_experts": X, "n_shared_experts": 2, "moe_intermediate_size": F, "num_experts_per_tok": 3,
          "routed_scaling_factor": 2.5, "n_group": 4, "topk_group": 2}  # fmt: skip


def random_module(module, seed):
    """The module in float64 with every parameter and buffer random."""
    rng = np.random.default_rng(seed)
    module = module.double().eval()
    with torch.no_grad():
        for a in [*module.parameters(), *module.buffers()]:
            a.copy_(torch.from_numpy(rng.normal(0, 0.5, a.shape)))
    return module


def oriented(theirs):
    """What a module holds, as a function of its name: matrices as ours, (in, out)."""
    return lambda name: theirs[name].swapaxes(-1, -2) if theirs[name].ndim > 1 else theirs[name]


def stacked(get):
    """Gate and up are one matrix there, the gate first."""
    both = get("experts.gate_up_proj")
    return {"Wgate": both[..., :F], "Wup": both[..., F:], "Wdown": get("experts.down_proj")}


def dense(get, name):
    return {f"W{n}": get(f"{name}.{n}_proj.weight") for n in ("gate", "up", "down")}


def mixtral_tree(get):
    return {"router": {"W": get("gate.weight")}, "experts": stacked(get)}


def qwen_tree(get):
    shared = {"w": get("shared_expert_gate.weight"), "mlp": dense(get, "shared_expert")}
    return {**mixtral_tree(get), "shared": shared}


def deepseek_tree(get):
    return {**mixtral_tree(get), "shared": dense(get, "shared_experts")}


def gpt_oss_tree(get):
    """There gate and up alternate, and experts, unlike the router, are (in, out)."""
    both, b = get("experts.gate_up_proj").swapaxes(1, 2), get("experts.gate_up_proj_bias").swapaxes(0, 1)
    p = {"Wgate": both[..., ::2], "Wup": both[..., 1::2], "Wdown": get("experts.down_proj").swapaxes(1, 2)}
    p |= {"bgate": b[..., ::2], "bup": b[..., 1::2], "bdown": get("experts.down_proj_bias").swapaxes(0, 1)}
    return {"router": {"W": get("router.weight"), "b": get("router.bias")}, "experts": p}


def deepseek(config, **changes):
    return config(**{**SMALL, **GROUPS, **changes})


def qwen(**changes):
    sizes = {"num_experts": X, "moe_intermediate_size": F, "shared_expert_intermediate_size": 4, "num_experts_per_tok": 3}
    return qwen2_moe.Qwen2MoeSparseMoeBlock(transformers.Qwen2MoeConfig(**SMALL, **sizes, **changes))


def routing(choose, weigh, top_k=3, **more):
    return {"choose": partial(choose, top_k=top_k, **more), "weigh": weigh}


SHARED = {"expert": EXPERT, "shared": EXPERT}
GATED = {"expert": EXPERT, "shared": partial(sigmoid_gated, f=EXPERT)}
HALF = {"groups": 4, "kept_groups": 2}
RENORMALISED = partial(softmax_weights, renormalised=True)
RAW = partial(sigmoid_weights, renormalised=False, scale=2.5)
PAIRS = {
    "mixtral": (lambda: mixtral.MixtralSparseMoeBlock(transformers.MixtralConfig(
                    **SMALL, num_local_experts=X, num_experts_per_tok=2)),
                mixtral_tree, {**routing(top_experts, RENORMALISED, 2), "expert": EXPERT}),
    "qwen2_moe": (qwen, qwen_tree, {**routing(top_experts, softmax_weights), **GATED}),
    "qwen2_moe, renormalised": (partial(qwen, norm_topk_prob=True), qwen_tree, {**routing(top_experts, RENORMALISED), **GATED}),
    "deepseek_v2": (lambda: v2.DeepseekV2Moe(deepseek(transformers.DeepseekV2Config, topk_method="greedy")),
                    deepseek_tree, {**routing(top_experts, partial(softmax_weights, scale=2.5)), **SHARED}),
    "deepseek_v2, groups": (lambda: v2.DeepseekV2Moe(deepseek(transformers.DeepseekV2Config, topk_method="group_limited_greedy")),
                            deepseek_tree, {**routing(top_experts, partial(softmax_weights, scale=2.5), **HALF), **SHARED}),
    "deepseek_v3": (lambda: v3.DeepseekV3MoE(deepseek(transformers.DeepseekV3Config, norm_topk_prob=True)),
                    deepseek_tree, {**routing(sigmoid_choice, partial(sigmoid_weights, scale=2.5), **HALF), **SHARED}),
    "deepseek_v3, raw": (lambda: v3.DeepseekV3MoE(deepseek(transformers.DeepseekV3Config, norm_topk_prob=False)),
                         deepseek_tree, {**routing(sigmoid_choice, RAW, **HALF), **SHARED}),
    "gpt_oss": (lambda: gpt_oss.GptOssMLP(transformers.GptOssConfig(**SMALL, num_local_experts=X, num_experts_per_tok=3)),
                gpt_oss_tree, {**routing(top_experts, RENORMALISED), "expert": clamped_gated_mlp}),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PAIRS)
def test_mixtures(name, seed):
    make, tree, settings = PAIRS[name]
    module, rng = random_module(make(), seed), np.random.default_rng([seed, 1])
    # GPT-OSS clamps at 7: large inputs bring some values beyond
    x = rng.normal(0, 8.0 if name == "gpt_oss" else 1.0, (*SHAPE, D))
    theirs_x = torch.from_numpy(x).requires_grad_()
    expected = module(theirs_x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    dy = rng.normal(size=x.shape)
    expected.backward(torch.from_numpy(dy))

    arrays = {n: a.detach().numpy() for n, a in [*module.named_parameters(), *module.named_buffers()]}
    y, backward = moe(tree(oriented(arrays)), x, **settings, bias=arrays.get("gate.e_score_correction_bias"))
    dp, dx = backward(dy)
    assert relative_error(y, expected.detach().numpy()) < TOLERANCE
    assert relative_error(dx, theirs_x.grad.numpy()) < TOLERANCE
    grads = {n: a.grad.numpy() for n, a in module.named_parameters()}
    theirs = flatten(tree(oriented(grads)))
    ours = flatten(dp)
    assert ours.keys() == theirs.keys()
    for path, g in theirs.items():
        assert relative_error(ours[path], g) < TOLERANCE, path
        assert np.any(g), f"{path}: a zero gradient proves nothing"


def test_gpt_oss_clamps_in_the_test_above():
    module = random_module(PAIRS["gpt_oss"][0](), 0)
    x = np.random.default_rng([0, 1]).normal(0, 8.0, (*SHAPE, D))
    both = np.einsum("ntd,xdf->ntxf", x, module.experts.gate_up_proj.detach().numpy())
    assert 0.05 < np.mean(np.abs(both) > 7) < 0.9


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_load_balancing_loss(masked, top_k):
    """Over three layers together."""
    rng = np.random.default_rng(top_k)
    logits = rng.normal(0, 2, (3, *SHAPE, X))
    mask = (rng.random(SHAPE) < 0.7) if masked else np.ones(SHAPE, bool)
    tensors = tuple(torch.from_numpy(a.reshape(-1, X)).requires_grad_() for a in logits)
    expected = mixtral.load_balancing_loss_func(tensors, X, top_k, torch.from_numpy(mask.astype(int)) if masked else None)
    (1.7 * expected).backward()
    choice, weights = top_experts(logits, top_k=top_k), np.broadcast_to(mask * 1.0, logits.shape[:-1])
    loss, backward = load_balancing_loss(logits, choice=choice, weights=weights if masked else None)
    assert relative_error(loss, expected.item()) < TOLERANCE
    theirs = np.stack([a.grad.numpy() for a in tensors]).reshape(logits.shape)
    assert relative_error(backward(1.7), theirs) < TOLERANCE


def test_the_routers_logits_carry_gradients_of_a_loss():
    """The whole of Mixtral's training signal of one block: its output, and the balance of its router."""
    make, tree, settings = PAIRS["mixtral"]
    module, rng = random_module(make(), 5), np.random.default_rng(5)
    x, dy = rng.normal(size=(*SHAPE, D)), rng.normal(size=(*SHAPE, D))
    theirs_x = torch.from_numpy(x).requires_grad_()
    logits, _, _ = module.gate(theirs_x.reshape(-1, D))
    balance = mixtral.load_balancing_loss_func((logits,), X, 2)
    ((module(theirs_x) * torch.from_numpy(dy)).sum() + 0.3 * balance).backward()
    p = tree(oriented({n: a.detach().numpy() for n, a in module.named_parameters()}))
    y, backward = moe_and_logits(p, x, **settings)
    _, loss_back = load_balancing_loss(y["logits"], choice=y["choice"])
    dp, dx = backward({"hidden": dy, "logits": loss_back(0.3)})
    assert relative_error(dx, theirs_x.grad.numpy()) < TOLERANCE
    assert relative_error(dp["router"]["W"], module.gate.weight.grad.numpy().T) < TOLERANCE

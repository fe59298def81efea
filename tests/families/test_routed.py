"""Decoders with experts: published counts, all and active; the whole models by the formulas; what is refused."""

from __future__ import annotations

from functools import partial

import pytest

import reference.layers.moe as ref_moe
import tinyplm
from tests.laws import MODEL, relative_error
from tests.support import families
from tests.support.decoder_formulas import assert_formula, rms, swiglu, turn
from tests.support.families import batch
from tests.support.sizes import assert_refused
from tinyplm.families import FAMILIES, family, mixtral, qwen2_moe, qwen3_moe
from tinyplm.hub.names import count_parameters
from tinyplm.models.routed import active_parameters, is_routed

# {size: (parameters, active ones, both as published in billions)}.  Without the token table DeepSeek counts the active 2.4B of
# V2-Lite, and OpenAI those of gpt-oss.
COUNTS = {
    "mixtral-8x7b": (46_702_792_704, 12_879_925_248, 46.7, 12.9),
    "mixtral-8x22b": (140_620_634_112, 39_152_031_744, 141, 39),
    "qwen1.5-moe-a2.7b": (14_315_784_192, 2_689_173_504, 14.3, 2.7),
    "qwen2-57b-a14b": (57_408_658_944, 14_249_270_784, 57.4, 14.2),
    "qwen3-30b-a3b": (30_532_122_624, 3_353_032_704, 30.5, 3.3),
    "qwen3-235b-a22b": (235_093_634_560, 22_190_763_520, 235, 22),
    "deepseek-v2-lite": (15_706_484_224, 2_661_150_208, 15.7, 2.4 + 0.21),
    "deepseek-v2": (235_741_434_880, 21_375_800_320, 236, 21),
    "gpt-oss-20b": (20_914_757_184, 4_187_440_704, 20.9, 3.6 + 0.58),
    "gpt-oss-120b": (116_829_156_672, 5_711_982_912, 116.8, 5.1 + 0.58),
    "deepseek-v3": (671_026_404_352, 37_552_282_624, 671, 37),
}
ROUTED = [name for name in FAMILIES if is_routed(family(name))]


def test_published_sizes_have_the_published_counts():
    """To 2%, which is how far rounding 39.15 to 39 or 3.35 to 3.3 can go."""
    found = {}
    for module in map(family, ROUTED):
        for size, config in module.SIZES.items():
            shapes = module.shapes(config)
            found[size] = count_parameters(shapes), active_parameters(shapes, config.top_k)
    assert found == {size: row[:2] for size, row in COUNTS.items()}
    for size, (whole, active, published, published_active) in COUNTS.items():
        assert whole == pytest.approx(1e9 * published, rel=0.02), size
        assert active == pytest.approx(1e9 * published_active, rel=0.02), size


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ROUTED)
def test_a_model_tells_its_active_parameters(name, tied):
    """Those of a model whose router has as many experts as a token sees, and the rest of its router."""
    model = families.tiny(name, tie_word_embeddings=tied)
    config, layers = model.config, model.params["body"]["layers"]
    sparse = [layer["mlp"] for layer in layers if "router" in layer["mlp"]]
    each = sum(a[0].size for a in sparse[0]["experts"].values())
    unseen = len(sparse) * (config.experts - config.top_k) * each
    assert model.active_parameter_count() == model.parameter_count() - unseen > 0
    assert f"{model.active_parameter_count():,} active" in repr(model)
    decoding, ids = model.for_decoding(), batch()[0]
    assert decoding.active_parameter_count() == model.active_parameter_count()
    assert relative_error(decoding(ids, grad=False)[0]["logits"], model(ids, grad=False)[0]["logits"]) < MODEL
    assert "active" not in repr(families.tiny("llama"))


def test_with_all_experts_all_parameters_are_active():
    model = families.tiny("mixtral", num_experts_per_tok=4)
    assert model.active_parameter_count() == model.parameter_count() and "active" not in repr(model)


# ------------------------------------------------------------------------------------------------------------ the formulas


def mixture(top_k, renormalised):
    """A layer with experts by the papers, with the shared one of Qwen2-MoE if it has one; SwiGLU where a layer has none."""
    weigh = partial(ref_moe.softmax_weights, renormalised=renormalised)
    choose = partial(ref_moe.top_experts, top_k=top_k)

    def mlp(p, x):
        if "router" not in p:
            return swiglu(p, x)
        shared = partial(ref_moe.sigmoid_gated, f=swiglu) if "shared" in p else None
        both = ref_moe.moe(p, x, choose=choose, weigh=weigh, expert=swiglu, shared=shared)
        return both[:, : x.shape[1]]

    return mlp


CASES = {
    "mixtral": ("mixtral", {}, [None, None], (2, True)),
    "mixtral, a window": ("mixtral", {"sliding_window": 2, "num_experts_per_tok": 3}, [2, 2], (3, True)),
    "qwen2_moe": ("qwen2_moe", {}, [2, None], (2, False)),
    "qwen2_moe, renormalised, no biases": ("qwen2_moe", {"norm_topk_prob": True, "qkv_bias": False}, [2, None], (2, True)),
    "qwen2_moe, every second": ("qwen2_moe", {"decoder_sparse_step": 2, "max_window_layers": 0}, [None, None], (2, False)),
    "qwen2_moe, all dense": ("qwen2_moe", {"mlp_only_layers": [1, 0], "use_sliding_window": False}, [None, None], (2, False)),
    "qwen2_moe, layer types": ("qwen2_moe", {"layer_types": ["full_attention", "sliding_attention"]}, [None, 2], (2, False)),
    "qwen3_moe": ("qwen3_moe", {}, [None, None], (2, False)),
    "qwen3_moe, renormalised": ("qwen3_moe", {"norm_topk_prob": True, "num_experts_per_tok": 1}, [None, None], (1, True)),
    "qwen3_moe, the upper dense, a window": ("qwen3_moe", {"mlp_only_layers": [1], "use_sliding_window": True,
                                                           "sliding_window": 3}, [3, 3], (2, False)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_whole_model_equals_the_formulas(case):
    name, changes, windows, routing = CASES[case]
    model, norm = families.tiny(name, **changes), partial(rms, eps=families.FAMILIES[name].config.rms_norm_eps)
    head_norm = norm if name == "qwen3_moe" else None
    assert_formula(
        model, batch()[0], families.PADDING, norm=norm, heads=(4, 2), mlp=mixture(*routing),
        attention=lambda layer: {"window": windows[layer], "head_norm": head_norm, "turn": turn(10.0)},
    )  # fmt: skip


def test_dense_layers_have_no_outputs_of_a_router():
    ids = batch()[0]
    outputs, _ = families.tiny("qwen2_moe", decoder_sparse_step=2)(ids, grad=False)
    assert outputs["router_logits"].shape == (3, 5, 1, 4) and outputs["chosen_experts"].shape == (3, 5, 1, 2)
    model = families.tiny("qwen3_moe", mlp_only_layers=[0, 1])
    assert model(ids, grad=False)[0].keys() == {"logits", "hidden"}
    targets = {"logits": ids}
    plain, balanced = (model.loss(input_ids=ids, targets=targets, balance=b)[0] for b in (0.0, 1.0))
    assert plain == balanced and model.active_parameter_count() == model.parameter_count()


# ----------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        (mixtral.Config, {"num_experts_per_tok": 9}, "num_experts_per_tok: expected at most num_local_experts = 8, got 9"),
        (mixtral.Config, {"num_local_experts": 0}, "num_local_experts: expected a positive integer, got 0"),
        (mixtral.Config, {"router_jitter_noise": 0.1}, "router_jitter_noise: expected 0.0 for mixtral, got 0.1"),
        (mixtral.Config, {"router_aux_loss_coef": -1.0}, "router_aux_loss_coef: expected a finite number >= 0, got -1.0"),
        (qwen2_moe.Config, {"num_experts": 3}, "num_experts_per_tok: expected at most num_experts = 3, got 4"),
        (qwen2_moe.Config, {"decoder_sparse_step": 0}, "decoder_sparse_step: expected a positive integer, got 0"),
        (qwen2_moe.Config, {"mlp_only_layers": [0, -1]}, r"mlp_only_layers: expected numbers of layers, from 0, got \[0, -1\]"),
        (qwen2_moe.Config, {"mlp_only_layers": 1}, r"mlp_only_layers: expected list\[int\] \| None, got 1"),
        (qwen2_moe.Config, {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size: expected a positive"),
        (
            qwen2_moe.Config,
            {"use_sliding_window": True, "sliding_window": 0},
            "sliding_window: expected a positive integer, got 0",
        ),
        (qwen2_moe.Config, {"sliding_window": -1}, "sliding_window: expected a positive integer, got -1"),
        (qwen3_moe.Config, {"num_experts_per_tok": 0}, "num_experts_per_tok: expected a positive integer, got 0"),
        (qwen3_moe.Config, {"moe_intermediate_size": 0}, "moe_intermediate_size: expected a positive integer, got 0"),
        (qwen3_moe.Config, {"norm_topk_prob": 1}, "norm_topk_prob: expected bool, got 1"),
        (qwen3_moe.Config, {"sliding_window": 0}, "sliding_window: expected a positive integer, got 0"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(cls, changes, message):
    assert_refused(cls, changes, message)


def test_two_spellings_of_the_experts():
    """Released files of Qwen3-MoE say num_experts, those of transformers 5 num_local_experts: each keeps its own."""
    sizes = {"model_type": "qwen3_moe", **families.LLAMA_SHAPED, "moe_intermediate_size": 5, "num_experts_per_tok": 2}
    for spelling in ("num_experts", "num_local_experts"):
        model = tinyplm.create("qwen3_moe", {**sizes, spelling: 3})
        assert model.config.experts == 3
        written = tinyplm.models.config.to_dict(model.config)
        assert {name for name in written if "experts" in name and name != "num_experts_per_tok"} == {spelling}
    with pytest.raises(ValueError, match="num_local_experts: expected 4, the value of its synonym num_experts, got 3"):
        tinyplm.create("qwen3_moe", {**sizes, "num_experts": 4, "num_local_experts": 3})

"""Contexts, RoPE bases and epsilons of the sizes, as published configurations state them; parameter counts do not show them.

Checked against copies of the config.json files in public repositories and LitGPT's list of configurations.  Not yet found there:
Yi, Qwen 1 and 2, Qwen1.5-MoE, the bases of Qwen 3, InternLM 2 of 20B, GLM-4 9B base and 32B, OLMo 2 32B, Mistral Nemo's context.
"""

from __future__ import annotations

import pytest

from tinyplm.families import family

# family: {sizes: (context, RoPE's base, epsilon of the norms)}
PUBLISHED = {
    "llama": {
        "llama-2-7b llama-2-13b llama-2-70b": (4096, 1e4, 1e-5),
        "llama-3-8b llama-3-70b": (8192, 5e5, 1e-5),
        "llama-3.1-8b llama-3.1-70b llama-3.1-405b llama-3.2-1b llama-3.2-3b": (131072, 5e5, 1e-5),
    },
    "mistral": {"mistral-7b-v0.1": (32768, 1e4, 1e-5), "mistral-7b-v0.2 mistral-7b-v0.3": (32768, 1e6, 1e-5)},
    "qwen2": {
        "qwen2.5-0.5b qwen2.5-3b": (32768, 1e6, 1e-6),
        "qwen2.5-1.5b qwen2.5-7b": (131072, 1e6, 1e-6),
        "qwen2.5-14b qwen2.5-32b qwen2.5-72b": (131072, 1e6, 1e-5),
    },
    "qwen2_moe": {"qwen2-57b-a14b": (131072, 1e6, 1e-6)},
    "qwen3_moe": {"qwen3-235b-a22b": (40960, 1e6, 1e-6)},
    "qwen3": {"qwen3-32b": (40960, 1e6, 1e-6)},
    "gemma": {"gemma-2b gemma-7b": (8192, 1e4, 1e-6)},
    "gemma2": {"gemma-2-2b gemma-2-9b gemma-2-27b": (8192, 1e4, 1e-6)},
    "gemma3_text": {
        "gemma-3-270m gemma-3-1b": (32768, 1e6, 1e-6),
        "gemma-3-4b gemma-3-12b gemma-3-27b": (131072, 1e6, 1e-6),
    },
    "olmo2": {"olmo-2-1b olmo-2-7b olmo-2-13b": (4096, 5e5, 1e-6)},
    "phi3": {"phi-3-mini-4k": (4096, 1e4, 1e-5), "phi-4": (16384, 2.5e5, 1e-5)},
    "glm": {"glm-4-9b-chat": (131072, 5e6, 1.5625e-7)},
    "glm4": {"glm-4-9b-0414": (32768, 1e4, 1e-5)},
    "internlm": {"internlm-20b": (4096, 1e4, 1e-6)},
    "internlm2": {"internlm2-1.8b internlm2-7b": (32768, 1e6, 1e-5)},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_contexts_bases_and_epsilons(name):
    sizes = family(name).SIZES
    for chosen, (context, base, eps) in PUBLISHED[name].items():
        for size in chosen.split():
            config = sizes[size]
            assert (config.max_position_embeddings, config.rope.base, config.rms_norm_eps) == (context, base, eps), size


def test_gemma_3_has_the_published_windows_and_stretch():
    sizes = family("gemma3_text").SIZES
    for size, window, factor in (("1b", 512, None), ("4b", 1024, 8.0), ("12b", 1024, 8.0), ("27b", 1024, 8.0)):
        config = sizes[f"gemma-3-{size}"]
        assert (config.sliding_window, config.local_rope.base, config.rope.settings.get("factor")) == (window, 1e4, factor)

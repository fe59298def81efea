"""Counts from configs alone: parameters, multiply-adds and bytes, against loops, measured products and published numbers."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from tests.gpu import strict_functions
from tests.gpu.strict import register
from tests.support import encoder_families, families, seq2seq_families
from tinyplm import scaling
from tinyplm.core import flatten
from tinyplm.families import FAMILIES, architectures, check_task, family, mistral, palm, shapes_of
from tinyplm.families import gpt2 as gpt2_family
from tinyplm.hub.names import count_parameters
from tinyplm.models.routed import active_parameters
from tinyplm.optim import AdamW

register()


# ----------------------------------------------------------------------------------------------------------- parameters


def test_parts_add_up_to_all_parameters_of_every_family_and_task():
    """The first and the last size of each family; `tinyplm count --list` counts all."""
    for name in FAMILIES:
        module = family(name)
        sizes = list(module.SIZES.values())
        for config in (sizes[0], sizes[-1])[: len(sizes)]:
            for task in architectures(module):
                counts = scaling.parameters(module, config, task=task)
                shapes = shapes_of(module, config, check_task(module, task))
                assert sum(counts.values()) == count_parameters(shapes) and set(counts) <= set(scaling.PARTS)
                if ".experts." in str(flatten(shapes).keys()):
                    active = scaling.parameters(module, config, task=task, active=True)
                    assert sum(active.values()) == active_parameters(shapes, config.top_k) < sum(counts.values())
                    assert {part for part in counts if counts[part] != active[part]} == {"feed-forward"}


def test_the_parts_of_gpt2():
    """Radford et al. 2019: 12 layers of width 768, 1,024 places, 50,257 tokens; 124.4 million parameters."""
    D, V = 768, 50257
    assert scaling.parameters(gpt2_family, gpt2_family.SIZES["gpt2"]) == {
        "embeddings": (V + 1024) * D, "attention": 12 * (4 * D * D + 4 * D), "feed-forward": 12 * (8 * D * D + 5 * D),
        "norms": 25 * 2 * D,
    }  # fmt: skip


def test_the_largest_takes_milliseconds():
    module = family("deepseek_v3")
    config, begin = module.SIZES["deepseek-v3"], time.perf_counter()
    counts = scaling.parameters(module, config)
    memory = scaling.memory(module, config, dtype="bfloat16", context=4096)
    scaling.training_flops(module, config, batch=1, length=4096)
    assert time.perf_counter() - begin < 1  # a thousandth of the time that allocating takes, on a slow machine
    assert sum(counts.values()) == 671_026_404_352 and memory["weights"] == 2 * 671_026_404_352
    assert memory["moments"] == 8 * 671_026_404_352 and memory["cache"] == 61 * 576 * 4096 * 2


# ----------------------------------------------------------------------------------------------------------------- FLOPs


def product(rows, inner, columns, counter):
    """One product of matrices, and the two of its backward pass, each multiply-add counted alone."""
    for _ in range(rows):
        for _ in range(columns):
            for _ in range(inner):
                counter["forward"] += 1  # y[r, c] += x[r, i] W[i, c]
                counter["backward"] += 2  # dx[r, i] += dy[r, c] W[i, c];  dW[i, c] += x[r, i] dy[r, c]


def test_a_hand_written_loop_over_a_whole_step():
    """A Mistral with grouped keys and a window of 3: every multiply-add of its products, one by one."""
    config = mistral.Config(**families.LLAMA_SHAPED, sliding_window=3, tie_word_embeddings=False)
    D, H, K, E, F, V, T, B = 6, 4, 2, 4, 7, 11, 5, 2
    counter = {"forward": 0, "backward": 0}
    for _ in range(B):
        for _ in range(config.num_hidden_layers):
            for columns in (H * E, K * E, K * E):  # queries, keys, values
                product(T, D, columns, counter)
            for _head in range(H):
                for t in range(T):
                    for _s in range(max(0, t - 2), t + 1):
                        product(1, E, 1, counter)  # a score: q . k, and dq, dk
                        product(1, 1, E, counter)  # p v, and dp, dv
            product(T, H * E, D, counter)
            for inner, columns in ((D, F), (D, F), (F, D)):
                product(T, inner, columns, counter)
        product(T, D, V, counter)
    by_part = scaling.forward_multiply_adds(mistral, config, length=T)
    assert B * sum(by_part.values()) == counter["forward"]
    flops = scaling.training_flops(mistral, config, batch=B, length=T)
    assert flops == 2 * (counter["forward"] + counter["backward"]) and isinstance(flops, int)


@pytest.fixture
def products(monkeypatch):
    """Counts the multiply-adds of the products of matrices on the strict device: products() -> since the last call."""
    counted, on = [0], strict_functions.StrictFunction.on

    def count(self, array, args, kwargs):
        if self.__name__ in ("matmul", "dot"):
            a, b = (x for x in (array, *args) if x is not None)
            result = on(self, array, args, kwargs)
            if np.shares_memory(a._data, b._data):  # the squares of a norm
                return result
            counted[0] += math.prod(result.shape) * a.shape[-1]
            return result
        return on(self, array, args, kwargs)

    monkeypatch.setattr(strict_functions.StrictFunction, "on", count)

    def since():
        found, counted[0] = counted[0], 0
        return found

    return since


DECODERS = sorted(families.FAMILIES)
ENCODERS = sorted({*encoder_families.FAMILIES} - {"deberta", "deberta-v2", "xlnet"})


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_multiplies_what_is_counted(products, name):
    """One token, for which blocks of pairs are the pair itself; then one more with a cache."""
    model = families.tiny(name, dtype="float32", device="strict")
    module, config = model.family, model.config
    products()
    outputs, _ = model(np.array([[1]]), grad=False, cache=model.empty_cache(1, 4))
    assert products() == sum(scaling.forward_multiply_adds(module, config, length=1).values())
    model(np.array([[2]]), grad=False, cache=outputs["cache"])
    assert 2 * products() == scaling.decoding_flops(module, config, before=1)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_multiplies_what_is_counted(products, name):
    module = encoder_families.FAMILIES[name].module
    for task in module.TASKS:
        model = encoder_families.tiny(name, task, dtype="float32", device="strict")
        ids = np.ones((1, 2, 5) if task == "multiple_choice" else (1, 5), int)
        products()
        model(ids, grad=False)
        times = ids.size // 5
        assert products() == times * sum(scaling.forward_multiply_adds(module, model.config, length=5, task=task).values()), task


@pytest.mark.parametrize("name", sorted(seq2seq_families.FAMILIES))
def test_an_encoder_decoder_multiplies_what_is_counted(products, name):
    """Its decoder has one token, the source three."""
    model = seq2seq_families.tiny(name, dtype="float32", device="strict")
    module, config = model.family, model.config
    products()
    model(np.ones((1, 3), int), decoder_input_ids=np.ones((1, 1), int), grad=False)
    assert products() == sum(scaling.forward_multiply_adds(module, config, length=3, target=1).values())


def test_palms_formula():
    """6 N + 12 L H E T a token when all pairs are counted (Chowdhery et al. 2022, appendix B); half of them are seen."""
    config, T = palm.SIZES["palm-8b"], 2048
    D, L, H, E = config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.head_dim
    counts = scaling.parameters(palm, config)
    matrices = sum(counts.values()) - counts["norms"]  # the table is the head
    assert scaling.training_flops(palm, config, batch=1, length=T) == 6 * T * matrices + 6 * L * H * E * T * (T + 1)
    assert counts["embeddings"] == config.vocab_size * D


@pytest.mark.parametrize(("length", "window"), [(0, None), (5, None), (5, 1), (5, 3), (5, 5), (5, 9)])
def test_causal_pairs(length, window):
    w = window or length
    assert scaling.causal_pairs(length, window) == sum(1 for t in range(length) for s in range(t + 1) if s > t - w)


def test_a_head_at_some_places():
    bert = family("bert")
    config = bert.Config()
    whole, half = (scaling.forward_multiply_adds(bert, config, length=8, predicted=n) for n in (8, 4))
    assert whole == scaling.forward_multiply_adds(bert, config, length=8) and half["head"] == whole["head"] / 2
    assert {**half, "head": 0} == {**whole, "head": 0}
    assert whole["head"] == 8 * (768 * 768 + 768 * config.vocab_size)


# ---------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_memory_is_what_arrays_hold(dtype):
    model = families.tiny("llama", dtype=dtype)
    found = scaling.memory(model.family, model.config, dtype=dtype, batch=3, context=5)
    held = sum(a.nbytes for a in flatten(model.params).values())
    optimizer = AdamW(model.params)
    assert found["weights"] == found["gradients"] == held == optimizer.gradient.buffer.nbytes
    assert found["moments"] == optimizer.m.buffer.nbytes + optimizer.v.buffer.nbytes
    assert found["cache"] == model.empty_cache(3, 5).nbytes


def test_the_cache_of_an_encoder_decoder_and_of_an_encoder():
    model = seq2seq_families.tiny("t5", dtype="float32")
    found = scaling.memory(model.family, model.config, batch=2, context=4, source=3)
    sizes = model.config.cache_sizes
    assert found["cache"] == 2 * (4 + 3) * 2 * sizes["layers"] * sizes["kv_heads"] * sizes["width"] * 4
    assert "cache" not in scaling.memory(family("bert"), family("bert").Config())


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("call", "arguments", "message"), [
    ("forward_multiply_adds", {"length": 0}, "length: expected an integer from 1 to "),
    ("forward_multiply_adds", {"length": 3, "target": 2}, "target: expected None, since it is not an encoder-decoder, got 2"),
    ("forward_multiply_adds", {"length": 3, "predicted": -1}, "predicted: expected None or a finite number >= 0, got -1"),
    ("training_flops", {"length": 3, "batch": 0}, "batch: expected an integer from 1 to "),
    ("decoding_flops", {"before": 3, "source": 2}, "source: expected None, since it has no encoder, got 2"),
    ("decoding_flops", {"before": -1}, "before: expected an integer from 0 to "),
    ("memory", {"dtype": "int8"}, "dtype: expected one of float16, bfloat16, float32, float64, got 'int8'"),
    ("memory", {"batch": 0}, "batch: expected an integer from 1 to "),
    ("parameters", {"task": "poetry"}, "task: expected one of causal_lm, "),
])  # fmt: skip
def test_wrong_arguments(call, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        getattr(scaling, call)(gpt2_family, gpt2_family.Config(), **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "call", "arguments", "message"), [
    ("xlnet", "forward_multiply_adds", {"length": 3}, "model: expected a family whose attention has no products with relative"),
    ("deberta-v2", "training_flops", {"length": 3, "batch": 1}, "model: expected a family whose attention has no products"),
    ("bert", "decoding_flops", {"before": 3}, "model: expected a decoder, or an encoder-decoder, got an encoder"),
    ("t5", "decoding_flops", {"before": 3}, "source: expected the number of source tokens, got None"),
    ("deepseek_v3", "training_flops", {"batch": 1, "length": 3, "task": "multi_token_lm"}, "task: expected one without modules"),
])  # fmt: skip
def test_what_is_not_counted_is_refused(name, call, arguments, message):
    module = family(name)
    config = next(iter(module.SIZES.values()))
    with pytest.raises(ValueError, match=message):
        getattr(scaling, call)(module, config, **arguments)

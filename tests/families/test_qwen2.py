"""Qwen2's own: published counts, biases, per-layer windows, invalid configs; behaviour shared with other
families is in tests/models, sliding windows in tests/models/test_windows.py."""

from __future__ import annotations

import pytest

from tests.support import families
from tests.support.families import batch
from tests.support.llama_formulas import assert_formulas
from tinyplm.core import flatten
from tinyplm.families import qwen2
from tinyplm.hub.names import count_parameters

# Parameter counts shown on the hub for the released weights.
COUNTS = {
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-72b": 72_706_203_648,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
}


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_counts(size):
    assert count_parameters(qwen2.shapes(qwen2.SIZES[size])) == COUNTS[size]
    assert COUNTS.keys() == qwen2.SIZES.keys()


def test_released_models_use_no_window():
    assert all(config.window_of(i) is None for config in qwen2.SIZES.values() for i in range(80))


def test_queries_keys_and_values_have_biases():
    paths = flatten(qwen2.shapes(families.FAMILIES["qwen2"].config)["body"]["layers"][0])
    biases = [path for path in paths if path.rsplit(".", 1)[-1].startswith("b")]
    assert biases == ["attention.bq", "attention.bk", "attention.bv"]


WINDOWS = {
    "upper layers": ({"max_window_layers": 1}, [None, 2]),
    "all layers": ({"max_window_layers": 0}, [2, 2]),
    "no layer": ({"max_window_layers": 2}, [None, None]),
    "switched off": ({"use_sliding_window": False, "max_window_layers": 0}, [None, None]),
    "no window given": ({"sliding_window": None, "max_window_layers": 0}, [None, None]),
    "layer types": ({"layer_types": ["sliding_attention", "full_attention"]}, [2, None]),
    "layer types come first": (
        {"layer_types": ["full_attention", "full_attention"], "max_window_layers": 0},
        [None, None],
    ),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_the_whole_model_equals_the_formulas(case):
    changes, windows = WINDOWS[case]
    model = families.tiny("qwen2", **changes)
    assert [model.config.window_of(i) for i in range(2)] == windows
    assert_formulas(model, batch()[0], families.PADDING, windows.__getitem__)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": 0}, "sliding_window"),
        ({"max_window_layers": -1}, "max_window_layers"),
        ({"use_sliding_window": 1}, "use_sliding_window"),
        (
            {"layer_types": ["full_attention"]},
            r"expected 2 of full_attention and sliding_attention, got \['full_attention'\]",
        ),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types: expected 2 of"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types: expected full_attention alone without a window",
        ),
        ({"layer_types": "full_attention"}, "layer_types"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        qwen2.Config(num_hidden_layers=2, **changes)
    assert "\n" not in str(error.value)

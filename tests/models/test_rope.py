"""The rotary settings of a config.json: every spelling, invalid ones, and the longest allowed and cacheable text."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reference.layers.rope as ref
from tests.laws import FEW
from tinyplm.backend import to_device, to_host
from tinyplm.checks.cases.rope import rope_at
from tinyplm.models.rope import Rope, read_rope, rotary

PLAIN = Rope("default", 10000.0, 12, 12, {})
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}
LONG = {"short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [1, 2, 3.5, 4], "original_max_position_embeddings": 6}


@pytest.mark.parametrize(
    ("parameters", "scaling", "theta"),
    [
        (None, None, None),
        ({}, None, None),
        (None, {}, 10000),
        ({"rope_type": "default"}, None, None),
        ({"rope_type": "default", "rope_theta": 10000.0}, None, None),
        ({"rope_type": "default", "rope_theta": 10000.0}, None, 10000.0),  # stated twice, consistently
        ({"rope_theta": 10000.0}, None, None),
        (None, None, 10000.0),
        (None, {"type": "default"}, None),
        (None, {"rope_type": "default", "factor": None}, 10000.0),
        ({"rope_type": "default", "rope_theta": 10000.0}, {"type": "default"}, 10000.0),
    ],
)
def test_every_spelling_of_plain_rope(parameters, scaling, theta):
    assert read_rope(parameters, scaling, theta, 12) == PLAIN


@pytest.mark.parametrize(
    ("kind", "extra"),
    [("linear", {"factor": 4.0}), ("dynamic", {"factor": 4}), ("yarn", {"factor": 4.0, "beta_fast": 8}), ("llama3", LLAMA3),
     ("longrope", LONG)],
)  # fmt: skip
def test_every_spelling_of_a_scaling(kind, extra):
    """transformers 5 writes rope_parameters; earlier, rope_theta was next to rope_scaling; rope_type was first called type."""
    new = read_rope({"rope_type": kind, "rope_theta": 500.0, **extra}, None, None, 12)
    assert (new.type, new.base, new.settings) == (kind, 500.0, extra)
    old = {"type": kind, **extra}
    spellings = [
        ({"rope_type": kind, **extra}, None, 500.0),
        (old, None, 500),
        (None, old, 500.0),
        (None, {"rope_type": kind, **extra}, 500.0),
        (None, {"rope_type": kind, "type": kind, **extra, "attention_factor": None}, 500.0),
        (None, {"rope_theta": 500.0, **old}, None),
        ({"rope_type": kind, "rope_theta": 500.0, **extra}, old, None),
        ({"rope_type": kind, "rope_theta": 500.0, **extra}, {"rope_theta": 500, **old}, 500.0),
    ]
    for spelling in spellings:
        assert read_rope(*spelling, 12) == new


def test_reading_leaves_the_settings_as_they_are():
    parameters, scaling = {"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0, "attention_factor": None}
    read_rope(parameters, scaling, 100.0, 12)
    assert parameters == {"type": "linear", "factor": 2.0}
    assert scaling == {"rope_type": "linear", "factor": 2.0, "attention_factor": None}


# trained, context and cache_context of a config with 12 positions
@pytest.mark.parametrize(
    ("settings", "trained", "context", "cached"),
    [
        ({"rope_type": "default"}, 12, 12, 12),
        ({"rope_type": "linear", "factor": 4.0}, 12, 48, 48),
        ({"rope_type": "linear", "factor": 1.0}, 12, 12, 12),
        ({"rope_type": "linear", "factor": 1.3}, 12, 15, 15),  # whole positions only
        ({"rope_type": "dynamic", "factor": 4.0}, 12, 48, 12),  # beyond 12, the frequencies depend on the length
        ({"rope_type": "dynamic", "factor": 1.0}, 12, 12, 12),
        ({"rope_type": "yarn", "factor": 4.0}, 12, 48, 48),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 3}, 3, 12, 12),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 3}, 3, 12, 12),  # the config states 12
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}, 12, 48, 48),
        ({"rope_type": "yarn", "original_max_position_embeddings": 3}, 3, 12, 12),
        ({"rope_type": "llama3", **LLAMA3}, 8, 12, 12),
        ({"rope_type": "longrope", **LONG}, 6, 12, 6),  # beyond 6, other factors
        ({"rope_type": "longrope", **LONG, "factor": 4.0}, 6, 12, 6),
        ({"rope_type": "longrope", **LONG, "original_max_position_embeddings": None}, 12, 12, 12),
        ({"rope_type": "longrope", **LONG, "original_max_position_embeddings": 24}, 24, 12, 12),
    ],
    ids=str,
)
def test_how_long_a_text_and_a_cached_text_may_be(settings, trained, context, cached):
    read = read_rope(settings, None, None, 12)
    assert (read.trained, read.context, read.cache_context) == (trained, context, cached)


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 3}, 6),
        ({"rope_type": "yarn"}, 6),
        ({"rope_type": "llama3", **LLAMA3}, 6),
        ({"rope_type": "longrope", **LONG, "original_max_position_embeddings": 3}, 6),
        ({"rope_type": "linear", "factor": 4.0}, 12),  # has no such setting
        ({}, 12),
    ],
    ids=str,
)
def test_the_trained_context_of_the_config_itself_comes_first(settings, trained):
    assert read_rope(settings, None, None, 12, original=6).trained == trained


def test_yarn_without_a_factor_has_the_quotient_of_the_contexts():
    stretched = read_rope({"rope_type": "yarn", "original_max_position_embeddings": 3}, None, None, 12)
    assert stretched == read_rope({"rope_type": "yarn", "original_max_position_embeddings": 3, "factor": 4}, None, None, 12)


@pytest.mark.parametrize(
    ("settings", "length", "expected", "magnitude"),
    [
        ({"rope_type": "default"}, 99, lambda n: ref.frequencies(n, base=100.0), 1.0),
        ({"rope_type": "linear", "factor": 4.0}, 99, lambda n: ref.linear_frequencies(n, base=100.0, factor=4.0), 1.0),
        ({"rope_type": "dynamic", "factor": 4.0}, 12, lambda n: ref.frequencies(n, base=100.0), 1.0),
        ({"rope_type": "dynamic", "factor": 4.0}, 48,
         lambda n: ref.dynamic_frequencies(n, base=100.0, factor=4.0, original=12, length=48), 1.0),
        ({"rope_type": "yarn", "factor": 4.0}, 12, lambda n: ref.yarn_frequencies(n, base=100.0, factor=4.0, original=12),
         0.1 * math.log(4) + 1),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 9, "beta_slow": 0.5,
          "truncate": False, "attention_factor": 0.7}, 12,
         lambda n: ref.yarn_frequencies(n, base=100.0, factor=4.0, original=64, beta_fast=9, beta_slow=0.5, truncate=False), 0.7),
        ({"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 0.5, "beta_fast": None}, 12,
         lambda n: ref.yarn_frequencies(n, base=100.0, factor=4.0, original=12, truncate=False),
         (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1)),
        ({"rope_type": "llama3", **LLAMA3}, 12, lambda n: ref.llama3_frequencies(
            n, base=100.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original=8), 1.0),
        *(({"rope_type": kind, **LONG, **more}, length, lambda n, name=name: ref.longrope_frequencies(n, base=100.0,
            factors=LONG[name]), m) for kind in ("longrope", "su") for length, name in ((6, "short_factor"), (7, "long_factor"))
          for more, m in (({}, math.sqrt(1 + math.log(2) / math.log(6))), ({"attention_factor": 0.7}, 0.7),
                          ({"factor": 5.0}, math.sqrt(1 + math.log(5) / math.log(6))))),
        ({"rope_type": "longrope", **LONG, "original_max_position_embeddings": 24}, 12,
         lambda n: ref.longrope_frequencies(n, base=100.0, factors=LONG["short_factor"]), 1.0),
    ],
)  # fmt: skip
def test_the_settings_reach_their_formula(device, settings, length, expected, magnitude):
    """The model's rotation equals that of `rope`."""
    read = read_rope({"rope_theta": 100.0, **settings}, None, None, 12)
    frequencies, grown = read.frequencies(8, length)
    assert np.max(np.abs(frequencies / expected(8) - 1)) < FEW and abs(grown / magnitude - 1) < FEW
    rng = np.random.default_rng(0)
    x, positions = rng.normal(size=(2, 3, 4, 8)), rng.integers(0, min(12, length), (2, 4))
    positions[1, 2] = length - 1  # the largest position determines the length
    turn = rotary(read, 8)(to_device(positions, device), keys=4, dtype="float64")(0, 4)["rotary"]
    y = to_host(turn(to_device(x, device))[0])
    assert np.allclose(y, rope_at(x, positions=positions, frequencies=frequencies, magnitude=grown)[0], rtol=FEW, atol=FEW)


YARN = {"rope_type": "yarn", "factor": 4.0}
REFUSED = [
    # contradictions
    ({"rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 3.0}, None, "expected the rope_parameters"),
    ({"rope_type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}, None, "expected the rope_parameters"),
    ({"rope_type": "default", "rope_theta": 10.0}, {"type": "default", "rope_theta": 11.0}, None, "expected the rope_parameters"),
    ({"rope_theta": 10.0}, None, 11.0, "rope_theta: expected 10.0, as in rope_parameters, got 11.0"),
    (None, {"rope_type": "linear", "type": "dynamic", "factor": 2.0}, None, "linear.*dynamic|dynamic.*linear"),
    # invalid types
    ("linear", None, None, "rope_parameters: expected an object, got 'linear'"),
    (None, [2.0], None, r"rope_scaling: expected an object, got \[2.0\]"),
    ({"rope_type": "ntk"}, None, None,
     "rope_type: expected one of default, linear, dynamic, yarn, llama3, longrope, got 'ntk'"),
    (None, {"type": "ntk", "factor": 2.0}, None, "rope_type: expected one of .*, got 'ntk'"),
    ({"rope_type": 3}, None, None, "rope_type: expected one of .*, got 3"),
    ({"rope_type": ["linear"]}, None, None, r"rope_type: expected one of .*, got \['linear'\]"),
    # missing and unknown settings
    ({"rope_type": "linear"}, None, None, "rope_type linear: expected the settings factor, got no factor$"),
    ({"rope_type": "linear", "factor": None}, None, None, "rope_type linear: expected the settings factor, got no factor$"),
    ({"rope_type": "dynamic"}, None, None, "rope_type dynamic: expected the settings factor, got no factor$"),
    ({"rope_type": "yarn"}, None, None, "rope_type yarn: expected the settings factor, got no factor$"),
    ({"rope_type": "llama3", "factor": 2.0}, None, None,
     "rope_type llama3: expected the settings factor, high_freq_factor, low_.*, got no high_freq_factor$"),
    ({"rope_type": "default", "factor": 2.0}, None, None, "rope_type default: expected settings from none, got 'factor'"),
    ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0}, None, None,
     "rope_type linear: expected settings from factor, got 'beta_fast'"),
    ({**YARN, "low_freq_factor": 1.0}, None, None, "rope_type yarn: expected settings from .*, got 'low_freq_factor'"),
    ({"rope_type": "longrope"}, None, None, "rope_type longrope: expected the settings long_factor, short_factor, got no long_"),
    ({"full_attention": {"rope_type": "default"}}, None, None, "expected settings from none, got 'full_attention'"),
    # out of range
    *(({"rope_type": "linear", "factor": value}, None, None, "factor: expected a number from 1 to 1e6, got ")
      for value in (0.5, 0, -1.0, "2", True, math.nan, math.inf, 1e308, [2.0])),
    *((None, None, value, "rope_theta: expected a number > 1, got ") for value in (1.0, 0.0, -5.0, math.inf)),
    *(({"rope_theta": value}, None, None, "rope_theta: expected a number > 1, got ") for value in (math.nan, 1, "500")),
    *(({**YARN, "original_max_position_embeddings": value}, None, None,
       "original_max_position_embeddings: expected a positive integer, got ") for value in (-3, 0, 2.5, "3", True)),
    ({"rope_type": "yarn", "original_max_position_embeddings": 0}, None, None,
     "original_max_position_embeddings: expected a positive integer, got 0"),
    ({"rope_type": "yarn", "original_max_position_embeddings": 24}, None, None, "factor: expected a number from 1 to 1e6, got"),
    *(({**YARN, name: -0.5}, None, None, f"{name}: expected a number >= 0, got -0.5")
      for name in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor")),
    *(({"rope_type": "longrope", **LONG, "long_factor": value}, None, None,
       "long_factor: expected a list of numbers above 0, at most 1e6, got ")
      for value in ("1", 1.0, (1.0,), [0.0], [-1.0], [math.nan], [math.inf], [1e7], [True], ["1"], [[1.0]])),
    ({"rope_type": "longrope", **LONG, "original_max_position_embeddings": 1}, None, None,
     "original_max_position_embeddings: expected at least 2 for longrope, got 1"),
    ({**YARN, "truncate": 1}, None, None, "truncate: expected true or false, got 1"),
    ({**YARN, "beta_fast": 2.0, "beta_slow": 3.0}, None, None, "beta_slow: expected at most beta_fast = "),
    ({**YARN, "beta_fast": 0.5}, None, None, "beta_slow: expected at most beta_fast = "),  # which is 1
    *(({"rope_type": "llama3", **LLAMA3, "low_freq_factor": value}, None, None, "low_freq_factor: expected less than 4.0, got ")
      for value in (4.0, 5.0)),
    ({"rope_type": "llama3", **LLAMA3, "high_freq_factor": "4"}, None, None, "high_freq_factor: expected a number >= 0, got '4'"),
]  # fmt: skip


def test_dynamic_frequencies_are_those_of_each_length():
    """And not of the first one asked for; the others are kept by width."""
    read = read_rope({"rope_type": "dynamic", "factor": 4.0}, None, None, 12)
    for length in (12, 48, 24):
        expected = ref.dynamic_frequencies(8, base=10000.0, factor=4.0, original=12, length=length)
        assert np.max(np.abs(read.frequencies(8, length)[0] / expected - 1)) < FEW
    read = read_rope(YARN, None, None, 12)
    assert [read.frequencies(width, 12)[0].shape for width in (8, 6, 8)] == [(4,), (3,), (4,)]
    assert read.frequencies(8, 12)[0] is read.frequencies(8, 12)[0]


LIMITS = [
    ("factor", 1e6, "a number from 1 to 1e6"),
    ("mscale", 1e6, r"at most 1e\+06"),
    ("beta_fast", 1e6, r"at most 1e\+06"),
    ("attention_factor", 1e6, r"at most 1e\+06"),
    ("rope_theta", 1e15, r"at most 1e\+15"),
]


@pytest.mark.parametrize(("name", "most", "expected"), LIMITS)
def test_the_largest_values(name, most, expected):
    settings = read_rope({**YARN, name: most}, None, None, 12)
    assert most in (settings.base, settings.settings.get(name))
    with pytest.raises(ValueError, match=f"^config: {name}: expected {expected}, got "):
        read_rope({**YARN, name: most * 1.001}, None, None, 12)


def test_a_truncate_of_null_is_false():
    given = {**YARN, "truncate": None}
    assert (
        read_rope(given, None, None, 12).settings["truncate"] is False
        and "truncate" not in read_rope(YARN, None, None, 12).settings
    )


def test_the_smallest_values():
    least = {"factor": 1, "beta_slow": 1e-6, "mscale": 0, "attention_factor": 0, "rope_theta": 1.001}
    assert read_rope({**YARN, **least}, None, None, 12).settings["beta_slow"] == 1e-6
    assert read_rope({**YARN, "beta_fast": 2, "beta_slow": 2}, None, None, 12).settings["beta_slow"] == 2
    for value in (0.9e-6, 1e-300):
        with pytest.raises(ValueError, match="^config: beta_slow: expected 0 or at least 1e-6, got "):
            read_rope({**YARN, "beta_slow": value}, None, None, 12)


@pytest.mark.parametrize(("parameters", "scaling", "theta", "message"), REFUSED, ids=str)
def test_what_is_wrong_is_named_in_one_line(parameters, scaling, theta, message):
    with pytest.raises(ValueError, match=message) as error:
        read_rope(parameters, scaling, theta, 12)
    assert str(error.value).startswith("config: ") and "\n" not in str(error.value)

"""Mixtures of tasks: rates, the draw, each task's own epochs, padding to a common length."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.objectives import mixture as formula
from tests.objectives.test_masked import five_sigma
from tests.objectives.test_seq2seq import BART, T5
from tinyplm.objectives import (
    Layout,
    MaskedWindows,
    Masking,
    Mixture,
    Seq2SeqPairs,
    SpanCorruptedWindows,
    mixture_rates,
    sentinel_ids,
)
from tinyplm.objectives.mixture import BLOCK

TOKENS = np.arange(10, 400)
EPS = np.finfo(float).eps


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def pairs(count, start, length=6, layout=T5, seed=1):
    """Pair n of a task has the source [start + n] and the target [start + n] repeated."""
    return Seq2SeqPairs(
        [([start + n], [start + n] * (1 + n % 3)) for n in range(count)], length, length, layout=layout, seed=seed
    )


def spans(seed=1):
    return SpanCorruptedWindows(TOKENS, 20, layout=T5, sentinels=sentinel_ids(1000), seed=seed)


# ---- rates


def test_rates_by_hand():
    sizes = {"a": 10, "b": 30, "c": 1000}
    assert mixture_rates(sizes) == pytest.approx({"a": 1 / 104, "b": 3 / 104, "c": 100 / 104}, rel=1e-14)
    assert mixture_rates(sizes, limit=60) == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6}, rel=1e-14)
    assert mixture_rates(sizes, limit=5) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    roots = {"a": 1, "b": math.sqrt(3), "c": 10}
    total = sum(roots.values())
    assert mixture_rates(sizes, temperature=2) == pytest.approx({n: r / total for n, r in roots.items()}, rel=1e-14)
    assert mixture_rates(sizes, temperature=math.inf) == pytest.approx(dict.fromkeys("abc", 1 / 3), rel=1e-14)


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 10**7)),
    st.one_of(st.floats(0.5, 20), st.just(math.inf)),
)
def test_rates_equal_the_reference(sizes, limit, temperature):
    names = {f"task {n}": size for n, size in enumerate(sizes)}
    rates = mixture_rates(names, limit=limit, temperature=temperature)
    assert list(rates) == list(names)
    # log n / T, at most 42 in size, is off by 3 eps of itself; exp makes that relative; then a sum of 8 and a division
    tolerance = 10 * (3 * 2 * 42 + 10) * EPS
    assert list(rates.values()) == pytest.approx(formula.rates(sizes, limit, temperature), rel=tolerance, abs=1e-300)
    assert sum(rates.values()) == pytest.approx(1, abs=20 * EPS)


def test_a_small_temperature_does_not_overflow():
    for temperature in (1e-6, 5e-324):
        assert mixture_rates({"a": 5, "b": 6}, temperature=temperature) == {"a": 0.0, "b": 1.0}


def test_bad_rates_are_refused():
    for settings, message in (
        ({"sizes": {"a": 3, "b": 0}}, "sizes: 'b': expected an integer >= 1, got 0"),
        ({"sizes": {}}, "sizes: expected a dict from sources to sizes, got {}"),
        ({"limit": 0}, "limit: expected None or an integer >= 1, got 0"),
        ({"temperature": 0}, "temperature: expected a finite number > 0, got 0"),
        ({"temperature": -1.0}, "temperature: expected a finite number > 0, got -1.0"),
        ({"temperature": -math.inf}, "temperature: expected a finite number > 0, got -inf"),
    ):
        with raises(message):
            mixture_rates(**{"sizes": {"a": 3}, **settings})


# ---- samples


TASKS = {"a": pairs(7, 100), "b": pairs(50, 200), "spans": spans()}
RATES = {"a": 0.2, "b": 0.5, "spans": 0.3}


def mixture(seed=5, **settings):
    return Mixture(**{"tasks": TASKS, "rates": RATES, "pad_id": 0, "seed": seed, **settings})


def test_tasks_are_drawn_by_their_rates():
    n = 3 * BLOCK
    drawn, _ = mixture().drawn(0, n)
    for task, rate in enumerate(RATES.values()):
        assert abs((drawn == task).sum() - n * rate) <= five_sigma(n, rate)
        pairs = ((drawn[1:] == task) & (drawn[:-1] == task)).sum()  # neighbours are independent
        assert abs(pairs - n * rate**2) <= 2 * five_sigma(n, rate**2)
    assert not np.array_equal(drawn[:BLOCK], drawn[BLOCK : 2 * BLOCK])
    weights = {name: 7 * rate for name, rate in RATES.items()}
    assert np.array_equal(mixture(rates=weights).drawn(0, 999)[0], drawn[:999])
    assert not np.array_equal(mixture(seed=6).drawn(0, 999)[0], drawn[:999])


def test_samples_of_a_task_are_its_own_in_order():
    drawn, numbers = mixture().drawn(0, 600)
    assert numbers.tolist() == formula.sample_numbers(drawn.tolist())
    late = mixture()  # a resumed run, across two blocks
    whole = mixture().drawn(0, 2 * BLOCK + 10)
    for first, count in ((2 * BLOCK - 5, 15), (BLOCK, 1), (BLOCK - 1, 2), (0, 600)):
        assert all(np.array_equal(a, b[first : first + count]) for a, b in zip(late.drawn(first, count), whole))


def test_rows_are_the_tasks_rows():
    data = mixture()
    inputs, targets = data.batch(30, 40)
    assert data.length == 20 and inputs["input_ids"].shape == (40, 20)
    for row, (task, number) in enumerate(zip(*data.drawn(30, 40))):
        own_inputs, own_targets = list(TASKS.values())[task].batch(int(number), 1)
        S, T = own_inputs["input_ids"].shape[1], own_targets["logits"].shape[1]
        ours = {**{name: inputs[name][row] for name in inputs}, "logits": targets["logits"][row]}
        for name, own in {**own_inputs, **own_targets}.items():
            width = T if name in ("decoder_input_ids", "logits") else S
            assert np.array_equal(ours[name][:width], own[0])
        assert not ours["attention_mask"][S:].any() and not ours["input_ids"][S:].any()
        # what a decoder reads behind the last label is ignored, and may be that label
        assert (ours["logits"][T:] == -100).all() and not ours["decoder_input_ids"][T + 1 :].any()


def test_each_task_goes_through_its_own_epochs():
    data = mixture()
    inputs, _ = data.batch(0, 400)
    drawn, _ = data.drawn(0, 400)
    sources = inputs["input_ids"][:, 0]
    for task, (count, start) in enumerate(((7, 100), (50, 200))):
        own = sources[drawn == task]
        for epoch in range(len(own) // count):
            assert sorted(own[count * epoch : count * (epoch + 1)]) == list(range(start, start + count))


def test_mixtures_of_mixtures_and_of_encoders():
    inner = Mixture({"a": TASKS["a"], "b": TASKS["b"]}, {"a": 1, "b": 1}, pad_id=0, seed=1)
    outer = Mixture({"inner": inner, "spans": TASKS["spans"]}, {"inner": 1, "spans": 1}, pad_id=0, seed=2)
    assert outer.batch(0, 9)[0]["input_ids"].shape == (9, 20)
    layout = Layout.bert(cls_id=1, sep_id=2, pad_id=3)
    masked = [MaskedWindows(TOKENS, n, layout=layout, masking=Masking(4, 400), seed=n) for n in (12, 17)]
    data = Mixture({"short": masked[0], "long": masked[1]}, {"short": 1, "long": 1}, pad_id=3, seed=0)
    inputs, targets = data.batch(0, 30)
    short = data.drawn(0, 30)[0] == 0
    assert 0 < short.sum() < 30 and data.length == 17
    assert (inputs["input_ids"][short, 12:] == 3).all() and (targets["logits"][short, 12:] == -100).all()
    assert (inputs["attention_mask"][short, 12:] == 0).all() and inputs["attention_mask"][~short].all()


def test_bad_mixtures_are_refused():
    class Empty:
        def batch(self, first, count):
            return {"input_ids": np.zeros((0, 3), int)}, {}

    class Other:
        def batch(self, first, count):
            return [1, 2]

    pipeline = "expected a pipeline: batch(first, count) -> (inputs, targets), dicts of arrays, got "
    windows = MaskedWindows(TOKENS, 12, layout=Layout.bert(cls_id=1, sep_id=2, pad_id=0), masking=Masking(3, 400), seed=0)
    for settings, message in (
        ({"tasks": {}}, "tasks: expected a dict from names to pipelines, got {}"),
        ({"tasks": {"a": Empty()}, "rates": {"a": 1}}, f"tasks: 'a': {pipeline}"),
        ({"tasks": {"a": Other()}, "rates": {"a": 1}}, f"tasks: 'a': {pipeline}[1, 2]"),
        ({"tasks": {"a": 5}, "rates": {"a": 1}}, f"tasks: 'a': {pipeline}5"),
        ({"tasks": {"a": TASKS["a"], "b": windows}, "rates": {"a": 1, "b": 1}},
         "tasks: 'b': expected the arrays of 'a': attention_mask, decoder_input_ids, input_ids, logits, got "),
        ({"rates": {"a": 1}}, "rates: expected a dict of rates of a, b, spans, got {'a': 1}"),
        ({"rates": {**RATES, "b": 0}}, "rates: 'b': expected a finite number > 0, got 0"),
        ({"rates": {**RATES, "b": math.nan}}, "rates: 'b': expected a finite number > 0, got nan"),
        ({"pad_id": -1}, "pad_id: expected an integer from 0 to 2147483647, got -1"),
        ({"seed": -1}, "seed: expected an integer from 0 to "),
    ):  # fmt: skip
        with raises(message):
            mixture(**settings)
    with raises("first: expected an integer from 0"):
        mixture().batch(-1, 1)
    with raises("count: expected an integer from 1"):
        mixture().batch(0, 0)


def test_every_sample_of_a_batch_is_drawn_once():
    """Nothing is lost where batches meet: the tasks' samples over 10 batches are consecutive."""
    data = mixture()
    seen = Counter()
    for first in range(0, 100, 10):
        for task, number in zip(*data.drawn(first, 10)):
            assert number == seen[task]
            seen[task] += 1
    assert sum(seen.values()) == 100


def test_layouts_may_differ_in_length_only():
    short, long = pairs(5, 100, layout=BART), pairs(5, 200, length=9, layout=BART)
    inputs, targets = Mixture({"s": short, "l": long}, {"s": 1, "l": 1}, pad_id=1, seed=0).batch(0, 20)
    padding = inputs["attention_mask"] == 0
    assert (inputs["input_ids"][padding] == 1).all() and (targets["logits"] != -100).any(axis=1).all()

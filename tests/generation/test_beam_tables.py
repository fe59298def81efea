"""Beam search on tables of logits: against the reference, and against all texts there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import reference.generation.beam as ref
from reference.generation.sampling import token_distribution
from tinyplm.generation.beam import _Group, checked_log_softmax, largest, search
from tinyplm.generation.settings import BeamSettings

DEFAULTS = {
    "min_new_tokens": 0, "results": 1, "length_penalty": 1.0, "early_stopping": False, "no_repeat_ngram": None,
    "repetition_penalty": 1.0, "forced_first": None, "forced_last": None, "groups": 1, "diversity_penalty": 0.0,
    "stop_ids": (), "vocabulary": None, "cached": True,
}  # fmt: skip


class Table:
    """The state of a model that looks its logits up: any function of a text, as a DecodingState."""

    def __init__(self, prompts, V, seed, levels=None):
        self.texts, self.V, self.seed, self.levels = [list(prompt) for prompt in prompts], V, seed, levels
        self.rows = []

    def logits(self, text):
        """levels: so many different values only, which makes many texts equally probable."""
        rng = np.random.default_rng([self.seed, *(token + 1 for token in text)])
        return rng.normal(0, 2, self.V) if self.levels is None else rng.integers(0, self.levels, self.V).astype(float)

    def log_p(self, text):
        """One at a time gives the numbers that all at once do, so that equal sums are equal to the last bit."""
        return checked_log_softmax(self.logits(text)[None])[0]

    def next_logits(self):
        return np.stack([self.logits(text) for text in self.texts])

    def select(self, rows, tokens):
        self.rows.append(rows.tolist())
        self.texts = [[*self.texts[row], token] for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]


def found_in(table, stops=(), size=None, **options):
    """What `search` finds for each prompt, as the reference gives it."""
    settings = BeamSettings(**{**DEFAULTS, **options})
    texts = search(table, settings, size or table.V, set(stops))
    return [[(h.score, h.log_probability, h.ids, h.finished) for h in hypotheses] for hypotheses in texts]


def expected_of(scored, stops):
    """The reference's texts without their stop tokens."""
    return [(s, p, list(t[: -1 if t[-1] in stops else None]), "stop" if t[-1] in stops else "length") for s, p, t in scored]


# ----------------------------------------------------------------------------------------------------- against the reference

PROMPT_LISTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=3)
SETTINGS = st.fixed_dictionaries(
    {"beams": st.integers(1, 7), "max_new_tokens": st.integers(1, 6)},
    optional={
        "length_penalty": st.sampled_from([-1.5, 0.0, 0.6, 1.0, 2.0]),
        "early_stopping": st.sampled_from([False, True, "never"]),
        "no_repeat_ngram": st.integers(2, 3),
        "repetition_penalty": st.sampled_from([0.7, 1.0, 1.5]),
        "forced_first": st.integers(0, 1),
        "forced_last": st.integers(0, 1),
        "min_new_tokens": st.integers(0, 4),
        "groups": st.integers(1, 3),
        "diversity_penalty": st.sampled_from([0.5, 3.0]),
    },
)


@given(prompts=PROMPT_LISTS, V=st.integers(2, 6), levels=st.sampled_from([None, 1, 2, 4]), seed=st.integers(0, 999),
       stops=st.sets(st.integers(0, 7), max_size=3), settings=SETTINGS)  # fmt: skip
@example(prompts=[[0], [1, 1]], V=3, levels=1, seed=0, stops={0}, settings={"beams": 5, "max_new_tokens": 4})
@example(prompts=[[0]], V=2, levels=1, seed=0, stops={0}, settings={"beams": 1, "max_new_tokens": 3, "length_penalty": 2.0})
def test_it_finds_what_the_reference_finds(prompts, V, levels, seed, stops, settings):
    """To the last bit and for each prompt alone, also where many texts are equally probable."""
    assume(settings.get("min_new_tokens", 0) <= settings["max_new_tokens"] and not stops >= set(range(V)))
    table = Table(prompts, V, seed, levels)
    settings["beams"] *= settings.get("groups", 1)
    options = {name: value for name, value in settings.items() if name != "beams"}
    expected = [ref.beam_search(table.log_p, prompt, beams=settings["beams"], stops=stops, **options) for prompt in prompts]
    if not all(expected):
        with pytest.raises(ValueError, match=r"^no_repeat_ngram, vocabulary: expected some token that may follow, got none$"):
            found_in(table, stops, **settings)
        return
    assert found_in(table, stops, **settings) == [expected_of(scored, stops) for scored in expected]


@pytest.mark.parametrize(("V", "tokens"), [(3, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", [False, "never"])
def test_with_as_many_beams_as_texts_it_finds_them_all(V, tokens, length_penalty, early_stopping):
    for seed, stops in ((0, ()), (1, (1,)), (2, (0, 2))):
        table = Table([[0], [1, 2]], V, seed)
        options = {"max_new_tokens": tokens, "length_penalty": length_penalty}
        expected = [ref.all_texts(table.log_p, prompt, stops=stops, **options) for prompt in ([0], [1, 2])]
        others = V - len(stops)
        texts = others ** (tokens - 1) * V + sum(others**n * len(stops) for n in range(tokens - 1))
        assert [len(scored) for scored in expected] == [texts, texts]
        found = found_in(table, stops, beams=V**tokens, early_stopping=early_stopping, **options)
        assert found == [expected_of(scored, stops) for scored in expected]


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 3.0])
def test_never_stops_before_the_end_only_where_nothing_better_can_come(monkeypatch, length_penalty):
    """Sums only fall and lengths only grow.  True, and False with a positive penalty, may stop too early."""
    found, steps = {}, {}
    for early_stopping in ("never", False, True, "at the end"):
        if early_stopping == "at the end":
            monkeypatch.setattr(_Group, "_enough", lambda *_: False)
        tables = [Table([[0]], 6, seed) for seed in range(40)]
        options = {"beams": 2, "max_new_tokens": 9, "length_penalty": length_penalty}
        options["early_stopping"] = "never" if early_stopping == "at the end" else early_stopping
        found[early_stopping] = [found_in(table, [1], **options) for table in tables]
        steps[early_stopping] = sum(len(table.rows) for table in tables)
    assert found["never"] == found["at the end"]
    assert (found[False] == found["never"]) == (length_penalty <= 0)
    assert (found[True] == found["never"]) == (length_penalty < 0)
    assert steps[True] < steps[False] <= steps["never"] <= steps["at the end"]
    assert length_penalty > 0 or steps["never"] < steps["at the end"]


def test_groups_find_different_texts():
    """The first is not disturbed; without a penalty all find the same, with a large one none has its tokens."""
    options = {"max_new_tokens": 6, "stop_ids": ()}
    alone = found_in(Table([[0], [1, 1]], 9, 0), beams=2, **options)
    same = found_in(Table([[0], [1, 1]], 9, 0), beams=6, groups=3, **options)
    assert same == [[h for h in found for _ in range(3)] for found in alone]
    different = found_in(Table([[0], [1, 1]], 9, 0), beams=6, groups=3, diversity_penalty=100.0, **options)
    for one, found in zip(alone, different):
        others = [h for h in found if h not in one]
        assert len(others) == 4 and len(found) == 6
        for n in range(6):
            assert not {ids[n] for _, _, ids, _ in one} & {ids[n] for _, _, ids, _ in others}


def test_the_first_beams_of_a_small_vocabulary_are_fewer():
    """One text, then two, then four: no text is there twice."""
    table = Table([[0]], 2, 0)
    [found] = found_in(table, beams=4, max_new_tokens=4)
    assert [len(rows) for rows in table.rows] == [2, 4, 4] and len({tuple(ids) for _, _, ids, _ in found}) == 4


def test_few_texts_move():
    """A running text stays in its parent's row; only where a parent has several does one take the row of a text that ended."""
    table = Table([[0], [1]], 6, 0)
    found_in(table, beams=4, max_new_tokens=12)
    steps = [rows for rows in table.rows[1:] if len(rows) == 8]
    assert len(steps) == 10
    for rows in steps:
        assert sum(i != row for i, row in enumerate(rows)) == 8 - len(set(rows))


@given(st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.5, 3.0]), min_size=1, max_size=12), st.integers(1, 14))
def test_the_largest_are_those_of_a_stable_sort(values, count):
    values = np.array(values)
    order = [i for i in sorted(range(len(values)), key=lambda i: -values[i]) if values[i] > -math.inf]
    assert largest(values, count).tolist() == order[:count]


def test_log_softmax():
    logits = np.random.default_rng(0).normal(0, 5, (4, 9)) + 1000
    logits[1, 3] = -np.inf
    with np.errstate(divide="ignore"):
        expected = np.log([token_distribution(row) for row in logits])
    found = checked_log_softmax(logits)
    assert np.allclose(found, expected, rtol=0, atol=10 * 1000 * np.finfo(float).eps)  # logits around 1000
    assert checked_log_softmax(logits.astype("f")).dtype == "f"

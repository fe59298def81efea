"""Windows denoised by encoder-decoders: span corruption, prefix language modelling, UL2's mixture."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.objectives import spans as formula
from tests.objectives.test_masked import five_sigma
from tinyplm.data import Windows
from tinyplm.objectives import (
    UL2_DENOISERS,
    Denoiser,
    PrefixWindows,
    Seq2SeqLayout,
    SpanCorruptedWindows,
    UL2Windows,
    noise_counts,
    restore_spans,
    sentinel_ids,
    split_prefix,
)
from tinyplm.random import fold, key

TOKENS = (10 + np.arange(900) % 700).astype(np.uint16)
T5 = Seq2SeqLayout.t5(eos_id=1, pad_id=0)
SENTINELS = sentinel_ids(1000)
MODES = {"R": [5], "S": [6, 7], "X": [8]}


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def texts(inputs, targets, n, end=1):
    """Source and target of row n without padding, and without the end token, which both must have."""
    source = inputs["input_ids"][n][inputs["attention_mask"][n] == 1].tolist()
    target = [i for i in targets["logits"][n].tolist() if i != -100]
    assert source.pop() == target.pop() == end
    return source, target


# ---- splits


@given(st.integers(2, 60), st.integers(0, 2**64 - 1), st.one_of(st.none(), st.floats(0.01, 0.5)))
def test_splits_join_to_the_text(n, k, share):
    text = list(range(n))
    source, target = split_prefix(text, key=k, share=share)
    assert (source.tolist(), target.tolist()) in formula.prefix_splits(text)
    if share is not None:
        assert len(target) <= max(1, 2 * round(share * n) - 1)


def test_all_splits_are_equally_likely():
    text, n = list(range(8)), 2100
    found = Counter(len(split_prefix(text, key=fold(key(0), i))[0]) for i in range(n))
    assert found.keys() == set(range(1, 8))
    assert all(abs(count - n / 7) <= five_sigma(n, 1 / 7) for count in found.values())


def test_targets_of_the_s_denoiser_are_a_quarter_in_the_mean():
    """Uniform in 1 ... 2 * 10 - 1 = 19 of 40 tokens."""
    n = 3800
    found = Counter(len(split_prefix(range(40), key=fold(key(0), i), share=0.25)[1]) for i in range(n))
    assert found.keys() == set(range(1, 20))
    assert all(abs(count - n / 19) <= five_sigma(n, 1 / 19) for count in found.values())


def test_bad_splits_are_refused():
    with raises("ids: expected two or more tokens: a prefix and a target, got [3]"):
        split_prefix([3], key=0)
    for share in (0, 0.51, -1):
        with raises("share: expected None or a finite number > 0 and <= 0.5, got "):
            split_prefix([1, 2], key=0, share=share)


# ---- pipelines


@pytest.mark.parametrize("closing", [True, False])
def test_spans_of_windows(closing):
    """No padding, and the text is a window of data.Windows."""
    data = SpanCorruptedWindows(TOKENS, 64, layout=T5, sentinels=SENTINELS, seed=3, closing=closing)
    inputs, targets = data.batch(0, 30)
    raw, target_length = formula.lengths(64, 0.15, 3.0, 1)
    assert inputs["input_ids"].shape == (30, 64) and inputs["attention_mask"].all()
    assert targets["logits"].shape == (30, target_length + closing) and (targets["logits"] != -100).all()
    assert (data.length, data.target_length) == (64, target_length + closing)
    windows = Windows(TOKENS, raw, 3).batch(0, 30)[0]
    for n in range(30):
        source, target = texts(inputs, targets, n)
        assert restore_spans(source, target, sentinels=SENTINELS).tolist() == windows[n].tolist()
        assert inputs["decoder_input_ids"][n].tolist() == [0, *targets["logits"][n, :-1]]
        assert (target[-1] == SENTINELS[sum(i in SENTINELS for i in source)]) == closing


def test_layouts_of_bart():
    layout = Seq2SeqLayout.bart(bos_id=2, eos_id=3, pad_id=1)
    inputs, targets = SpanCorruptedWindows(TOKENS, 40, layout=layout, sentinels=SENTINELS, seed=3).batch(0, 5)
    assert inputs["input_ids"].shape == (5, 40)
    assert (inputs["input_ids"][:, 0] == 2).all() and (inputs["input_ids"][:, -1] == 3).all()
    assert (targets["logits"][:, 0] == 2).all() and (targets["logits"][:, -1] == 3).all()
    assert (inputs["decoder_input_ids"][:, :2] == [3, 2]).all()


def test_prefixes_of_windows():
    data = PrefixWindows(TOKENS, 12, layout=T5, seed=3)
    inputs, targets = data.batch(0, 200)
    assert inputs["input_ids"].shape == targets["logits"].shape == (200, 12)
    windows = Windows(TOKENS, 12, 3).batch(0, 200)[0]
    sizes = set()
    for n in range(200):
        source, target = texts(inputs, targets, n)
        assert source + target == windows[n].tolist()
        sizes.add(len(source))
    assert sizes == set(range(1, 12))


def test_table_1_of_ul2():
    """Tay et al. 2022: (mu, r) of each denoiser."""
    table = Counter((d.mode, d.mean_span, d.density) for d in UL2_DENOISERS)
    assert table == Counter([("R", 3, 0.15), ("R", 8, 0.15), ("S", None, 0.25), ("X", 3, 0.5), ("X", 8, 0.5), ("X", 64, 0.15),
                             ("X", 64, 0.5)])  # fmt: skip


def test_ul2_mixes_its_denoisers_by_share():
    shares = [2, 1, 3, 1, 1, 1, 1]
    data = UL2Windows(TOKENS, 130, layout=T5, sentinels=SENTINELS, modes=MODES, seed=3, shares=shares)
    n, raw = 400, 127  # 130 less the end token and the longest mode
    inputs, targets = data.batch(0, n)
    windows = Windows(TOKENS, raw, 3).batch(0, n)[0]
    assert inputs["input_ids"].shape == (n, 130) and targets["logits"].shape == (n, data.target_length)
    assert data.target_length == 64 + 21 + 1 + 1  # half of the tokens in spans of 3, the closing sentinel, the end
    seen = Counter()
    for i in range(n):
        source, target = texts(inputs, targets, i)
        mode = next(name for name, ids in MODES.items() if source[: len(ids)] == ids)
        source = source[len(MODES[mode]) :]
        denoiser = data.denoiser(fold(key(3), i))
        assert denoiser.mode == mode
        if mode == "S":
            assert source + target == windows[i].tolist() and len(target) <= 2 * 32 - 1
        else:
            assert restore_spans(source, target, sentinels=SENTINELS).tolist() == windows[i].tolist()
            noise, spans = noise_counts(raw, density=denoiser.density, mean_span=denoiser.mean_span)
            assert len(target) == noise + spans + 1 and len(source) == raw - noise + spans
        seen[denoiser] += 1
    for denoiser, share in zip(UL2_DENOISERS, shares):
        assert abs(seen[denoiser] - n * share / 10) <= five_sigma(n, share / 10)
    equal = UL2Windows(TOKENS, 130, layout=T5, sentinels=SENTINELS, modes=MODES, seed=3)
    seen = Counter(equal.denoiser(fold(key(3), i)) for i in range(700))
    assert all(abs(seen[denoiser] - 100) <= five_sigma(700, 1 / 7) for denoiser in UL2_DENOISERS)


def test_spans_do_not_depend_on_the_draw_of_the_denoiser():
    """20 kept tokens of 40 in 10 runs: the first run is one token with probability 9 / 19, whatever the mode."""
    same = [Denoiser("R", 0.5, 2), Denoiser("X", 0.5, 2)]
    data = UL2Windows(TOKENS, 42, layout=T5, sentinels=SENTINELS, modes={"R": [5], "X": [8]}, seed=3, denoisers=same)
    source = data.batch(0, 600)[0]["input_ids"]
    for mode in (5, 8):
        short = np.isin(source[source[:, 0] == mode, 2], SENTINELS)
        assert abs(short.sum() - len(short) * 9 / 19) <= five_sigma(len(short), 9 / 19)


def test_bad_settings_are_refused():
    def spans(length=64, **settings):
        return SpanCorruptedWindows(TOKENS, length, **{"layout": T5, "sentinels": SENTINELS, "seed": 0, **settings})

    def ul2(length=130, **settings):
        right = {"layout": T5, "sentinels": SENTINELS, "modes": MODES, "seed": 0}
        return UL2Windows(TOKENS, length, **{**right, **settings})

    for call, message in (
        (lambda: spans(512, sentinels=SENTINELS[:28]),
         "sentinels: expected 29 or more for texts of 568 tokens, got 28 (does the vocabulary have them?)"),
        (lambda: spans(1024), "tokens: expected at least 1138 for a window of 1137, got 900"),
        (lambda: spans(2), "length: expected an integer from 3 to 2147483647, got 2"),
        (lambda: spans(density=1), "density: expected a finite number > 0 and < 1, got 1"),
        (lambda: spans(mean_span=0.5), "mean_span: expected a finite number >= 1"),
        (lambda: spans(layout=None), "layout: expected a Seq2SeqLayout, got None"),
        (lambda: PrefixWindows(TOKENS, 1, layout=T5, seed=0), "length: expected at least 2, with the special tokens, got 1"),
        (lambda: ul2(sentinels=SENTINELS[:21]), "sentinels: expected 22 or more for texts of 127 tokens, got 21"),
        (lambda: ul2(modes={"R": [1], "S": [2]}), "modes: expected ids of R, S, X, got none of X"),
        (lambda: ul2(shares=[1, 2]), "shares: expected 7 weights, none negative, with a sum above 0, got [1, 2]"),
        (lambda: ul2(shares=[0] * 7), "shares: expected 7 weights, none negative, with a sum above 0, got "),
        (lambda: ul2(denoisers=[]), "denoisers: expected Denoisers, one or more, got []"),
        (lambda: ul2(4), "length: expected at least 5, with the special tokens, got 4"),
        (lambda: Denoiser("S", 0.6, None), "density: expected a finite number > 0 and <= 0.5, got 0.6"),
        (lambda: Denoiser("R", 0.15, 0.5), "mean_span: expected None or a finite number >= 1"),
        (lambda: Denoiser("", 0.15, 3), "mode: expected a non-empty string, got ''"),
    ):  # fmt: skip
        with raises(message):
            call()
    spans(512, sentinels=SENTINELS[:29])
    ul2(sentinels=SENTINELS[:22])
    assert ul2(5).batch(0, 9)[0]["input_ids"].shape == (9, 5)


def test_a_sentinel_in_the_text_is_refused():
    data = SpanCorruptedWindows(np.full(99, 999), 20, layout=T5, sentinels=SENTINELS, seed=0)
    with raises("ids: expected a text without sentinels, got 999"):
        data.batch(0, 1)

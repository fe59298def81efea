"""IPO, hinge, ORPO, SimPO, KTO and GSPO against hand-computed values and at their limits.  The laws are in test_components.py."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import reference.losses.advantages as ref_advantages
import reference.losses.preference as ref
from tests.laws import FEW, relative_error, rounding
from tinyplm.losses.advantages import overlong_punishment
from tinyplm.losses.feedback import kto, reference_point
from tinyplm.losses.policy import k3_kl
from tinyplm.losses.preference import hinge, ipo
from tinyplm.losses.reference_free import orpo, simpo
from tinyplm.losses.sequence_policy import gspo, sequence_statistics, sequence_surrogate

ONE, X2 = np.ones(1), np.ones((2, 3))


@pytest.mark.parametrize(("loss", "h", "value", "slope"), [
    (ipo, 1.0, 0.0, 0.0), (ipo, 3.0, 4.0, 4.0), (ipo, 0.0, 1.0, -2.0),  # its target is 1 / (2 beta) = 1
    (hinge, 0.0, 1.0, -0.5), (hinge, 1.0, 0.5, -0.5), (hinge, 3.0, 0.0, 0.0), (hinge, -2.0, 2.0, -0.5),
])  # fmt: skip
def test_a_pair_by_hand(loss, h, value, slope):
    """h = log-ratio of the chosen less that of the rejected answer, beta = 1/2."""
    found, back = loss((h - 5) * ONE, -7 * ONE, reference_chosen=-2 * ONE, reference_rejected=-4 * ONE, beta=0.5)
    assert float(found) == pytest.approx(value, abs=FEW)
    dchosen, drejected = back(1.0)
    assert dchosen[0] == pytest.approx(slope, abs=FEW) and drejected[0] == -dchosen[0]


def test_odds_by_hand():
    """P = 3/4 and 1/3: odds of 3 and 1/2, whose ratio is 6; -log sigmoid(log 6) = log(7/6)."""
    loss, back = orpo(np.log(0.75 * ONE), np.log(ONE / 3), lam=0.5)
    assert float(loss) == pytest.approx(-np.log(0.75) + 0.5 * np.log(7 / 6), rel=FEW)
    dchosen, drejected = back(1.0)  # sigmoid(-log 6) = 1/7, over 1 - P
    assert dchosen[0] == pytest.approx(-1 - 0.5 / 7 / 0.25, rel=FEW) and drejected[0] == pytest.approx(0.5 / 7 * 1.5, rel=FEW)
    likelihood, back = orpo(-3 * ONE, -2 * ONE, lam=0.0)
    assert float(likelihood) == 3 and [float(d[0]) for d in back(1.0)] == [-1, 0]
    loss, _ = simpo(-1 * ONE, -2 * ONE, beta=2.0, margin=1.0)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-1)), rel=FEW)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_and_impossible_answers_neither_overflow_nor_warn(dtype):
    """log P from 0, a certain answer, to -1e4, whose probability underflows; where a formula in float64 holds, we equal it."""
    values = np.array([0.0, -1e-3, -0.7, -30.0, -300.0, -1e4])
    chosen, rejected = (a.reshape(-1).astype(dtype) for a in np.meshgrid(values, values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss, back = orpo(chosen, rejected, lam=1.0, total=1.0)
        dchosen, drejected = back(dtype(1))
    assert loss.dtype == dchosen.dtype == drejected.dtype == dtype
    assert np.isfinite(loss) and np.isfinite(dchosen).all() and np.isfinite(drejected).all()
    assert (dchosen <= -1).all() and (drejected >= 0).all()
    plain = (chosen < 0) & (rejected < 0) & (chosen > -31) & (rejected > -31)
    found = float(orpo(chosen[plain], rejected[plain], lam=1.0, total=1.0)[0])
    expected = ref.orpo(chosen[plain].astype(float), rejected[plain].astype(float), lam=1.0, total=1.0)
    # 1 - P of P = e^-0.001 has lost 3 digits in the formula, and log P is rounded to the dtype, as both see it
    assert found == pytest.approx(expected, rel=rounding(100) * 1e3 if dtype == np.float64 else 1e-5)


def test_kto_by_hand():
    """At the reference point each answer loses half its weight, with slopes of beta / 4; far from it nothing is learned."""
    desirable = np.array([True, False])
    options = {"reference_log_probs": np.zeros(2), "desirable": desirable, "beta": 0.5, "desirable_weight": 2.0, "total": 1}
    loss, back = kto(np.full(2, 3.0), kl=3.0, **options)
    assert float(loss) == pytest.approx(1.5, rel=FEW) and back(1.0) == pytest.approx([-0.25, 0.125], rel=FEW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, value in (([1e4, -1e4], 0.0), ([-1e4, 1e4], 3.0)):
            loss, back = kto(np.array(x), kl=0.0, **options)
            assert float(loss) == pytest.approx(value, abs=FEW) and np.abs(back(1.0)).max() < FEW
    assert float(kto(np.full(2, 3.0), kl=np.float64(3.0), **options)[0]) == pytest.approx(1.5, rel=FEW)


def test_the_reference_point():
    x, y = np.array([-1.0, -2.0, -5.0]), np.array([-2.0, -4.0, -4.0])
    assert float(reference_point(x, y)) == pytest.approx(2 / 3, rel=FEW) == ref.reference_point(x, y)
    assert float(reference_point(y, x)) == 0.0 == ref.reference_point(y, x)
    assert reference_point(x.astype(np.float32), y.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("kl", [-0.1, np.nan, "1", None, np.ones(2), True])
def test_a_reference_point_is_a_number(kl):
    with pytest.raises(ValueError, match="^kto: kl: expected "):
        kto(ONE, reference_log_probs=ONE, desirable=ONE > 0, kl=kl)


# ------------------------------------------------------------------------------------------------------- GSPO


def test_the_ratio_of_an_answer_by_hand():
    """log-ratios of 0.3 and -0.1: s = e^0.1 for both tokens, and each has half of its slope."""
    old = np.full((1, 3), -1.0)
    x, w = old + np.array([[0.3, -0.1, 9.0]]), np.array([[0.5, 0.5, 0.0]])
    kwargs = {"old_log_probs": old, "weights": w, "total": 1.0}
    for A, clip, value, slope in ((2.0, 0.2, -2 * np.exp(0.1), -np.exp(0.1)), (2.0, 0.01, -2.02, 0.0),
                                  (-2.0, 0.01, 2 * np.exp(0.1), np.exp(0.1))):  # fmt: skip
        loss, back = sequence_surrogate(x, advantages=np.full((1, 1), A), clip=clip, **kwargs)
        assert float(loss) == pytest.approx(value, rel=FEW)
        assert back(1.0)[0] == pytest.approx([slope, slope, 0.0], rel=FEW)
        found = sequence_statistics(x, clip=clip, **kwargs)
        assert found["clip_fraction"] == (clip == 0.01)
        kl, _ = k3_kl(old, reference_log_probs=x, weights=w, total=1.0)
        assert float(found["update_kl"]) == pytest.approx(float(kl), rel=FEW)


def test_what_stands_outside_the_answers_has_no_influence():
    draw = np.random.default_rng(0)
    x, old, other = draw.normal(size=(3, 4, 5))
    mask = np.arange(5) < np.array([[5], [2], [0], [3]])
    A, w = draw.normal(size=(4, 1)), mask.astype(float)

    def results(*arrays):
        x, old, other = (np.where(mask, a, value) for a, value in zip((x0, old0, other0), arrays))
        loss, back = gspo(x, old_log_probs=old, advantages=A, reference_log_probs=other, beta=0.1, weights=w)
        return [loss, back(1.0), *sequence_statistics(x, old_log_probs=old, weights=w).values()]

    x0, old0, other0 = x, old, other
    expected = results(0, 0, 0)
    assert not expected[1][~mask].any() and expected[1][mask].all()
    for values in ((1e308, -1e308, 1e308), (-1e308, 1e308, 1e308)):
        assert all(np.array_equal(a, b) for a, b in zip(results(*values), expected, strict=True))


def test_a_token_long_answer_is_ppos():
    from tinyplm.losses.policy import clipped_surrogate

    draw = np.random.default_rng(1)
    x, old, A = draw.normal(size=(3, 6, 1))
    a, b = (f(x, old_log_probs=old, advantages=A) for f in (sequence_surrogate, clipped_surrogate))
    assert float(a[0]) == pytest.approx(float(b[0]), rel=FEW) and relative_error(a[1](1.0), b[1](1.0)) < FEW


# ------------------------------------------------------------------------------------------------------- lengths


def test_overlong_answers_are_punished():
    lengths = np.arange(1, 12)
    found = overlong_punishment(lengths, longest=10, room=4)
    assert relative_error(found, np.array(ref_advantages.overlong_punishment(lengths.tolist(), longest=10, room=4))) < FEW
    assert found.tolist() == [0, 0, 0, 0, 0, 0, -0.25, -0.5, -0.75, -1, -1]
    with pytest.raises(ValueError, match="room: expected an integer from 1 to 3, got 4"):
        overlong_punishment(lengths, longest=3, room=4)


@pytest.mark.parametrize("call, message", [
    (lambda: ipo(ONE, ONE, reference_chosen=ONE, reference_rejected=ONE, beta=0), "beta: expected a finite number > 0, got 0"),
    (lambda: hinge(ONE, ONE, reference_chosen=ONE, reference_rejected=np.ones(2)), "reference_rejected: expected"),
    (lambda: orpo(-ONE, -ONE, lam=-1), "lam: expected a finite number >= 0, got -1"),
    (lambda: simpo(-ONE, -ONE, margin=-1), "margin: expected a finite number >= 0, got -1"),
    (lambda: kto(ONE, reference_log_probs=ONE, desirable=ONE, kl=0), "desirable: expected an array of booleans"),
    (lambda: gspo(X2, old_log_probs=X2, advantages=X2), r"advantages: expected .*\(2, 1\)"),
    (lambda: gspo(X2, old_log_probs=X2, advantages=X2[:, :1], beta=0.1), "expected an array with beta 0.1"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Mixtures of experts beyond the laws: the choice, ties, permutations, unused experts, waiting for the device."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.layers.moe as ref
from tests import laws
from tests.gpu.strict import counting, no_synchronisation
from tests.laws import PART, relative_error, rounding
from tinyplm.backend import to_device, to_host
from tinyplm.checks.laws import DIFFERENCE
from tinyplm.core import StackOptions, flatten, stack, tree_map
from tinyplm.layers.activation import clamped_swiglu, silu
from tinyplm.layers.experts import experts
from tinyplm.layers.linear import linear
from tinyplm.layers.mlp import clamped_gated_mlp, gated_mlp
from tinyplm.layers.moe import moe, moe_and_logits, sigmoid_gated
from tinyplm.layers.routing import expert_counts, sigmoid_choice, sigmoid_weights, softmax_weights, top_experts
from tinyplm.losses.balance import load_balancing_loss

on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
EXPERT = partial(gated_mlp, activation=silu)
D, F, X = 4, 3, 6


def weights_of(rng, *lead):
    shapes = {"Wgate": (D, F), "Wup": (D, F), "Wdown": (F, D), "bgate": (F,), "bup": (F,), "bdown": (D,)}
    return {name: rng.normal(size=(*lead, *shape)) for name, shape in shapes.items()}


def mixture(seed, **router):
    rng = np.random.default_rng(seed)
    p = {"router": {"W": rng.normal(size=(D, X)), **router}, "experts": weights_of(rng, X)}
    return p, rng.normal(size=(3, 5, D)), rng


ROUTING = {"choose": partial(top_experts, top_k=2), "weigh": partial(softmax_weights, renormalised=True), "expert": EXPERT}

# ---------------------------------------------------------------------------------------------------------------- the choice


@st.composite
def settings_of_choice(draw):
    """Groups, how many are kept, and so on; logits of few values, so that most of them tie."""
    groups, size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    kept = draw(st.integers(1, groups))
    best, top_k = draw(st.integers(1, size)), draw(st.integers(1, kept * size))
    limits = {"groups": groups, "kept_groups": kept, "best": best, "top_k": top_k}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.integers(-2, 3, (2, 3, groups * size)) if draw(st.booleans()) else rng.normal(size=(2, 3, groups * size))
    bias = rng.integers(-1, 2, groups * size) * 0.5 if draw(st.booleans()) else None
    return logits * 1.0, bias, limits


@on_devices
@given(drawn=settings_of_choice(), dtype=st.sampled_from(["float64", "float32"]))
def test_the_choice_is_that_of_the_loop_also_at_ties(device, drawn, dtype):
    logits, bias, limits = drawn
    moved = [None if a is None else to_device(a.astype(dtype), device) for a in (logits, bias)]
    choice = to_host(top_experts(moved[0], bias=moved[1], **limits))
    assert np.array_equal(choice, ref.top_experts(logits, bias=bias, **limits))
    if bias is None and limits["best"] == 1:  # a sum of sigmoids may be rounded to a tie, or away from one
        assert np.array_equal(to_host(sigmoid_choice(moved[0], **limits)), ref.sigmoid_choice(logits, **limits))


def test_ties_go_to_the_lowest_number(device):
    zeros = to_device(np.zeros((2, 9)), device)
    assert to_host(top_experts(zeros, top_k=4)).tolist() == [[0, 1, 2, 3]] * 2
    assert to_host(sigmoid_choice(zeros, top_k=4, groups=3, kept_groups=2)).tolist() == [[0, 1, 2, 3]] * 2


@given(seed=st.integers(0, 2**32 - 1))
def test_the_bias_chooses_but_does_not_weigh(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(4, X))
    bias = np.zeros(X)
    bias[5] = 10.0
    choice = sigmoid_choice(logits, top_k=2, bias=bias)
    assert np.all(choice[:, 0] == 5)
    w, _ = sigmoid_weights(logits, choice=choice)
    s = 1 / (1 + np.exp(-np.take_along_axis(logits, choice, -1)))
    assert relative_error(w, s / s.sum(-1, keepdims=True)) < PART


def test_only_experts_of_kept_groups_are_chosen():
    """A group's score is its maximum (DeepSeek-V2), or the sum of its two best (DeepSeek-V3)."""
    logits = np.log(np.array([[0.30, 0.01, 0.2, 0.19, 0.16, 0.14]]))
    assert top_experts(logits, top_k=2, groups=3, kept_groups=1).tolist() == [[0, 1]]
    shares = np.exp(logits)
    assert top_experts(shares, top_k=2, groups=3, kept_groups=1, best=2).tolist() == [[2, 3]]
    assert top_experts(shares, top_k=3, groups=3, kept_groups=2, best=2).tolist() == [[0, 2, 3]]


@pytest.mark.parametrize(("name", "limits"), [
    ("top_k", {"top_k": 7}), ("groups", {"top_k": 1, "groups": 4}), ("kept_groups", {"top_k": 1, "groups": 2, "kept_groups": 3}),
    ("top_k", {"top_k": 4, "groups": 2, "kept_groups": 1}), ("best", {"top_k": 1, "groups": 2, "kept_groups": 1, "best": 4}),
])  # fmt: skip
def test_more_experts_than_there_are_are_refused(name, limits):
    with pytest.raises(ValueError, match=f"^top_experts: {name}: expected .*, got "):
        top_experts(np.zeros((2, 6)), **limits)


# --------------------------------------------------------------------------------------------------------------- the weights


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([1.0, 30.0, 1000.0]))
def test_weights_sum_to_the_scale(seed, spread):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (4, X))
    choice = top_experts(logits, top_k=3)
    for w in (
        softmax_weights(logits, choice=choice, renormalised=True, scale=2.5)[0],
        softmax_weights(logits, choice=top_experts(logits, top_k=X), scale=2.5)[0],
    ):
        assert np.all(w >= 0) and relative_error(w.sum(-1), np.full(4, 2.5)) < PART
    small = np.abs(logits) < 600  # a sigmoid below exp(-600) may be nothing beside 1e-20
    w, _ = sigmoid_weights(np.where(small, logits, 0.0) / 20, choice=choice, scale=2.5)
    assert relative_error(w.sum(-1), np.full(4, 2.5)) < PART


def test_renormalised_weights_of_one_expert_are_constant():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, X))
    w, backward = softmax_weights(logits, choice=top_experts(logits, top_k=1), renormalised=True)
    assert np.array_equal(w, np.ones((4, 1))) and not backward(rng.normal(size=(4, 1))).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_sigmoids_keep_their_digits(dtype):
    """Scores of 1e-5 are weighed as exactly as those of 1e-1; by a tanh, float32 would lose them at the third digit."""
    logits = np.array([[-12.0, -12.0 - np.log(3.0)]], dtype)
    w, _ = sigmoid_weights(logits, choice=np.array([[0, 1]]))
    s = 1 / (1 + np.exp(-logits.astype("float64")))
    assert w.dtype == dtype and relative_error(w, s / s.sum()) < rounding(4, dtype=dtype)


# --------------------------------------------------------------------------------------------------------------- the experts


def test_one_expert_for_all_tokens_is_the_plain_layer(device):
    """top_k = X = 1: the weights are 1."""
    rng = np.random.default_rng(1)
    p, x, dy = weights_of(rng), rng.normal(size=(2, 3, D)), rng.normal(size=(2, 3, D))
    whole = {"router": {"W": rng.normal(size=(D, 1))}, "experts": tree_map(lambda a: a[None], p)}
    y, backward = moe(to_device(whole, device), to_device(x, device), **ROUTING | {"choose": partial(top_experts, top_k=1)})
    dp, dx = to_host(list(backward(to_device(dy, device))))
    expected, plain_back = EXPERT(p, x)
    plain_dp, plain_dx = plain_back(dy)
    assert relative_error(to_host(y), expected) < PART and relative_error(dx, plain_dx) < PART
    assert relative_error(tree_map(lambda a: a[0], dp["experts"]), plain_dp) < PART
    assert not dp["router"]["W"].any()


def test_equal_experts_are_one_whichever_are_chosen():
    p, x, rng = mixture(2)
    p["experts"] = tree_map(lambda a: np.broadcast_to(a[:1], a.shape), p["experts"])
    y, _ = moe(p, x, **ROUTING)
    assert relative_error(y, EXPERT(tree_map(lambda a: a[0], p["experts"]), x)[0]) < PART


@given(seed=st.integers(0, 2**32 - 1))
def test_permuted_experts_permute_the_gradients(seed):
    p, x, rng = mixture(seed)
    dy, order = rng.normal(size=x.shape), rng.permutation(X)
    permuted = {"router": {"W": p["router"]["W"][:, order]}, "experts": tree_map(lambda a: a[order], p["experts"])}
    (y, back), (z, permuted_back) = moe(p, x, **ROUTING), moe(permuted, x, **ROUTING)
    (dp, dx), (dq, dz) = back(dy), permuted_back(dy)
    assert relative_error(z, y) < PART and relative_error(dz, dx) < PART
    assert relative_error(dq["router"]["W"], dp["router"]["W"][:, order]) < PART
    assert relative_error(dq["experts"], tree_map(lambda a: a[order], dp["experts"])) < PART


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_tokens_does_not_matter(seed):
    p, x, rng = mixture(seed)
    x, dy = x.reshape(-1, D), rng.normal(size=(15, D))
    order = rng.permutation(15)
    (y, back), (z, permuted_back) = moe(p, x, **ROUTING), moe(p, x[order], **ROUTING)
    (dp, dx), (dq, dz) = back(dy), permuted_back(dy[order])
    assert relative_error(z, y[order]) < PART and relative_error(dz, dx[order]) < PART
    assert laws.apart(dq, dp) < PART


def test_unused_experts_are_not_run_and_get_exactly_zero(device):
    rng = np.random.default_rng(3)
    p, x, choice = weights_of(rng, X), rng.normal(size=(5, D)), np.array([[4, 1], [1, 4], [4, 1], [1, 4], [4, 1]])
    calls = []

    def counted(p, rows):
        calls.append(rows.shape)
        return EXPERT(p, rows)

    moved = to_device([p, x, rng.normal(size=(5, 2))], device)
    for name in p:  # what they hold plays no part
        moved[0][name][0] = float("nan")
    y, backward = experts(*moved, choice=to_device(choice, device), expert=counted)
    assert calls == [(5, D)] * 2 and np.isfinite(to_host(y)).all()
    dp, _, _ = to_host(list(backward(to_device(rng.normal(size=(5, D)), device))))
    for path, d in flatten(dp).items():
        assert not d[[0, 2, 3, 5]].any() and d[1].any() and d[4].any(), path


def test_no_tokens():
    p, _, _ = mixture(4)
    y, backward = moe(p, np.zeros((2, 0, D)), **ROUTING)
    dp, dx = backward(np.zeros((2, 0, D)))
    assert y.shape == dx.shape == (2, 0, D) and not any(d.any() for d in flatten(dp).values())


def test_the_host_waits_once_in_the_forward_and_never_in_the_backward():
    from tests.gpu.strict import register

    register()
    p, x, rng = mixture(5)
    p, x, dy, bias = to_device([p, x, rng.normal(size=x.shape), np.zeros(X)], "strict")
    chosen = {
        "choose": partial(sigmoid_choice, top_k=2, groups=3, kept_groups=2),
        "weigh": sigmoid_weights,
        "expert": EXPERT,
        "bias": bias,
    }
    with counting() as count:
        y, backward = moe(p, x, **chosen)
    assert count.synchronisations == count.device_to_host == 1
    with no_synchronisation():
        backward(dy)
        chosen["choose"](linear(x, p["router"]["W"])[0], bias=bias)
        expert_counts(moe_choice(p, x), experts=X)


def moe_choice(p, x):
    return top_experts(linear(x, p["router"]["W"])[0], top_k=2)


def test_the_same_bits_again(device):
    p, x, rng = mixture(6)
    moved = to_device([p, x, rng.normal(size=x.shape)], device)
    runs = []
    for _ in range(2):
        y, backward = moe(*moved[:2], **ROUTING)
        runs.append(to_host([y, *backward(moved[2])]))
    assert laws.equal(*runs)


def test_a_missing_cotangent_is_zero():
    p, x, rng = mixture(7, b=np.ones(X))
    y, backward = moe_and_logits(p, x, **ROUTING)
    dy = {"hidden": rng.normal(size=x.shape), "logits": rng.normal(size=y["logits"].shape)}
    parts = [backward({name: d}) for name, d in dy.items()]
    both = backward(dy)
    for i in range(2):
        added = tree_map(np.add, parts[0][i], parts[1][i])
        assert laws.apart({"": both[i]}, {"": added}) < PART
    assert not any(d.any() for d in flatten(parts[1][0]["experts"]).values())
    assert list(both[0]) == list(p) and list(both[0]["router"]) == list(p["router"])


def test_a_stream_collects_the_logits_of_all_layers():
    """As a walk would: each layer adds its logits to the stream, and finds their gradient there."""

    def layer(p, stream):
        y, back = moe_and_logits(p, stream["hidden"], **ROUTING)

        def backward(dy):
            *before, dlogits = dy["logits"]
            dp, dx = back({"hidden": dy["hidden"], "logits": dlogits})
            return dp, {"hidden": dx + dy["hidden"], "logits": before}

        return {"hidden": stream["hidden"] + y["hidden"], "logits": [*stream["logits"], y["logits"]]}, backward

    def losses(p0, p1, x, options):
        """A weighted sum of the outputs and the balance of both layers, as one number."""
        c = np.random.default_rng(13).normal(size=x.shape)
        y, back = stack(layer, [p0, p1], {"hidden": x, "logits": []}, options=options)
        logits = np.stack(y["logits"])
        loss, loss_back = load_balancing_loss(logits, choice=top_experts(logits, top_k=2))

        def backward(dloss):
            ps, dx = back({"hidden": dloss * c, "logits": list(loss_back(30.0 * dloss))})
            return *ps, dx["hidden"]

        return (y["hidden"] * c).sum() + 30.0 * loss, backward

    (p0, x, rng), (p1, _, _) = mixture(11), mixture(12)
    for options in (StackOptions(), StackOptions(checkpointing=1)):
        case = laws.Case([p0, p1, x], {"options": options})
        errors = laws.directional_derivative(losses, case, "cpu", rng)
        assert len(errors) == 3 and all(error < DIFFERENCE for _, error in errors)


def test_wrong_experts_are_refused():
    rng = np.random.default_rng(8)
    p, x, w = weights_of(rng, X), rng.normal(size=(5, D)), np.ones((5, 1))
    for choice in (np.full((5, 1), X), np.full((5, 1), -1)):
        with pytest.raises(ValueError, match=f"choice of experts: expected integers from 0 to {X - 1}, got"):
            experts(p, x, w, choice=choice, expert=EXPERT)
    for bad in ({}, {**p, "bup": p["bup"][:3]}, {**p, "bup": np.float64(3)}):
        with pytest.raises(ValueError, match="^experts: p: expected arrays with one axis of experts first, got"):
            experts(bad, x, w, choice=np.zeros((5, 1), int), expert=EXPERT)


# ------------------------------------------------------------------------------------------------------- SwiGLU, shared expert


def test_a_clamped_swiglu_far_inside_and_outside_its_limits():
    z, u = np.array([3.0, 9.0, -2.0, 9.0]), np.array([0.5, 9.0, -9.0, -9.0])
    y, backward = clamped_swiglu(z, u)
    a, v = np.array([3.0, 7.0, -2.0, 7.0]), np.array([0.5, 7.0, -7.0, -7.0])
    assert relative_error(y, a / (1 + np.exp(-1.702 * a)) * (v + 1)) < PART
    dz, du = backward(np.array([0.5, -2.0, 3.0, 1.5]))
    assert dz[1] == dz[3] == 0 and not du[1:].any() and dz[0] != 0 != dz[2]


def test_without_clamps_and_with_alpha_1_it_is_swiglu_with_one_added():
    rng = np.random.default_rng(9)
    p, x = weights_of(rng), rng.normal(size=(5, D))
    y, _ = clamped_gated_mlp(p, x, alpha=1.0, limit=1e6)
    assert relative_error(y, EXPERT({**p, "bup": p["bup"] + 1}, x)[0]) < PART


def test_a_gate_of_zeros_halves_the_shared_expert():
    rng = np.random.default_rng(10)
    p, x = weights_of(rng), rng.normal(size=(5, D))
    y, _ = sigmoid_gated({"w": np.zeros((D, 1)), "mlp": p}, x, f=EXPERT)
    assert relative_error(y, EXPERT(p, x)[0] / 2) < PART


@given(seed=st.integers(0, 2**32 - 1))
def test_counts_of_parts_add_up_exactly(seed):
    rng = np.random.default_rng(seed)
    choice, weights = top_experts(rng.normal(size=(8, 5, X)), top_k=2), rng.integers(0, 2, (8, 5))
    parts = [expert_counts(choice[i:j], experts=X, weights=weights[i:j]) for i, j in ((0, 1), (1, 5), (5, 8))]
    counts = expert_counts(choice, experts=X, weights=weights)
    assert np.array_equal(sum(parts), counts) and counts.sum() == 2 * weights.sum()
    assert np.array_equal(counts, np.bincount(choice[weights == 1].reshape(-1), minlength=X))

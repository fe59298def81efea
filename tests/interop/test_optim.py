# ruff: noqa: E402 - imports follow importorskip
"""AdamW and clipping against torch.optim and torch.nn.utils, Adafactor against transformers and torch.optim, schedules against
transformers.

AdamW is compared in float64 at 1e-12 (largest difference over largest value): each of the 100 updates adds a few roundings of
1e-16, and the gradients depend on the parameters, so a mistake would grow, not cancel.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.laws import FEW, PART, relative_error
from tinyplm.core import flatten, tree_map, unflatten
from tinyplm.optim import schedule
from tinyplm.optim.adafactor import Adafactor
from tinyplm.optim.adamw import AdamW, decays_by_default
from tinyplm.optim.clip import clip_by_global_norm, global_norm

torch.set_num_threads(1)

STEPS = 100


def parameters(seed=0):
    """Matrices, norms, biases and embedding tables of odd shapes, with values of very different magnitude."""
    shapes = {
        "tokens": (7, 5),
        "positions": (3, 5),
        "layers": [
            {"Wq": (5, 3), "bq": (3,), "gamma": (5,)},
            {"Wq": (5, 3), "bq": (3,), "gamma": (5,)},
        ],
        "head": {"W": (5, 7)},
    }
    rng = np.random.default_rng(seed)
    leaves = {path: rng.normal(0, 10.0 ** rng.integers(-2, 2), shape) for path, shape in flatten(shapes).items()}
    return unflatten(leaves, shapes)


def gradient(theta, path, step):
    """A noisy pull towards 0.  The last row of tokens never gets a gradient, like a token that does not occur."""
    g = 0.3 * theta + np.random.default_rng([step, len(path)]).normal(size=theta.shape) * 10.0 ** (step % 5 - 2)
    if path == "tokens":
        g[-1] = 0
    return g


def run_ours(lrs, *, clip=None, **options):
    """The parameters, by path, after one update per learning rate; clip: the limit as a function of the norm."""
    optimizer = AdamW(parameters(), **options)
    for step, lr in enumerate(lrs):
        leaves = {path: gradient(a, path, step) for path, a in flatten(optimizer.params).items()}
        optimizer.gradient.add(unflatten(leaves, optimizer.params))
        limit = None if clip is None else clip(float(optimizer.gradient_norm()))
        optimizer.step(lr, clip=limit)
    return flatten(optimizer.params)


def run_torch(lrs, *, clip=None, decays=decays_by_default, rates=lambda path, a: 1.0, weight_decay=0.01, **options):
    """The same with torch: one group per parameter, with or without decay.  Also returns the norms before clipping."""
    tensors = {path: torch.from_numpy(a).requires_grad_() for path, a in flatten(parameters()).items()}
    groups = [{"params": [t], "weight_decay": weight_decay * decays(path, t), "rate": rates(path, t)}
              for path, t in tensors.items()]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=0.0, **options)
    norms = []
    for step, lr in enumerate(lrs):
        for path, t in tensors.items():
            t.grad = torch.from_numpy(gradient(t.detach().numpy(), path, step))
        if clip is not None:
            norms.append(float(torch.nn.utils.clip_grad_norm_(tensors.values(), clip)))
        for group in optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        optimizer.step()
    return {path: t.detach().numpy() for path, t in tensors.items()}, norms


def assert_same_parameters(ours, theirs):
    assert set(ours) == set(theirs)
    start = flatten(parameters())
    for path in theirs:
        assert relative_error(ours[path], start[path]) > 1e-3, f"{path} has hardly moved"
        error = relative_error(ours[path], theirs[path])
        assert error < 1e-12, f"{path} differs by {error:.1e}"


# --------------------------------------------------------------------------------------------------------- AdamW


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.0},
        {"weight_decay": 0.3, "betas": (0.9, 0.95), "eps": 1e-8},
        {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-3},
        {"weight_decay": 0.1, "betas": (0.0, 0.9), "eps": 1e-6},
        {"weight_decay": 0.1, "betas": (0.9, 0.5), "eps": 1e-6},
        {"weight_decay": 0.1, "decays": lambda path, a: True},
        {"weight_decay": 0.1, "decays": lambda path, a: path.endswith("bq")},
        {"weight_decay": 0.1, "rates": lambda path, a: 0.3 if path.startswith("layers.0") else 1.7},
    ],
    ids=["defaults", "no decay", "other betas", "eps", "beta1 = 0", "beta2 < beta1", "all decay", "some decay", "rates"],
)
def test_adamw_equals_torch_over_100_steps(options):
    """The learning rate changes at every step; decay is multiplied by it, so a decay tied to a fixed rate would show."""
    lrs = [schedule.warmup_cosine(step, peak=0.05, warmup=10, total=STEPS, floor=1e-3) for step in range(STEPS)]
    theirs, _ = run_torch(lrs, **options)
    assert_same_parameters(run_ours(lrs, **options), theirs)


def test_the_default_rule_decays_matrices_only():
    """Without gradients only decay changes anything: the matrices of linear layers, by the same factor as torch's."""
    optimizer = AdamW(parameters(), weight_decay=0.5)
    matrices = {path: torch.from_numpy(a.copy()) for path, a in flatten(parameters()).items() if path.rsplit(".")[-1][0] == "W"}
    assert set(matrices) == {"layers.0.Wq", "layers.1.Wq", "head.W"}
    torch_optimizer = torch.optim.AdamW(matrices.values(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.step(0.1)
        for t in matrices.values():
            t.grad = torch.zeros_like(t)
        torch_optimizer.step()
    for path, a in flatten(parameters()).items():
        expected = matrices[path].numpy() if path in matrices else a
        assert relative_error(flatten(optimizer.params)[path], expected) < (FEW if path in matrices else 1e-300), path


# ----------------------------------------------------------------------------------------------------- Adafactor


def run_adafactor(lrs, gradients=gradient, **options):
    optimizer = Adafactor(parameters(), **options)
    for step in range(STEPS):
        leaves = {path: gradients(a, path, step) for path, a in flatten(optimizer.params).items()}
        optimizer.gradient.add(unflatten(leaves, optimizer.params))
        optimizer.step(lrs[step])
    return flatten(optimizer.params)


def run_torch_optimizer(make, gradients=gradient):
    tensors = {path: torch.from_numpy(a).requires_grad_() for path, a in flatten(parameters()).items()}
    optimizer = make(tensors)
    for step in range(STEPS):
        for path, t in tensors.items():
            t.grad = torch.from_numpy(gradients(t.detach().numpy(), path, step))
        optimizer.step()
    return {path: t.detach().numpy() for path, t in tensors.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relative_step": False, "lr": 0.03},
        {"relative_step": False, "lr": 0.03, "scale_parameter": False},
        {"beta1": 0.9},
        {"beta1": 0.5, "weight_decay": 0.3, "eps": (1e-6, 0.1), "clip_threshold": 0.2, "decay_rate": -0.5},
    ],
    ids=["defaults", "fixed rate", "no scale", "moment", "everything"],
)
def test_adafactor_equals_transformers_over_100_steps(options):
    theirs = run_torch_optimizer(lambda tensors: transformers.Adafactor(tensors.values(), **options))
    lr, renamed = options.get("lr"), {"clip_threshold": "threshold", "scale_parameter": "scale"}
    lrs = [schedule.relative_step(step) if lr is None else lr for step in range(STEPS)]
    ours = {renamed.get(name, name): v for name, v in options.items() if name not in ("lr", "relative_step", "decay_rate")}
    if "decay_rate" in options:
        ours["decay_rate"] = -options["decay_rate"]
    assert_same_parameters(run_adafactor(lrs, decays=lambda path, a: True, **ours), theirs)


def test_the_warm_up_of_adafactor_equals_transformers():
    """Its rates are too small to move anything in 100 steps, so they are compared themselves."""
    group = {"lr": None, "relative_step": True, "warmup_init": True, "scale_parameter": False}
    for step in (0, 1, 99, 9_998, 9_999, 10_000, 10**6):
        theirs = transformers.Adafactor._get_lr(group, {"step": step + 1})
        assert schedule.relative_step(step, warmup_init=True) == pytest.approx(theirs, rel=FEW)


@pytest.mark.parametrize("threshold", [1.0, 1.5])
def test_adafactor_equals_torch_where_the_algorithm_is_the_same(threshold):
    """torch.optim.Adafactor bounds the variance by eps1^2 instead of adding eps1 to the squares, so no gradient may be 0; its
    rate is at most 1 / sqrt(t), so ours is too; it has no first moment, and decays by lr alone, so there is no decay."""

    def nonzero(theta, path, step):
        g = gradient(theta, path, step)
        return np.where(g == 0, 1e-3, g)

    options = {"lr": 0.05, "eps": (1e-30, 1e-3), "d": threshold, "weight_decay": 0.0}
    theirs = run_torch_optimizer(lambda tensors: torch.optim.Adafactor(tensors.values(), **options), nonzero)
    lrs = [min(0.05, (step + 1) ** -0.5) for step in range(STEPS)]
    assert_same_parameters(run_adafactor(lrs, nonzero, threshold=threshold), theirs)


# ------------------------------------------------------------------------------------------------------ clipping
# torch scales by min(1, limit / (norm + 1e-6)), we by min(1, limit / norm).  With our limit at limit * norm / (norm + 1e-6) the
# two formulas are the same, so no extra tolerance is needed.


def torch_limit(limit):
    return lambda norm: limit * norm / (norm + 1e-6)


@pytest.mark.parametrize("limit", [0.5, 30.0, 1e9])  # always, at some steps, never
def test_clipped_steps_equal_torch_over_100_steps(limit):
    lrs = [schedule.warmup_linear(step, peak=0.05, warmup=10, total=STEPS) for step in range(STEPS)]
    theirs, norms = run_torch(lrs, clip=limit, weight_decay=0.1)
    clipped = sum(norm > limit for norm in norms)
    assert {0.5: clipped == STEPS, 30.0: 0 < clipped < STEPS, 1e9: clipped == 0}[limit], clipped
    assert_same_parameters(run_ours(lrs, clip=torch_limit(limit), weight_decay=0.1), theirs)


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("share", [0.01, 0.999, 1.0, 1.001, 100.0])  # limit / norm
def test_clipping_by_the_global_norm_equals_torch(size, share):
    """The norm itself; the scaled tree, with the adjusted limit; and our own scaling, which meets the limit exactly."""
    tree = tree_map(lambda a: a * size, parameters(1))
    tensors = [torch.from_numpy(a.copy()) for a in flatten(tree).values()]
    for t in tensors:
        t.grad = t.clone()
    limit = float(global_norm(tree)) * share
    norm = float(torch.nn.utils.clip_grad_norm_(tensors, limit))
    assert float(global_norm(tree)) == pytest.approx(norm, rel=PART)
    ours, ours_norm = clip_by_global_norm(tree, limit=torch_limit(limit)(norm))
    assert float(ours_norm) == pytest.approx(norm, rel=PART)
    for (path, a), t in zip(flatten(ours).items(), tensors, strict=True):
        np.testing.assert_allclose(a, t.grad.numpy(), rtol=PART, atol=0, err_msg=path)
    clipped, _ = clip_by_global_norm(tree, limit=limit)
    assert float(global_norm(clipped)) == pytest.approx(min(limit, norm), rel=PART)


# ------------------------------------------------------------------------------------------------------ schedules
# Ours warm up with peak (step + 1) / warmup, theirs with peak step / warmup, so their first update has learning rate 0.  During
# warm-up, ours at step equals theirs at step + 1, and both reach the peak at their own `warmup`.  From there on they are the same
# function of the step.

PEAK = 3e-4


def theirs_by_step(name, steps, *, peak=PEAK, **options):
    """The learning rates of transformers' scheduler for updates 0 .. steps - 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = getattr(transformers, name)(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def assert_same_schedule(name, theirs, *, warmup, shifted_warmup=True, **options):
    options = {"total": None, "floor": 0.0, "decay": None, **options}
    ours = [schedule.learning_rate(name, step, peak=PEAK, warmup=warmup, **options) for step in range(len(theirs) - 1)]
    assert ours[warmup] == pytest.approx(PEAK, rel=FEW)
    for step, lr in enumerate(ours):
        if step >= warmup or shifted_warmup:
            expected = theirs[step] if step >= warmup else theirs[step + 1]
            assert lr == pytest.approx(expected, rel=1e-13, abs=1e-16 * PEAK), f"step {step}"


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 17), (1, 20), (7, 20), (19, 20), (100, 1000)])
def test_schedules_equal_transformers_after_the_warm_up_and_one_step_ahead_in_it(warmup, total):
    counts = {"num_warmup_steps": warmup, "num_training_steps": total}
    theirs = theirs_by_step("get_linear_schedule_with_warmup", total + 5, **counts)
    assert_same_schedule("linear", theirs, warmup=warmup, total=total)
    # not beyond the end: there transformers' cosine rises again, while ours stays at the floor
    theirs = theirs_by_step("get_cosine_schedule_with_warmup", total + 2, **counts)
    assert_same_schedule("cosine", theirs, warmup=warmup, total=total)
    theirs = theirs_by_step("get_constant_schedule_with_warmup", total + 5, num_warmup_steps=warmup)
    assert_same_schedule("constant", theirs, warmup=warmup)
    for decay in {1, (total - warmup + 1) // 2, total - warmup}:
        theirs = theirs_by_step("get_wsd_schedule", total + 5, num_decay_steps=decay, decay_type="linear", **counts)
        assert_same_schedule("stable-decay", theirs, warmup=warmup, total=total, decay=decay)


@pytest.mark.parametrize(("warmup", "total"), [(0, 17), (7, 20)])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_schedules_with_a_floor_equal_transformers(warmup, total, share):
    """transformers' variants that end above 0; where its warm-up also starts above 0, only the rest is compared."""
    counts = {"num_warmup_steps": warmup, "num_training_steps": total}
    floor = share * PEAK
    theirs = theirs_by_step("get_polynomial_decay_schedule_with_warmup", total + 5, lr_end=floor, power=1.0, **counts)
    assert_same_schedule("linear", theirs, warmup=warmup, total=total, floor=floor)
    theirs = theirs_by_step("get_cosine_with_min_lr_schedule_with_warmup", total + 2, min_lr_rate=share, **counts)
    assert_same_schedule("cosine", theirs, warmup=warmup, total=total, floor=floor, shifted_warmup=False)
    theirs = theirs_by_step("get_wsd_schedule", total + 5, num_decay_steps=5, decay_type="linear", min_lr_ratio=share, **counts)
    assert_same_schedule("stable-decay", theirs, warmup=warmup, total=total, floor=floor, decay=5, shifted_warmup=False)


@pytest.mark.parametrize("warmup", [1, 2, 7, 100])
def test_the_inverse_square_root_equals_transformers_one_step_ahead(warmup):
    """Also after the warm-up: the paper counts updates from 1, transformers from 0."""
    theirs = theirs_by_step("get_inverse_sqrt_schedule", 5 * warmup + 9, num_warmup_steps=warmup)
    for step, expected in enumerate(theirs[1:]):
        assert schedule.warmup_inverse_sqrt(step, peak=PEAK, warmup=warmup) == pytest.approx(expected, rel=FEW), step
    if warmup > 1:
        # without a warm-up but with T5's time scale it decays at once, from PEAK; T5's rate stays there for `warmup` updates
        theirs = theirs_by_step("get_inverse_sqrt_schedule", 9, num_warmup_steps=0, timescale=warmup)
        for step, expected in enumerate(theirs):
            ours = schedule.constant_inverse_sqrt(warmup + step - 1, peak=PEAK, warmup=warmup)
            assert ours == pytest.approx(expected, rel=FEW), step


def test_after_the_end_the_learning_rate_stays_at_the_floor():
    """Where ours deliberately differs from transformers' cosine."""
    theirs = theirs_by_step("get_cosine_schedule_with_warmup", 16, num_warmup_steps=0, num_training_steps=10)
    assert theirs[15] > theirs[10] == 0
    assert all(schedule.warmup_cosine(step, peak=PEAK, warmup=0, total=10, floor=1e-5) == 1e-5 for step in range(10, 30))

"""Twenty steps of the optimiser with each of its options, clipping, and the schedules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ...core import flatten, tree_map
from ...optim import (
    Adafactor,
    AdamW,
    Optimizer,
    clip_by_global_norm,
    decays_by_default,
    schedule,
)
from .draws import Draws
from .subject import Made, Result, Subject, named

STEPS = 20
SHAPES: dict[str, Any] = {
    "tokens": (5, 3),
    "layers": [{"W": (3, 4), "bias": (4,)}, {"W": (4, 3), "bias": (3,)}],
    "gamma": (3,),
}


def _drawn(rng: Draws, shapes: Any, *lead: int, scale: float = 1.0) -> Any:
    return tree_map(lambda shape: rng.normal(0, scale, (*lead, *shape)), shapes)


def _after_each_step(optimizer: Optimizer, gradients: Any, keywords: Mapping[str, Any]) -> Any:
    """The parameters after each step, stacked; gradients (STEPS, ...)."""
    after = []
    for t, lr in enumerate(keywords["lr"]):
        optimizer.gradient.add(tree_map(lambda a, t=t: a[t], gradients))
        optimizer.step(lr, clip=keywords["clip"])
        after.append(tree_map(lambda a: a.copy(), optimizer.params))
    return named("output.params", tree_map(lambda *a: np.stack(a), *after))


# -------------------------------------------------------------------------------------------- AdamW


def _adamw(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    """params after each step, and the moments after the last; gradients (STEPS, ...) are divided by
    the loss scale before anything else."""
    k, rates = keywords, keywords["rates"]
    optimizer = AdamW(
        arguments["params"],
        betas=k["betas"],
        eps=k["eps"],
        weight_decay=k["weight_decay"],
        decays=lambda path, a: path in k["decayed"],
        rates=None if rates is None else lambda path, a: rates[path],
    )
    gradients = tree_map(lambda a: a / k["loss_scale"], arguments["gradients"])
    outputs = _after_each_step(optimizer, gradients, k)
    outputs |= named("output.m", optimizer.m.tree) | named("output.v", optimizer.v.tree)
    return Result(outputs)


def _adamw_case(number: int, name: str, note: str, scale: float = 1.0, **changes: Any) -> Made:
    rng = Draws((41, number))
    params, gradients = _drawn(rng, SHAPES), _drawn(rng, SHAPES, STEPS)
    keywords = {
        "lr": [schedule.warmup_linear(t, peak=0.1, warmup=4, total=STEPS) for t in range(STEPS)],
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "decayed": [path for path, a in flatten(params).items() if decays_by_default(path, a)],
        "clip": None,
        "rates": None,
        "loss_scale": 1.0,
    } | changes
    gradients = tree_map(lambda a: a * scale * keywords["loss_scale"], gradients)
    if name == "zero-gradients":
        gradients["layers"][0]["W"][:] = 0
        gradients["gamma"][:10] = 0
    return Made(name, note, {"params": params, "gradients": gradients}, keywords)


def _adamw_cases() -> list[Made]:
    rates = {"tokens": 0.25, "gamma": 1.0} | {
        f"layers.{i}.{n}": 0.5 * (i + 1) for i in range(2) for n in ("W", "bias")
    }
    return [
        _adamw_case(0, "adam", ""),
        _adamw_case(1, "weight-decay", "decoupled decay of the matrices alone, before the step",
                    weight_decay=0.1),
        _adamw_case(2, "clipping", "the global norm of some steps is above 1, of others below",
                    scale=0.15, weight_decay=0.01, clip=1.0),
        _adamw_case(3, "loss-scaling", "gradients of 1024 times the loss, divided before clipping",
                    scale=0.15, loss_scale=1024.0, clip=1.0),
        _adamw_case(4, "betas", "other betas, a large eps", betas=(0.8, 0.95), eps=0.1),
        _adamw_case(5, "rates", "a factor on the learning rate for each array", rates=rates,
                    weight_decay=0.1),
        _adamw_case(6, "zero-gradients", "no gradient, ever or in the first ten steps: 0 / eps and "
                    "not 0 / 0, and decay goes on", weight_decay=0.1),
        _adamw_case(7, "zero-rate", "a learning rate of 0: parameters stay, moments move",
                    lr=[0.0] * STEPS),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- Adafactor


def _adafactor(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    """params after each step, and the state after the last."""
    names = ("eps", "threshold", "decay_rate", "beta1", "weight_decay", "scale")
    optimizer = Adafactor(
        arguments["params"],
        decays=lambda path, a: path in keywords["decayed"],
        **{name: keywords[name] for name in names},
    )
    outputs = _after_each_step(optimizer, arguments["gradients"], keywords)
    return Result(outputs | {f"output.{name}": a for name, a in optimizer.state.items()})


def _adafactor_case(number: int, name: str, note: str, **changes: Any) -> Made:
    rng = Draws((43, number))
    params, gradients = _drawn(rng, SHAPES), _drawn(rng, SHAPES, STEPS)
    keywords = {
        "lr": [schedule.relative_step(t) for t in range(STEPS)],
        "eps": (1e-30, 1e-3),
        "threshold": 1.0,
        "decay_rate": 0.8,
        "beta1": 0.0,
        "weight_decay": 0.0,
        "scale": True,
        "decayed": [path for path, a in flatten(params).items() if decays_by_default(path, a)],
        "clip": None,
    } | changes
    return Made(name, note, {"params": params, "gradients": gradients}, keywords)


def _adafactor_cases() -> list[Made]:
    return [
        _adafactor_case(0, "adafactor", ""),
        _adafactor_case(1, "moment", "a first moment, and decoupled decay of the matrices alone",
                        beta1=0.9, weight_decay=0.1),
        _adafactor_case(2, "no-scale", "the rate of a schedule, not relative to the parameters",
                        scale=False, lr=[0.01] * STEPS),
        _adafactor_case(3, "threshold", "updates bounded sooner, other constants, clipping",
                        threshold=0.5, eps=(1e-3, 0.5), decay_rate=0.5, clip=1.0),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------- clipping


def _clip(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    tree, norm = clip_by_global_norm(arguments["tree"], limit=keywords["limit"])
    return Result(named("output.tree", tree) | {"output.norm": np.asarray(norm)})


def _clip_cases() -> list[Made]:
    tree = _drawn(Draws(42), SHAPES)
    small = tree_map(lambda a: a * 0.01, tree)
    zero = tree_map(np.zeros_like, tree)
    return [
        Made("above", "", {"tree": tree}, {"limit": 1.0}),
        Made("below", "a norm below the limit: unchanged", {"tree": small}, {"limit": 1.0}),
        Made("zero", "a norm of 0: zeros, not 0 / 0", {"tree": zero}, {"limit": 1.0}),
        Made("large", "squares that overflow float16",
             {"tree": tree_map(lambda a: a * 1000.0, tree)}, {"limit": 1.0}),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- schedules


def _schedule(f: Any, arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    settings = {n: value for n, value in keywords.items() if n != "steps"}
    rates = [f(int(step), **settings) for step in keywords["steps"]]
    return Result({"output.rates": np.array(rates)})


_ENDLESS = ("warmup_constant", "warmup_inverse_sqrt", "constant_inverse_sqrt")


def _schedule_cases(name: str) -> list[Made]:
    total = {} if name in _ENDLESS else {"total": 30}
    extra = {"decay": 8} if name == "warmup_stable_decay" else {}
    floor = {"floor": 2.0**-14} if total else {}
    steps, base = np.arange(36), {"peak": 2.0**-10, "warmup": 5, **total, **extra}
    cases = [
        Made("warm-up", "", {}, {"steps": steps, **base}),
        Made("no-warm-up", "the first rate is the peak", {}, {"steps": steps, **base, "warmup": 0}),
    ]
    if floor:
        note = "a floor, which stays after the last update"
        cases.append(Made("floor", note, {}, {"steps": steps, **base, **floor}))
    return cases


SUBJECTS = {
    "adamw": Subject("adamw", "optimiser", f"{STEPS} steps of AdamW, with decay, clipping, loss "
                     "scaling, rates by array", AdamW, _adamw, _adamw_cases),
    "adafactor": Subject("adafactor", "optimiser", f"{STEPS} steps of Adafactor, with the means of "
                         "rows and columns", Adafactor, _adafactor, _adafactor_cases),
    "clip_by_global_norm": Subject("clip_by_global_norm", "optimiser", "a tree scaled to a norm",
                                   clip_by_global_norm, _clip, _clip_cases),
}  # fmt: skip
for _name in (*_ENDLESS, "warmup_linear", "warmup_cosine", "warmup_stable_decay"):
    _f = getattr(schedule, _name)
    SUBJECTS[_name] = Subject(
        _name,
        "schedule",
        "the learning rate of each update, counted from 0",
        _f,
        partial(_schedule, _f),
        partial(_schedule_cases, _name),
        dtypes=("float64",),
    )

"""Every setting of every run on both sides of its limits: values just inside are accepted, values just outside are rejected."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinyplm.training.settings import Settings
from tinyplm.tuning.align.distill import DistillSettings
from tinyplm.tuning.align.dpo import DPOSettings
from tinyplm.tuning.align.grpo import GRPOSettings
from tinyplm.tuning.align.kto import KTOSettings
from tinyplm.tuning.align.ppo import PPOSettings
from tinyplm.tuning.align.reward import RewardSettings
from tinyplm.tuning.align.sft import SFTSettings
from tinyplm.tuning.settings import RecipeSettings, TuningSettings


class Kind(NamedTuple):
    accepted: list[Any]
    refused: list[Any]
    expected: str  # in the error message


def whole(least=0, most=None, *, none=False):
    limits = f">= {least}" if most is None else f"from {least} to {most}"
    accepted, refused = (
        [least, np.int64(least), least + 1 if most is None else most],
        [least - 1, least + 0.5, float(least), True, "1"],
    )
    refused += [] if most is None else [most + 1]
    (accepted if none else refused).append(None)
    return Kind(accepted, [*refused, np.nan], f"{'None or ' * none}an integer {limits}")


def number(*, least=None, above=None, most=None, below=None, none=False):
    """The adjacent float64 on either side of each limit."""
    up, down = (lambda v: float(np.nextafter(v, np.inf))), (lambda v: float(np.nextafter(v, -np.inf)))
    accepted = [*([least] if least is not None else []), *([up(above)] if above is not None else []),
                *([most] if most is not None else []), *([down(below)] if below is not None else [])]  # fmt: skip
    refused = [*([down(least)] if least is not None else []), *([above] if above is not None else []),
               *([up(most)] if most is not None else []), *([below] if below is not None else [])]  # fmt: skip
    limits = [f"{sign} {v}" for sign, v in ((">=", least), (">", above), ("<=", most), ("<", below)) if v is not None]
    accepted = accepted + [np.float32(2.0**-20)] if most is None or most > 1e-6 else accepted
    (accepted if none else refused).append(None)
    words = f"{'None or ' * none}a finite number"
    return Kind(accepted, [*refused, np.nan, np.inf, -np.inf, "1", True, 1j], f"{words} {' and '.join(limits)}".strip())


SHARE, POSITIVE, NOT_NEGATIVE = number(least=0, below=1), number(above=0), number(least=0)
FLAG = Kind([True, False, np.True_], [0, 1, None, "yes"], "True or False")
SEED, COUNT, EVERY = whole(0, 2**64 - 1), whole(1), whole(1, none=True)


def choice(*names):
    return Kind(list(names), [names[0].upper(), "", None, 1], f"one of {', '.join(names)}")


SCHEDULE = choice("cosine", "linear", "constant", "stable-decay", "inverse-sqrt", "constant-inverse-sqrt")

RUN = {
    **dict.fromkeys(("steps", "batch_size", "sequence_length", "workers", "evaluate_every", "save_every", "log_every", "keep",
                     "full_every"), COUNT),
    "micro_batch_size": whole(1, 8, none=True), "learning_rate": POSITIVE, "schedule": SCHEDULE, "warmup": whole(0, 999),
    "optimizer": choice("adamw", "adafactor"), "decay": whole(), "floor": number(least=0, most=1e-3),
    "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE,
    "eps": NOT_NEGATIVE, "clip": POSITIVE, "smoothing": SHARE, "seed": SEED, "checkpointing": whole(),
    "save_minutes": number(least=0, none=True), "patience": EVERY, "min_improvement": NOT_NEGATIVE,
    "balance": number(least=0, none=True), "z_loss": NOT_NEGATIVE, "multi_token": NOT_NEGATIVE, "bias_rate": NOT_NEGATIVE,
}  # fmt: skip
SAVING = {"save_every": EVERY, "save_minutes": number(least=0, none=True), "keep": COUNT}
JUDGED = {"evaluate_every": EVERY, "patience": EVERY, "min_improvement": NOT_NEGATIVE}
TUNING = {
    **SAVING,
    **dict.fromkeys(("epochs", "batch_size", "workers"), COUNT), "learning_rate": POSITIVE, "warmup": SHARE,
    "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE, "eps": NOT_NEGATIVE, "clip": POSITIVE, "smoothing": SHARE,
    "auxiliary": NOT_NEGATIVE, "layer_decay": number(above=0, most=1), "trained_layers": whole(0, none=True), "dropout": FLAG,
    "metric": Kind([None, "loss"], [1, True, ["loss"]], "None or a string"), "patience": EVERY, "seed": SEED,
    "checkpointing": whole(),
}  # fmt: skip
RECIPE = {
    **SAVING,
    **dict.fromkeys(("steps", "batch_size", "workers"), COUNT), "micro_batch_size": whole(1, 16, none=True),
    "learning_rate": POSITIVE, "schedule": SCHEDULE, "warmup": whole(), "floor": number(least=0, most=1e-4),
    "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE, "eps": NOT_NEGATIVE, "clip": POSITIVE, "dropout": FLAG,
    "seed": SEED, "checkpointing": whole(),
}  # fmt: skip
ROUND = {**RECIPE, "max_new_tokens": COUNT, "temperature": POSITIVE, "epochs": COUNT, "clip_ratio": number(above=0, below=1),
         "beta": NOT_NEGATIVE}  # fmt: skip
CLASSES = {
    Settings: {**RUN, "warmup": whole(0, 999)},
    TuningSettings: TUNING,
    RecipeSettings: RECIPE,
    SFTSettings: {**RECIPE, **JUDGED, "packed": EVERY, "balance": NOT_NEGATIVE},
    RewardSettings: {**RECIPE, **JUDGED},
    DPOSettings: {**RECIPE, "floor": number(least=0, most=1e-5), "beta": POSITIVE, "smoothing": number(least=0, below=0.5),
                  "joint": FLAG, **JUDGED, "loss": choice("dpo", "ipo", "hinge", "orpo", "simpo"),
                  "lam": NOT_NEGATIVE, "margin": NOT_NEGATIVE,
                  "means": Kind([None, True, False, np.False_], [0, "yes"], "True or False")},
    KTOSettings: {**RECIPE, "floor": number(least=0, most=1e-5), "beta": POSITIVE, "desirable_weight": NOT_NEGATIVE,
                  "undesirable_weight": NOT_NEGATIVE, **JUDGED},
    DistillSettings: {**RECIPE, "temperature": POSITIVE, "divergence": choice("forward", "reverse", "jensen-shannon"),
                      "beta": number(above=0, below=1), "hard": number(least=0, most=1), **JUDGED},
    GRPOSettings: {**ROUND, "group": whole(2), "micro_batch_size": whole(1, 128, none=True), "minibatches": whole(1, 128),
                   "clip_ratio_high": number(above=0, none=True), "scale": FLAG,
                   "aggregation": choice("sequence", "token", "constant"), "ratio": choice("token", "sequence"),
                   "redraws": whole(), "overlong": whole(0, 32)},
    PPOSettings: {**ROUND, "minibatches": whole(1, 16), "clip_value": number(above=0, none=True), "value_weight": NOT_NEGATIVE,
                  "entropy_weight": NOT_NEGATIVE, "gamma": number(least=0, most=1), "lam": number(least=0, most=1),
                  "kl_target": number(above=0, none=True), "kl_horizon": POSITIVE, "cut_score": number(none=True)},
}  # fmt: skip
# With these, only the value under test is at a limit.
BASE = {Settings: {"schedule": "linear"}, PPOSettings: {"minibatches": 1}}
ALONE = {"steps": {"warmup": 0}, "margin": {"loss": "simpo"}}
CASES = [(cls, name) for cls, table in CLASSES.items() for name in table]


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda v: getattr(v, "__name__", v))
def test_borders(cls, name):
    accepted, refused, expected = CLASSES[cls][name]
    base = {**BASE.get(cls, {}), **ALONE.get(name, {})}
    for value in accepted:
        settings = cls(**{**base, name: value})
        assert getattr(settings, name) == value
        assert json.loads(json.dumps(dataclasses.asdict(settings)))[name] == value  # also for a NumPy scalar
    for value in refused:
        with pytest.raises(ValueError, match=rf"^{name}: expected {re.escape(expected)}, got "):
            cls(**{**base, name: value})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda v: v.__name__)
def test_every_setting_is_in_the_table(cls):
    assert CLASSES[cls].keys() == {field.name for field in dataclasses.fields(cls)}


def test_settings_that_depend_on_others():
    with pytest.raises(ValueError, match="^kl_target: expected None if beta is 0, got 1.0"):
        PPOSettings(kl_target=1.0, beta=0.0)
    assert PPOSettings(kl_target=1.0, beta=5e-324).kl_target == 1.0
    for changes, message in (({"margin": 1.0}, 'margin: expected 0 with loss "dpo", since only "simpo" has one, got 1.0'),
                             ({"smoothing": 0.1, "loss": "ipo"}, 'smoothing: expected 0 with loss "ipo"')):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{message}"):
            DPOSettings(**changes)
    assert GRPOSettings(batch_size=1, group=2, minibatches=2, micro_batch_size=2).samples == 2
    for changes, most in (({"minibatches": 3}, 2), ({"micro_batch_size": 3}, 2)):
        with pytest.raises(ValueError, match=f"from 1 to {most}, got 3"):
            GRPOSettings(batch_size=1, group=2, **changes)
    with pytest.raises(ValueError, match="^decay: expected an integer from 1 to 6, got 7"):
        Settings(steps=8, warmup=2, schedule="stable-decay", decay=7)
    assert Settings(steps=8, warmup=2, schedule="stable-decay", decay=6).decay == 6


def test_settings_of_another_recipe():
    for cls in CLASSES:
        if cls is Settings:
            continue
        assert cls.given(None) == cls() and cls.given(cls(seed=3)) == cls(seed=3)
        for other in (Settings(), {"seed": 3}, 5):
            with pytest.raises(ValueError, match=f"^settings: expected {cls.__name__}, got "):
                cls.given(other)
    with pytest.raises(ValueError, match="^settings: expected GRPOSettings, got PPOSettings"):
        GRPOSettings.given(PPOSettings())


@pytest.mark.parametrize("schedule", SCHEDULE.accepted)
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("warmup", [0, 1, 6, 29, 500])
def test_recipes_have_a_rate_for_every_step(schedule, steps, warmup):
    """A warm-up longer than the run ends with the run, whatever the schedule."""
    settings = RecipeSettings(schedule=schedule, steps=steps, warmup=warmup, learning_rate=2.0, floor=0.5)
    rates = [settings.rate(step) for step in range(steps)]
    assert max(rates) == pytest.approx(2.0) and all(0 < rate <= 2.0 for rate in rates)
    whole_warmup = min(warmup, steps - 1)
    rising = [2.0 if schedule == "constant-inverse-sqrt" else 2.0 * (step + 1) / whole_warmup for step in range(whole_warmup)]
    assert rates[:whole_warmup] == pytest.approx(rising)
    assert settings.rate(0, 3 * steps) <= rates[0]  # a run with more updates may have a longer warm-up

"""Laws of loss, their fits, memory over devices, time and energy, against the figures of the papers."""

from __future__ import annotations

import importlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.families import tiny
from tests.support.scripts import assert_one_line
from tinyplm import scaling
from tinyplm.optim import Adafactor, AdamW
from tinyplm.scaling import laws
from tinyplm.scaling.chinchilla import EXCESS_WORTH

# Hoffmann et al. 2022, table 3: parameters, FLOPs, tokens
TABLE_3 = [
    (400e6, 1.92e19, 8.0e9), (1e9, 1.21e20, 20.2e9), (10e9, 1.23e22, 205.1e9), (67e9, 5.76e23, 1.5e12),
    (175e9, 3.85e24, 3.7e12), (280e9, 9.90e24, 5.9e12), (520e9, 3.43e25, 11.0e12), (1e12, 1.27e26, 21.2e12),
    (10e12, 1.30e28, 216.2e12),
]  # fmt: skip


def test_table_3_of_chinchilla():
    """Sizes within 2%, tokens too but for 67 billion: the paper's 1.5e12 is 4.7% above its own FLOPs / 6 N."""
    for N, flops, D in TABLE_3:
        found, tokens = scaling.table_optimum(flops)
        assert found == pytest.approx(N, rel=0.02)
        assert tokens == pytest.approx(D, rel=0.07 if N == 67e9 else 0.02)
        assert 6 * N * D == pytest.approx(flops, rel=0.05 if N == 67e9 else 0.01)
    N, flops, _ = np.array(TABLE_3).T
    k, p = scaling.fit_power(N, flops)
    assert (k, p) == (pytest.approx(103.524, rel=1e-5), pytest.approx(2.00763, rel=1e-5))


def test_the_laws_of_kaplan():
    """Each law is 1 at its own scale; alpha_N / alpha_D = 0.74; the joint law's limits; Hoffmann's quotation of 73 and 27%."""
    for law, scale in ((laws.loss_of_size, 8.8e13), (laws.loss_of_tokens, 5.4e13), (laws.loss_of_compute, 3.1e8 * 8.64e19)):
        assert law(scale) == pytest.approx(1)
    assert laws.loss_of_size(2e9) / laws.loss_of_size(1e9) == pytest.approx(2**-0.076)
    assert laws.loss(1e9, 1e30) == pytest.approx((6.4e13 / 1e9) ** 0.076)
    assert laws.loss(1e30, 1e9) == pytest.approx((1.8e13 / 1e9) ** 0.103)
    assert laws.loss_of_steps(1e9, 1e4) == pytest.approx((6.5e13 / 1e9) ** 0.077 + 0.21**0.76)
    assert laws.critical_batch(2) == pytest.approx(2e8 / 2 ** (1 / 0.21))
    one, ten = laws.optimum(8.64e19), laws.optimum(8.64e20)
    assert one == {
        "N": pytest.approx(1.3e9),
        "batch": pytest.approx(2e6),
        "steps": pytest.approx(5.4e3),
        "D": pytest.approx(2e10),
    }
    assert ten["N"] / one["N"] == pytest.approx(5.37, rel=1e-3) and ten["D"] / one["D"] == pytest.approx(1.86, rel=2e-3)
    assert one["batch"] * one["steps"] == pytest.approx(1.08e10)  # S is S_min: at B_crit twice as many updates give D
    assert laws.needed_tokens(1e9) == pytest.approx(5e3 * 1e9**0.74)
    assert laws.deepseek_rate(1e20) == pytest.approx(0.3118 * 10**-2.5)


def test_the_noise_scale_of_known_noise():
    """|g|^2 of a batch of B is |G|^2 + S / B in the mean."""
    signal, noise = 2.0, 30.0
    assert laws.noise_scale((4, signal + noise / 4), (64, signal + noise / 64)) == pytest.approx(noise / signal)
    with pytest.raises(ValueError, match="the estimate of"):
        laws.noise_scale((4, 100.0), (64, 1.0))


@pytest.mark.parametrize("law", [scaling.HOFFMANN, scaling.BESIROGLU, scaling.MUENNIGHOFF])
def test_an_optimum_has_no_better_neighbour(law):
    for flops in (1e19, 5.76e23):
        N, D = law.optimum(flops)
        best = law.loss(N, D)
        assert 6 * N * D == pytest.approx(flops) and all(law.loss(N * x, D / x) > best for x in (0.98, 1.02))
        assert law.tokens(N, best) == pytest.approx(D) and law.flops(best) == pytest.approx(flops, rel=1e-6)
        alone = scaling.inference_optimal(law, best, 0)
        assert alone == (pytest.approx(N, rel=1e-3), pytest.approx(D, rel=1e-3))
        small, tokens = scaling.inference_optimal(law, best, 10 * D)
        cost = [6 * n * law.tokens(n, best) + 2 * n * 10 * D for n in (small * 0.98, small, small * 1.02)]
        assert small < N and tokens > D and law.loss(small, tokens) == pytest.approx(best) and min(cost) == cost[1]


def test_tokens_a_parameter_of_both_fits():
    """Besiroglu et al. 2024: about 20 by their fit, about 70 by the printed one, at Chinchilla's budget."""
    (N, D), (M, E) = (law.optimum(5.76e23) for law in (scaling.BESIROGLU, scaling.HOFFMANN))
    assert 18 < D / N < 22 and 60 < E / M < 110
    assert scaling.BESIROGLU.beta / (scaling.BESIROGLU.alpha + scaling.BESIROGLU.beta) == pytest.approx(0.5126, abs=1e-4)


def test_repeated_tokens():
    """Muennighoff et al. 2023: four epochs are worth 93% of new tokens; R* epochs more are worth 1 - 1/e of R*."""
    assert scaling.effective(1e9, 4e9) / 4e9 == pytest.approx(0.93, abs=0.005)
    assert scaling.effective(2.0, 2 * (1 + EXCESS_WORTH), EXCESS_WORTH) == pytest.approx(2 + 2 * EXCESS_WORTH * (1 - 1 / math.e))
    assert scaling.effective(5.0, 3.0) == 3 and scaling.effective(1.0, 1e9) == pytest.approx(1 + 15.387756)
    law = scaling.MUENNIGHOFF
    N, D = law.optimum(1e21)
    assert scaling.constrained_loss(N, D, 2 * D) == pytest.approx(law.loss(N, D))
    assert law.loss(N, 4 * D) < scaling.constrained_loss(N, 4 * D, D) < law.loss(N, D)


# ------------------------------------------------------------------------------------------------------------------ fits


def points(noise, seed=0):
    generator = np.random.default_rng(seed)
    N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e10, 7), np.geomspace(1e9, 1e12, 7)))
    losses = np.array([scaling.BESIROGLU.loss(n, d) for n, d in zip(N, D)])
    return N, D, losses * np.exp(noise * generator.standard_normal(len(N)))


def test_approach_3_finds_known_constants_and_bounds_them():
    N, D, losses = points(0)
    assert scaling.fit_law(N, D, losses) == pytest.approx(scaling.BESIROGLU, rel=1e-3)
    noisy = points(1e-3, seed=1)
    noisy[2][::12] *= 1.1  # outliers, which Huber's loss withstands
    assert scaling.fit_law(*noisy) == pytest.approx(scaling.BESIROGLU, rel=0.15)
    low, high = scaling.bootstrap(scaling.fit_law, *points(1e-3, seed=2), repeats=15, level=0.98)
    truth = np.array(scaling.BESIROGLU)
    assert (low < truth).all() and (truth < high).all() and (high - low < 0.5 * truth).all()


def test_approaches_1_and_2_find_the_exponent():
    """On the law itself: curves of 12 sizes, and parabolas of 5 budgets."""
    law, C = scaling.BESIROGLU, np.geomspace(1e18, 1e22, 60)
    exponent = law.beta / (law.alpha + law.beta)
    sizes = np.geomspace(1e8, 2e11, 40)
    N, flops = (a.ravel() for a in np.meshgrid(sizes, C))
    losses = np.array([law.loss(n, c / 6 / n) for n, c in zip(N, flops)])
    k, a = scaling.fit_envelope(N, flops, losses)
    assert a == pytest.approx(exponent, abs=0.03)
    best = np.array([law.optimum(c)[0] for c in (1e18, 1e19, 1e20, 1e21, 1e22)])
    flops = np.repeat([1e18, 1e19, 1e20, 1e21, 1e22], 5)
    N = (best[:, None] * [0.5, 0.7, 1, 1.4, 2]).ravel()
    losses = np.array([law.loss(n, c / 6 / n) for n, c in zip(N, flops)])
    k, a = scaling.fit_isoflops(N, flops, losses)
    assert a == pytest.approx(exponent, abs=0.005) and k * 1e20**a == pytest.approx(best[2], rel=0.02)
    low, high = scaling.bootstrap(scaling.fit_power, flops, N, repeats=20)
    assert low[1] < exponent < high[1]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: scaling.fit_power([1, 1], [1, 2]), "x: expected at least two different numbers, got one"),
    (lambda: scaling.fit_power([1, 2], [1, -2]), "y: expected positive finite numbers"),
    (lambda: scaling.fit_law([1, 2], [1, 2], [1, 2]), "N: expected 5 numbers or more"),
    (lambda: scaling.fit_isoflops([1, 2, 3] * 2, [1] * 3 + [2] * 3, [1, 2, 1] * 2), "losses: expected a lowest place at 1 FLOPs"),
    (lambda: scaling.BESIROGLU.tokens(1e9, 1.5), "loss: expected a finite number > 2"),
    (lambda: scaling.plan(), "flops: expected a budget, or else a loss, got neither"),
    (lambda: scaling.plan(loss=1.0), "loss: expected None or a finite number > 1.8172"),
    (lambda: scaling.seconds(1e9, peak=1e9, utilisation=1.5), "utilisation: expected a finite number > 0 and <= 1"),
    (lambda: scaling.energy(1, watts=400, pue=0.9), "pue: expected a finite number >= 1"),
])  # fmt: skip
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------------------------- memory, time, energy


def test_the_memory_of_zero():
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters on 64 devices take 120, 31.4, 16.6 and 1.9 GB each."""
    family = SimpleNamespace(__name__="made up")
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("tinyplm.scaling.memory")  # tinyplm.scaling.memory is its function
        patch.setattr(module, "shapes_of", lambda *_: {"W": (75_000, 100_000)})
        patch.setattr(module, "check_task", lambda *_: "causal_lm")
        for stage, gigabytes in enumerate((120, 31.4, 16.6, 1.9)):
            found = scaling.states(family, None, dtype="float16", master=True, stage=stage, data=64)
            assert sum(found.values()) / 1e9 == pytest.approx(gigabytes, abs=0.05)
        halves = scaling.states(family, None, dtype="float16", master=True, tensor=4, pipeline=2)
        assert sum(halves.values()) == 16 * 7.5e9 / 8


def test_states_are_what_our_optimisers_hold():
    model = tiny("llama", dtype="float32")
    for name, made in (("adamw", AdamW(model.params)), ("adafactor", Adafactor(model.params))):
        found = scaling.states(model.family, model.config, optimizer=name)
        held = [made.m.buffer, made.v.buffer] if name == "adamw" else made.state.values()
        assert found["moments"] == sum(a.nbytes for a in held) and "master" not in found


def test_published_activations():
    """Korthikanti et al. 2022: GPT-3's 5 a s / h is 80; recomputing attention keeps 34 of 114."""
    sizes = {"length": 2048, "batch": 1, "width": 12288, "heads": 96}
    one = 2048 * 12288
    assert scaling.published_activations(**sizes) == one * 114
    assert scaling.published_activations(**sizes, recompute="attention") == one * 34
    assert scaling.published_activations(**sizes, tensor=8) == one * (10 + 104 / 8)
    assert scaling.published_activations(**sizes, tensor=8, sequence=True, layers=3) == pytest.approx(3 * one * 114 / 8)
    assert scaling.published_activations(**sizes, recompute="layers", tensor=8) == 2 * one


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "deepseek_v3"])
def test_the_cache_and_the_bound_of_decoding(name):
    """Plain, grouped, windowed and latent attention: the bytes that an empty cache has."""
    model = tiny(name, dtype="float32")
    held = model.empty_cache(2, 6).nbytes
    assert scaling.cache(model.family, model.config, batch=2, context=6) == held
    counts = scaling.parameters(model.family, model.config, active=True)
    read = sum(counts.values()) - (0 if scaling.counts.is_tied(model.family, model.config) else counts["embeddings"])
    speed = scaling.decoding_speed(model.family, model.config, bandwidth=1e9, batch=2, context=6)
    assert speed == pytest.approx(2e9 / (4 * read + held))


@pytest.mark.parametrize(("hours", "megawatt_hours", "tonnes"), [
    (809_472, 356, 137), (1_082_880, 475, 183), (82_432, 36, 14), (135_168, 59, 23), (530_432, 233, 90), (1_022_362, 449, 173),
])  # fmt: skip
def test_the_carbon_of_llama_opt_and_bloom(hours, megawatt_hours, tonnes):
    """Touvron et al. 2023, table 15: OPT, BLOOM, LLaMA 7B to 65B; 400 W, PUE 1.1, 0.385 kg a kWh."""
    kwh = scaling.energy(hours, watts=400, pue=1.1)
    assert kwh / 1000 == pytest.approx(megawatt_hours, rel=0.005, abs=0.5)
    assert scaling.carbon(kwh) / 1000 == pytest.approx(tonnes, abs=0.6)


def test_the_time_of_a_run():
    assert scaling.seconds(6 * 1e9 * 2e10, devices=8, peak=1e14, utilisation=0.5) == pytest.approx(1.2e20 / 4e14)


# ------------------------------------------------------------------------------------------------------------------- plan


def test_plans_agree_whatever_names_the_budget(run):
    """A loss leads to its FLOPs; hours on a machine to theirs; a smaller corpus to epochs and a larger loss."""
    law, flops = scaling.BESIROGLU, 3600 * 2 * 4 * 1e14 * 0.5
    by_hours = json.loads(run("plan", "--hours", 2, "--devices", 4, "--peak", "1e14", "--utilisation", 0.5, "--json").out)
    assert [row["law"] for row in by_hours] == ["chinchilla", "besiroglu", "kaplan"]
    assert all(row["flops"] == pytest.approx(flops) and row["hours"] == pytest.approx(2) for row in by_hours)
    assert all(row["loss"] >= by_hours[1]["loss"] and row["tokens"] == pytest.approx(row["batch"] * row["steps"], rel=0.01)
               for row in by_hours)  # fmt: skip
    again = scaling.plan(loss=law.loss(*law.optimum(flops)), demand=1e13, corpus=1e9)
    assert again[1].parameters == pytest.approx(by_hours[1]["parameters"], rel=1e-3)
    assert again[3].law == "inference" and again[3].parameters < again[1].parameters and again[1].epochs > 1
    shown = run("plan", "--flops", "1e20", "--peak", "1e14", "--watts", 400, "--demand", "1e12").out
    assert all(word in shown for word in ("kg_co2e", "kaplan: ", "inference: ", "lr_deepseek")) and "epochs" not in shown
    assert_one_line(run("plan"), "plan: expected one of --flops, --hours and --loss, got none")
    assert_one_line(run("plan", "--hours", 2), "--peak: expected the FLOP/s of a device")
    unused = ("plan", "--flops", "1e20", "--devices", 8)
    assert_one_line(run(*unused), "--devices: expected none without --peak, got 8")
    assert_one_line(run(*unused, "--peak", "1e14", "--pue", 1.5), "--pue: expected none without --watts, got 1.5")
    assert_one_line(run("plan", "--flops", "1e20", "--demand", "1e300"), "--demand: expected a finite number")
    counted = run(
        "count", "--model", "llama-7b", "--dtype", "float16", "--master", "--stage", 1, "--data", 8, "--bandwidth", "2e12"
    ).out
    assert "master copies" in counted and "tokens a second of decoding, at most" in counted

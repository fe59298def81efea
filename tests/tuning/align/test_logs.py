"""Every number that each recipe logs, recomputed by hand: from logits, with the papers' formulas and a separate AdamW."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.laws import MODEL, trained
from tests.models.test_score_models import scored
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_grpo import PROMPTS
from tests.tuning.align.test_learner import some_sequences, tiny
from tinyplm import random
from tinyplm.core import add, flatten, tree_map
from tinyplm.optim.adamw import AdamW
from tinyplm.training.log import read
from tinyplm.tuning.align.distill import DistillSettings, distill
from tinyplm.tuning.align.dpo import DPOSettings, dpo
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.ppo import PPOSettings, experience, ppo
from tinyplm.tuning.align.reward import RewardSettings, reward
from tinyplm.tuning.align.rollouts import Rollouts, rollouts
from tinyplm.tuning.align.sft import SFTSettings, sft
from tinyplm.tuning.data.sequences import batch_numbers

# No value is a default, so a lost setting shows; eps is large, so that gradient sizes matter, and the clip takes effect.
OPTIMISER = {"learning_rate": 0.1, "schedule": "linear", "warmup": 1, "floor": 0.02, "weight_decay": 0.1, "beta1": 0.8,
             "beta2": 0.9, "eps": 1e-2, "clip": 0.5, "seed": 7}  # fmt: skip
STEPS = {"steps": 3, "batch_size": 4, **OPTIMISER}
TRAINED = trained(12, 0.1, 1e-2)  # PPO and GRPO update four times per step
RATES = [0.1, 0.1, 0.06]  # three updates: one of warm-up, then from 0.1 to 0.02 over two
STOPS = range(12)


class ByHand:
    """The model being trained, updated from gradient trees."""

    def __init__(self, model, extra=None):
        self.model, self.start = model._with(), model
        self.optimizer = AdamW({"model": model.params, **({} if extra is None else {"extra": extra})}, betas=(0.8, 0.9), eps=1e-2,
                               weight_decay=0.1)  # fmt: skip
        self.model.params = self.optimizer.params["model"]

    def update(self, gradient, rate, extra=None):
        """Applies one update and returns {"gradient_norm", "learning_rate"}."""
        gradient = {"model": gradient, **({} if extra is None else {"extra": extra})}
        norm = sum(float((a.astype(np.float64) ** 2).sum()) for a in flatten(gradient).values()) ** 0.5
        self.optimizer.gradient.add(tree_map(lambda a: a * min(1, 0.5 / norm), gradient))
        self.optimizer.step(rate)
        return {"gradient_norm": norm, "learning_rate": rate}


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def answer(model, sequence):
    """(log-probabilities of a sequence's counted tokens, backward of their sum), with the sequence as a batch of one."""
    outputs, back = model([sequence.ids[:-1]])
    logits, (places, ids) = outputs["logits"][0], (np.flatnonzero(sequence.counts[1:]), np.array(sequence.ids[1:]))
    log_p = log_softmax(logits)
    dlogits = np.zeros_like(logits)
    dlogits[places] = -np.exp(log_p[places])
    dlogits[places, ids[places]] += 1
    return log_p[places, ids[places]], lambda d: back({"logits": d * dlogits[None]})


def total(trees):
    gradient = None
    for tree in trees:
        gradient = add(gradient, tree)
    return gradient


def batch_order(count, step):
    return batch_numbers(count, 4, step, key=random.fold(random.key(7), 0)).tolist()


def assert_logged(result, rows, folder, validation=()):
    """Checks keys, numbers and log lines, with evaluations at their steps."""
    assert [sorted(found) for found in result.history] == [sorted(row) for row in rows]
    for found, row in zip(result.history, rows):
        assert found == pytest.approx(row, rel=TRAINED, abs=TRAINED)
    lines = list(read(folder / "log.jsonl"))
    assert [line for line in lines if "loss" in line] == result.history
    assert [line for line in lines if "loss" not in line] == list(validation)
    before = [sum("loss" in line for line in lines[: lines.index(line)]) for line in validation]
    assert before == [line["step"] for line in validation]  # each follows its step


def evaluations(result, names):
    found = [{"step": step, **({names: v} if isinstance(names, str) else {f"validation_{n}": v[n] for n in names})}
             for step, v in result.validation.items()]  # fmt: skip
    assert [line["step"] for line in found] == [0, 2, 3]
    return found


def without_times(err: str) -> list[str]:
    """The first and the last line of the progress, which end with times."""
    return [re.fullmatch(r"(.*)  \d+:\d\d elapsed  \d+:\d\d remaining", line)[1] for line in err.splitlines()]


def mean_loss(model, sequences):
    """The mean loss, in nats per counted token."""
    return -float(np.concatenate([answer(model, sequence)[0] for sequence in sequences]).mean())


@pytest.mark.parametrize("options", [{}, {"workers": 2, "micro_batch_size": 3}])
def test_sft(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)  # without tqdm, progress is printed as lines
    model, sequences, held_out = tiny(), some_sequences(6), some_sequences(3, seed=1)
    hand, rows, losses = ByHand(model), [], [mean_loss(model, held_out)]
    for step in range(3):
        some = [answer(hand.model, sequences[n]) for n in batch_order(6, step)]
        count = sum(len(log_p) for log_p, _ in some)
        loss = -sum(log_p.sum() for log_p, _ in some) / count
        rows.append({"step": step + 1, "loss": loss, **hand.update(total(back(-1 / count) for _, back in some), RATES[step])})
        losses.append(mean_loss(hand.model, held_out))
    settings = SFTSettings(**STEPS, **options, evaluate_every=2)
    result = sft(model, sequences, settings, validation=held_out, out=tmp_path)
    assert_logged(result, rows, tmp_path, evaluations(result, "validation_loss"))
    assert list(result.validation.values()) == pytest.approx([losses[0], losses[2], losses[3]], rel=TRAINED)
    shown = [f"step {n}/3  loss {rows[n - 1]['loss']:.3g}  gradient_norm {rows[n - 1]['gradient_norm']:.3g}" for n in (1, 3)]
    said = [f"step {n}: validation loss {losses[n]:.4f}" for n in (0, 2, 3)]
    printed = capsys.readouterr()
    assert printed.out.splitlines() == said and without_times(printed.err) == shown
    facts = json.loads((tmp_path / "final/recipe.json").read_text())
    assert facts["settings"]["floor"] == 0.02 and facts["validation"] == {str(n): v for n, v in result.validation.items()}


def pair_numbers(model, pairs, reference, beta):
    """((chosen, rejected) implicit rewards, each (N,); backwards of the answers' log-probabilities)."""
    rewards, backs = [], []
    for pair, before in zip(pairs, reference):
        found = [answer(model, sequence) for sequence in pair]
        rewards.append([beta * (log_p.sum() - r) for (log_p, _), r in zip(found, before)])
        backs.append([back for _, back in found])
    return np.array(rewards).T, backs


def pair_values(chosen, rejected, e=0.0, margin=0.0):
    z = chosen - rejected - margin
    loss = (1 - e) * np.log1p(np.exp(-z)) + e * np.log1p(np.exp(z))
    wins = (chosen > rejected) + 0.5 * (chosen == rejected)
    return {"loss": loss.mean(), "accuracy": wins.mean(), "margin": (chosen - rejected).mean()}, z


@pytest.mark.parametrize("options", [{}, {"joint": False, "workers": 2}])
def test_dpo(options, tmp_path):
    model, pairs, held_out, e, beta = tiny(), some_pairs(6), some_pairs(3, seed=1), 0.1, 0.4
    old, old_held = ([[answer(model, s)[0].sum() for s in pair] for pair in some] for some in (pairs, held_out))
    hand, rows, found = ByHand(model), [], []

    def values_of(some, reference):
        (chosen, rejected), backs = pair_numbers(hand.model, some, reference, beta)
        values, z = pair_values(chosen, rejected, e)
        return {**values, "chosen": chosen.mean(), "rejected": rejected.mean()}, z, backs

    for step in range(3):
        found.append(values_of(held_out, old_held)[0])
        numbers = batch_order(6, step)
        values, z, backs = values_of([pairs[n] for n in numbers], [old[n] for n in numbers])
        slope = beta * (-(1 - e) / (1 + np.exp(z)) + e / (1 + np.exp(-z))) / 4
        gradient = total(add(first(d), second(-d)) for d, (first, second) in zip(slope, backs))
        rows.append({"step": step + 1, **values, **hand.update(gradient, RATES[step])})
    found.append(values_of(held_out, old_held)[0])
    settings = DPOSettings(**STEPS, **options, beta=beta, smoothing=e, evaluate_every=2)
    result = dpo(model, pairs, settings, validation=held_out, out=tmp_path, progress=False)
    assert_logged(result, rows, tmp_path, evaluations(result, list(found[0])))
    for step, values in result.validation.items():
        assert values == pytest.approx(found[step], rel=TRAINED, abs=TRAINED)


def test_reward(tmp_path):
    model, pairs, held_out = scored(names=["reward"]), some_pairs(6), some_pairs(3, seed=1)
    margins = np.random.default_rng(4).random(6)
    hand, rows, found = ByHand(model), [], []

    def scores(some):
        outputs = [[hand.model([s.ids]) for s in pair] for pair in some]
        return np.array([[o["logits"][0, 0] for o, _ in pair] for pair in outputs]).T, [[b for _, b in pair] for pair in outputs]

    for step in range(3):
        found.append(pair_values(*scores(held_out)[0])[0])
        numbers = batch_order(6, step)
        (chosen, rejected), backs = scores([pairs[n] for n in numbers])
        values, z = pair_values(chosen, rejected, margin=margins[numbers])
        slope = -1 / (1 + np.exp(z)) / 4
        gradient = total(
            add(a({"logits": np.full((1, 1), d)}), b({"logits": np.full((1, 1), -d)})) for d, (a, b) in zip(slope, backs)
        )
        rows.append({"step": step + 1, **values, **hand.update(gradient, RATES[step])})
    found.append(pair_values(*scores(held_out)[0])[0])
    settings = RewardSettings(**STEPS, evaluate_every=2, workers=2, micro_batch_size=3)
    result = reward(model, pairs, settings, margins=margins, validation=held_out, out=tmp_path, progress=False)
    assert_logged(result, rows, tmp_path, evaluations(result, list(found[0])))
    for step, values in result.validation.items():
        assert values == pytest.approx(found[step], rel=TRAINED)
    assert result.offset == pytest.approx(-scores(pairs)[0].mean(), rel=TRAINED)
    assert json.loads((tmp_path / "final/recipe.json").read_text())["offset"] == result.offset


def divergence_of(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum()


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen-shannon"])
def test_distill(divergence, tmp_path):
    model, teacher, sequences, held_out, T, a = (
        tiny(),
        tiny("gpt2", key=8),
        some_sequences(6),
        some_sequences(3, seed=1),
        1.5,
        0.3,
    )
    hand, rows, losses = ByHand(model), [], [mean_loss(model, held_out)]
    for step in range(3):
        some = [sequences[n] for n in batch_order(6, step)]
        count, hard, kl, gradients = sum(sum(s.counts) for s in some), 0.0, 0.0, []
        for sequence in some:
            places, ids = np.flatnonzero(sequence.counts[1:]), np.array(sequence.ids[1:])
            outputs, back = hand.model([sequence.ids[:-1]])
            log_p = log_softmax(outputs["logits"][0, places])
            hard -= log_p[np.arange(len(places)), ids[places]].sum() / count
            p, q = (
                log_softmax(logits[0, places] / T) for logits in (teacher([sequence.ids[:-1]])[0]["logits"], outputs["logits"])
            )
            m = np.log(0.7 * np.exp(p) + 0.3 * np.exp(q))
            mixed = 0.7 * divergence_of(p, m) + 0.3 * divergence_of(q, m)
            values = {"forward": divergence_of(p, q), "reverse": divergence_of(q, p), "jensen-shannon": mixed}
            kl += T**2 * values[divergence] / count
            d = a * np.exp(log_p)
            d[np.arange(len(places)), ids[places]] -= a
            towards, scale = (p, 1) if divergence == "reverse" else (m, 0.3)
            centred = q - towards - (np.exp(q) * (q - towards)).sum(-1, keepdims=True)
            d += (1 - a) * T * (np.exp(q) - np.exp(p) if divergence == "forward" else scale * np.exp(q) * centred)
            dlogits = np.zeros_like(outputs["logits"])
            dlogits[0, places] = d / count
            gradients.append(back({"logits": dlogits}))
        rows.append({"step": step + 1, "loss": a * hard + (1 - a) * kl, "hard": hard, "kl": kl,
                     **hand.update(total(gradients), RATES[step])})  # fmt: skip
        losses.append(mean_loss(hand.model, held_out))
    settings = DistillSettings(**STEPS, temperature=T, hard=a, divergence=divergence, beta=0.7, evaluate_every=2)
    result = distill(model, teacher, sequences, settings, validation=held_out, out=tmp_path, progress=False)
    assert_logged(result, rows, tmp_path, evaluations(result, "validation_loss"))
    assert list(result.validation.values()) == pytest.approx([losses[0], losses[2], losses[3]], rel=TRAINED)


# ------------------------------------------------------------------------------------------------------- by samples


def parts(prompts, answers):
    """The fraction of even tokens as reward, and as another part the length of prompt and answer together."""
    return [{"reward": float(np.mean([i % 2 == 0 for i in a])), "tokens": len(a) + len(p)} for p, a in zip(prompts, answers)]


def k3(d, w):
    return (w * (np.exp(d) - d - 1)).sum()


def drawn_numbers(hand, start, step, samples, temperature):
    """The start of a round: the answers, and their log-probabilities under the policy and under the reference."""
    chosen = [PROMPTS[n] for n in batch_order(4, step)]
    drawn = rollouts(hand.model, chosen, samples=samples, max_new_tokens=4, temperature=temperature, stop_ids=STOPS,
                     seed=random.fold(random.key(7), 1, step))  # fmt: skip
    batch = drawn.arrays()
    targets, inputs = batch.pop("targets"), batch
    old, reference = (m.token_outputs(**inputs, targets=targets, temperature=temperature)[0] for m in (hand.model, start))
    rewards = parts(drawn.prompts, drawn.answers)
    round_values = {
        "reward": np.mean([r["reward"] for r in rewards]), "tokens": np.mean([r["tokens"] for r in rewards]),
        "length": np.mean([len(a) for a in drawn.answers]), "cut": np.mean([a[-1] not in STOPS for a in drawn.answers]),
    }  # fmt: skip
    return drawn, inputs, targets, old, reference, np.array([r["reward"] for r in rewards]), round_values


def minibatches(step, epoch, count, number):
    order = random.generator(random.fold(random.fold(random.key(7), 2, step), epoch)).permutation(count)
    return np.array_split(order, number)


def average(rows):
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def rates(updates):
    return [0.1] + [0.1 + (0.02 - 0.1) * n / (updates - 1) for n in range(updates - 1)]


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_grpo(aggregation, tmp_path):
    model, temperature, beta = tiny(), 0.8, 0.2
    hand, rows = ByHand(model), []
    pending = rates(8)
    for step in range(2):
        drawn, inputs, targets, old, reference, r, values = drawn_numbers(hand, model, step, 3, temperature)
        groups, updates = r.reshape(4, 3), []
        values |= {"reward_deviation": r.std(), "even": np.mean([len(set(group)) == 1 for group in groups.tolist()])}
        A = ((groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)).reshape(-1, 1)
        mask = (targets != -100).astype(float)
        for epoch in range(2):
            for some in minibatches(step, epoch, 12, 2):
                w = mask[some] / {"sequence": len(some) * mask[some].sum(1, keepdims=True), "token": mask[some].sum(),
                                  "constant": len(some) * 4}[aggregation]  # fmt: skip
                outputs, back = hand.model.token_outputs(**{n: a[some] for n, a in inputs.items()}, targets=targets[some],
                                                         temperature=temperature, entropy=True)  # fmt: skip
                x, a = outputs["log_probs"], A[some]
                ratio, ahead = np.exp(x - old["log_probs"][some]), reference["log_probs"][some] - x
                gain = np.minimum(ratio * a, np.clip(ratio, 0.9, 1.3) * a)
                d = np.where(ratio * a <= np.clip(ratio, 0.9, 1.3) * a, -ratio * a, 0) + beta * (1 - np.exp(ahead))
                updates.append({
                    "loss": -(w * gain).sum() + beta * k3(ahead, w), "kl": k3(ahead, w),
                    "entropy": (w * outputs["entropy"]).sum(),
                    "clip_fraction": (w * ((ratio < 0.9) | (ratio > 1.3))).sum(), "update_kl": k3(np.log(ratio), w),
                    **hand.update(back({"log_probs": w * d}), pending.pop(0)),
                })  # fmt: skip
        rows.append({"step": step + 1, **values, **average(updates)})
    settings = GRPOSettings(**{**STEPS, "steps": 2}, group=3, max_new_tokens=4, temperature=temperature, epochs=2, minibatches=2,
                            beta=beta, clip_ratio=0.1, clip_ratio_high=0.3, aggregation=aggregation)  # fmt: skip
    result = grpo(model, PROMPTS, parts, settings, stop_ids=STOPS, out=tmp_path, progress=False)
    assert_logged(result, rows, tmp_path)
    assert 0 < rows[1]["clip_fraction"] < 1 and 0 < rows[0]["cut"] < 1


@pytest.mark.parametrize("options", [{}, {"cut_score": -1.0, "kl_target": 0.3, "kl_horizon": 20.0}, {"clip_value": None}])
def test_ppo(options, tmp_path):
    model, temperature, beta, gamma, lam = tiny(), 0.8, 0.3, 0.9, 0.7
    draw = np.random.default_rng(5)
    start = {"w": draw.normal(size=12), "b": draw.normal(size=1)}
    hand, rows, pending = ByHand(model, start), [], rates(8)
    for step in range(2):
        drawn, inputs, targets, old, reference, scores, values = drawn_numbers(hand, model, step, 1, temperature)
        head, updates, mask = hand.optimizer.params["extra"], [], targets != -100
        if "cut_score" in options:
            scores = np.where([a[-1] in STOPS for a in drawn.answers], scores, -1.0)
        V = np.where(mask, old["hidden"] @ head["w"] + head["b"], 0)
        ratios, A = old["log_probs"] - reference["log_probs"], np.zeros(V.shape)
        for row in range(len(V)):
            places = np.flatnonzero(mask[row]).tolist()
            ahead, following = 0.0, 0.0
            for t in reversed(places):
                r = -beta * ratios[row, t] + (scores[row] if t == places[-1] else 0)
                ahead = r + gamma * following - V[row, t] + gamma * lam * ahead
                A[row, t], following = ahead, V[row, t]
        R = A + V
        kl, known = ratios.sum(axis=1).mean(), 1 - (R - V)[mask].var() / R[mask].var()
        A = np.where(mask, (A - A[mask].mean()) / np.sqrt(A[mask].var() + 1e-8), 0)
        values |= {"score": scores.mean(), "kl": kl, "kl_coefficient": beta, "explained_variance": known}
        for epoch in range(2):
            for some in minibatches(step, epoch, 4, 2):
                w = mask[some] / mask[some].sum()
                outputs, back = hand.model.token_outputs(**{n: a[some] for n, a in inputs.items()}, targets=targets[some],
                                                         temperature=temperature, entropy=True)  # fmt: skip
                ratio, a = np.exp(outputs["log_probs"] - old["log_probs"][some]), A[some]
                gain, v = np.minimum(ratio * a, np.clip(ratio, 0.9, 1.1) * a), outputs["hidden"] @ head["w"] + head["b"]
                near = v if "clip_value" in options else np.clip(v, V[some] - 0.2, V[some] + 0.2)
                far = (v - R[some]) ** 2 >= (near - R[some]) ** 2
                error = 0.5 * (w * np.maximum((v - R[some]) ** 2, (near - R[some]) ** 2)).sum()
                entropy = (w * outputs["entropy"]).sum()
                dV = 0.4 * w * np.where(far, v - R[some], 0)
                gradient = back({"log_probs": w * np.where(ratio * a <= np.clip(ratio, 0.9, 1.1) * a, -ratio * a, 0),
                                 "entropy": -0.05 * w, "hidden": dV[..., None] * head["w"]})  # fmt: skip
                dextra = {"w": np.einsum("nt,ntd->d", dV, outputs["hidden"]), "b": dV.sum(keepdims=True).reshape(1)}
                updates.append({
                    "loss": -(w * gain).sum() + 0.4 * error - 0.05 * entropy, "policy_loss": -(w * gain).sum(),
                    "value_loss": error, "entropy": entropy, "clip_fraction": (w * ((ratio < 0.9) | (ratio > 1.1))).sum(),
                    "update_kl": k3(np.log(ratio), w), **hand.update(gradient, pending.pop(0), dextra),
                })  # fmt: skip
        rows.append({"step": step + 1, **values, **average(updates)})
        if "kl_target" in options:
            beta *= 1 + np.clip(kl / 0.3 - 1, -0.2, 0.2) * 4 / 20
    settings = PPOSettings(**{**STEPS, "steps": 2}, max_new_tokens=4, temperature=temperature, epochs=2, minibatches=2, beta=0.3,
                           clip_ratio=0.1, value_weight=0.4, entropy_weight=0.05, gamma=gamma, lam=lam, **options)  # fmt: skip
    result = ppo(model, PROMPTS, parts, settings, value=start, stop_ids=STOPS, out=tmp_path, progress=False)
    assert_logged(result, rows, tmp_path)
    assert 0 < rows[0]["cut"] < 1 and rows[1]["kl"] != 0
    assert result.value["w"] == pytest.approx(hand.optimizer.params["extra"]["w"], rel=TRAINED)


def test_the_values_explain_nothing_where_returns_do_not_vary():
    """One token each, all with the same return: no variance, and no division by it."""
    from tinyplm.tuning.align.learner import Learner

    model, settings = tiny(), PPOSettings(max_new_tokens=1)
    drawn = Rollouts([[5], [6], [7]], [[9], [10], [0]], [False, False, True], 1)
    learner = Learner(model, settings, extra={"w": np.zeros(12), "b": np.zeros(1)})
    _, record = experience(learner, model, drawn, np.full(3, 0.5), 0.1)
    assert record == {"score": 0.5, "kl": 0.0, "kl_coefficient": 0.1, "explained_variance": 0.0, "length": 1.0,
                      "cut": pytest.approx(2 / 3)}  # fmt: skip
    _, record = experience(learner, model, drawn, np.array([0.5, 0.5, 0.8]), 0.1)
    assert record["explained_variance"] == pytest.approx(0.0, abs=MODEL)  # values of 0 explain none of it

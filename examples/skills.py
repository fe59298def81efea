"""Shared by the tuning examples: a small chat model, and skills it can learn in minutes.

The base is a small LLaMA, pretrained for a minute on Python's documentation; its tokenizer has the
tokens of ChatML.  The skills are deliberately small: copy, reverse or sort a few letters, add two
numbers; each in several phrasings, and tested on held-out inputs.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np

from tinyplm import random
from tinyplm.cli.decoders import small_llama
from tinyplm.data.corpus import default_corpus, split_documents
from tinyplm.data.packing import pack
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.tuning import (
    Rollouts,
    SFTSettings,
    Task,
    TokenSequence,
    conversation,
    prompt_ids,
    rollouts,
    set_chat_format,
    token_log_probs,
)

CHAT = TEMPLATES["chatml"]
WIDTH, CONTEXT = 128, 128  # of the base model
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

TASKS = {
    "copy": Task(
        "copy", ["Copy: {items}", "Say {items}", "Repeat these letters: {items}"], "{answer}"
    ),
    "reverse": Task(
        "reverse", ["Reverse: {items}", "Say {items} backwards", "Turn round: {items}"], "{answer}"
    ),
    "sort": Task(
        "sort", ["Sort: {items}", "Put in order: {items}", "Sort the letters {items}"], "{answer}"
    ),
    "add": Task("add", ["{a} + {b} =", "Add {a} and {b}", "What is {a} plus {b}?"], "{answer}"),
}
LETTERS = ["copy", "reverse", "sort"]  # the skills on letters


@dataclasses.dataclass(frozen=True)
class Sample:
    """A skill, and the fields of its task."""

    skill: str
    fields: dict[str, str]

    @property
    def answer(self) -> str:
        return self.fields["answer"]

    def messages(self, key: int) -> list[dict[str, str]]:
        return TASKS[self.skill].messages(self.fields, key=key)


def samples(skill: str, count: int, *, held_out: bool, seed: int = 0) -> list[Sample]:
    """`count` distinct samples of a skill; a hash assigns inputs to tests or to training."""
    inputs = 50 * 50 if skill == "add" else sum(math.perm(10, length) for length in (2, 3, 4))
    if count > inputs:
        raise ValueError(f"{skill}: expected at most {inputs} distinct samples, got {count}")
    draw = np.random.default_rng([seed, sorted(TASKS).index(skill), held_out])
    found: dict[str, Sample] = {}
    for _ in range(20 * count + 1000):
        if skill == "add":
            a, b = (int(n) for n in draw.integers(0, 50, 2))
            values = {"a": str(a), "b": str(b), "answer": str(a + b)}
        else:
            length = int(draw.integers(2, 5))
            values = turned(skill, draw.choice(list("abcdefghij"), length, replace=False).tolist())
        name = " ".join(value for field, value in values.items() if field != "answer")
        # one input in five, for any skill
        if (random.fold(random.key(99), *name.encode()) % 5 == 0) == held_out:
            found.setdefault(name, Sample(skill, values))
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"{skill}: expected at most {len(found)} distinct samples, got {count}")


def turned(skill: str, letters: list[str]) -> dict[str, str]:
    """The fields of a task on letters."""
    answer = {"copy": letters, "reverse": letters[::-1], "sort": sorted(letters)}[skill]
    return {"items": " ".join(letters), "answer": " ".join(answer)}


def of_each(skills: list[str], count: int, *, held_out: bool, seed: int) -> list[Sample]:
    """`count` samples of each of several skills."""
    return [s for name in skills for s in samples(name, count, held_out=held_out, seed=seed)]


def tuning_settings(*, steps: int, workers: int, seed: int) -> SFTSettings:
    """The settings for fine-tuning the base on skills."""
    rates = {"learning_rate": 3e-3, "warmup": min(50, steps // 4)}
    return SFTSettings(steps=steps, batch_size=64, workers=workers, seed=seed, **rates)


def new_model(
    *, layers: int = 4, width: int = WIDTH, seed: int = 0
) -> tuple[CausalModel, dict[str, np.ndarray]]:
    """(an untrained LLaMA with a ChatML tokenizer, {"train", "validation"} token arrays)."""
    training, validation = split_documents(default_corpus(), 0.02, seed)
    tokenizer = Tokenizer.train(training[::8], 600, SPECIAL)
    end, size = tokenizer.eos_id, tokenizer.vocab_size
    parts = {"train": training[::4], "validation": validation}
    tokens = {n: pack([[], *tokenizer.encode_batch(part)], end, size) for n, part in parts.items()}
    model = small_llama(tokenizer, layers=layers, width=width, context=CONTEXT, key=seed)
    set_chat_format(model, CHAT)
    return model, tokens


def pretrain(
    model: CausalModel, tokens: dict[str, np.ndarray], *, steps: int, workers: int, seed: int = 0
) -> None:
    """Pretrain the model on the token arrays of `new_model`."""
    print(f"base       pretrain {model} for {steps} steps")
    settings = Settings(
        steps=steps,
        batch_size=16,
        sequence_length=CONTEXT,
        learning_rate=3e-3,
        warmup=min(50, steps // 4),
        workers=workers,
        evaluate_every=steps,
        save_every=steps,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "base"
        train(model, tokens["train"], tokens["validation"][:20000], settings, out=out)


def base_model(
    *, steps: int, workers: int, width: int = WIDTH, seed: int = 0
) -> tuple[CausalModel, dict[str, np.ndarray]]:
    """(a LLaMA pretrained on the default corpus, its token arrays)."""
    model, tokens = new_model(width=width, seed=seed)
    pretrain(model, tokens, steps=steps, workers=workers, seed=seed)
    return model, tokens


def sequences(model: CausalModel, some: list[Sample], *, seed: int = 0) -> list[TokenSequence]:
    """Samples as conversations in which the answer counts, in phrasings chosen by the seed."""
    return [
        conversation(model.tokenizer, CHAT, sample.messages(random.fold(random.key(seed), n)))
        for n, sample in enumerate(some)
    ]


def prompts(model: CausalModel, some: list[Sample], *, seed: int = 0) -> list[list[int]]:
    """The same conversations, up to where the answer starts."""
    return [
        prompt_ids(model.tokenizer, CHAT, sample.messages(random.fold(random.key(seed), n))[:1])
        for n, sample in enumerate(some)
    ]


def stop_ids(model: CausalModel) -> list[int]:
    """The tokens that end an answer."""
    return sorted(model.end_ids())


def answers(
    model: CausalModel,
    asked: list[list[int]],
    *,
    max_new_tokens: int = 16,
    workers: int = 1,
    **sampling,
) -> list[str]:
    """The model's answers, greedy unless `sampling` says otherwise."""
    sampling = {"temperature": 0.0, **sampling}
    stops = stop_ids(model)
    drawn = rollouts(
        model, asked, max_new_tokens=max_new_tokens, stop_ids=stops, workers=workers, **sampling
    )
    return drawn.texts(model.tokenizer, stops)


def divergence(model: CausalModel, reference: CausalModel, drawn: Rollouts, workers: int) -> float:
    """The KL divergence to the reference, nats per answer, estimated from the model's answers."""
    now, before = (
        token_log_probs(m, drawn.arrays(), workers=workers)["log_probs"].sum(axis=1)
        for m in (model, reference)
    )
    return float((now - before).mean())


def exact_match(model: CausalModel, some: list[Sample], *, workers: int = 1) -> float:
    """The share of samples answered with exactly the correct text."""
    said = answers(model, prompts(model, some, seed=7), workers=workers)
    return float(np.mean([text.strip() == sample.answer for text, sample in zip(said, some)]))

"""What the examples of tuning share: a small chat model to begin with, and skills that it can be taught in minutes.

The base is a small LLaMA, pretrained for a minute on the documentation that ships with every Python; its tokenizer has the
tokens of ChatML.  The skills are small on purpose: copy, reverse or sort some letters, add two numbers; each asked for in several
phrasings, and tested on inputs that training never has.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np

import tinyplm
from tinyplm import random
from tinyplm.data.corpus import default_corpus, split_documents
from tinyplm.data.packing import pack
from tinyplm.families import llama
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.tuning.align.rollouts import rollouts
from tinyplm.tuning.data.conversations import conversation, prompt_ids, set_chat_format
from tinyplm.tuning.data.sequences import TokenSequence
from tinyplm.tuning.prompts.instructions import Task

CHAT = TEMPLATES["chatml"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

TASKS = {
    "copy": Task("copy", ["Copy: {items}", "Say {items}", "Repeat these letters: {items}"], "{answer}"),
    "reverse": Task("reverse", ["Reverse: {items}", "Say {items} backwards", "Turn round: {items}"], "{answer}"),
    "sort": Task("sort", ["Sort: {items}", "Put in order: {items}", "Sort the letters {items}"], "{answer}"),
    "add": Task("add", ["{a} + {b} =", "Add {a} and {b}", "What is {a} plus {b}?"], "{answer}"),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """skill, the fields of its task, and which inputs are for testing only."""

    skill: str
    fields: dict[str, str]

    @property
    def answer(self) -> str:
        return self.fields["answer"]

    def messages(self, key: int) -> list[dict[str, str]]:
        return TASKS[self.skill].messages(self.fields, key=key)


def samples(skill: str, count: int, *, held_out: bool, seed: int = 0) -> list[Sample]:
    """`count` different samples of a skill; an input belongs to the tests, or to training, by a hash of it."""
    inputs = 50 * 50 if skill == "add" else sum(math.perm(10, length) for length in (2, 3, 4))
    if count > inputs:
        raise ValueError(f"{skill}: there are only {inputs} different samples, not {count}")
    draw = np.random.default_rng([seed, sorted(TASKS).index(skill), held_out])
    found: dict[str, Sample] = {}
    for _ in range(20 * count + 1000):
        if skill == "add":
            a, b = (int(n) for n in draw.integers(0, 50, 2))
            values = {"a": str(a), "b": str(b), "answer": str(a + b)}
        else:
            letters = draw.choice(list("abcdefghij"), int(draw.integers(2, 5)), replace=False).tolist()
            turned = {"copy": letters, "reverse": letters[::-1], "sort": sorted(letters)}[skill]
            values = {"items": " ".join(letters), "answer": " ".join(turned)}
        name = " ".join(value for field, value in values.items() if field != "answer")
        if (random.fold(random.key(99), *name.encode()) % 5 == 0) == held_out:  # one input of five, in whichever skill
            found.setdefault(name, Sample(skill, values))
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"{skill}: there are only {len(found)} different samples, not {count}")


def base_model(*, steps: int, workers: int, layers: int = 4, width: int = 128, vocabulary: int = 600, context: int = 128,
               seed: int = 0, progress: bool = True) -> tuple[CausalModel, dict[str, np.ndarray]]:  # fmt: skip
    """(a LLaMA pretrained on the default corpus, its token arrays {"train", "validation"})."""
    print(f"base       pretrain a LLaMA of {layers} layers of width {width} for {steps} steps")
    training, validation = split_documents(default_corpus(), 0.02, seed)
    tokenizer = Tokenizer.train(training[::8], vocabulary, SPECIAL)
    parts = {"train": training[::4], "validation": validation}
    tokens = {
        name: pack([[], *tokenizer.encode_batch(part)], tokenizer.eos_id, tokenizer.vocab_size) for name, part in parts.items()
    }
    config = llama.Config(vocab_size=tokenizer.vocab_size, hidden_size=width, intermediate_size=-(-8 * width // 3 // 16) * 16,
                          num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=context,
                          tie_word_embeddings=True, initializer_range=round(0.56 / width**0.5, 4), bos_token_id=0,
                          eos_token_id=0)  # fmt: skip
    model = tinyplm.create("llama", config, key=seed)
    model.tokenizer = tokenizer
    set_chat_format(model, CHAT)
    settings = Settings(steps=steps, batch_size=16, sequence_length=context, learning_rate=3e-3, warmup=min(50, steps // 4),
                        workers=workers, evaluate_every=steps, save_every=steps, seed=seed)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(model, tokens["train"], tokens["validation"][:20000], settings, out=Path(folder) / "base", progress=progress)
    return model, tokens


def sequences(model: CausalModel, some: list[Sample], *, seed: int = 0) -> list[TokenSequence]:
    """Samples as conversations of which the answer counts, each in a phrasing of its own."""
    return [
        conversation(model.tokenizer, CHAT, sample.messages(random.fold(random.key(seed), n))) for n, sample in enumerate(some)
    ]


def prompts(model: CausalModel, some: list[Sample], *, seed: int = 0) -> list[list[int]]:
    """The same up to where the answer begins."""
    return [
        prompt_ids(model.tokenizer, CHAT, sample.messages(random.fold(random.key(seed), n))[:1]) for n, sample in enumerate(some)
    ]


def stop_ids(model: CausalModel) -> list[int]:
    """The tokens that end an answer."""
    return sorted(model.end_ids())


def answers(model: CausalModel, asked: list[list[int]], *, max_new_tokens: int = 16, workers: int = 1, **sampling) -> list[str]:
    """What the model answers, greedily unless told otherwise."""
    sampling = {"temperature": 0.0, **sampling}
    stops = stop_ids(model)
    drawn = rollouts(model, asked, max_new_tokens=max_new_tokens, stop_ids=stops, workers=workers, **sampling)
    return drawn.texts(model.tokenizer, stops)


def exact_match(model: CausalModel, some: list[Sample], *, workers: int = 1) -> float:
    """The share of samples that are answered with exactly the right text."""
    said = answers(model, prompts(model, some, seed=7), workers=workers)
    return float(np.mean([text.strip() == sample.answer for text, sample in zip(said, some)]))

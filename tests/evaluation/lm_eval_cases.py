"""Benchmarks asked by lm-evaluation-harness and by us: a model, made-up files, answers in one form.

lm_eval.json has the harness's numbers (EleutherAI/lm-evaluation-harness, lm_eval 0.4.13), written by
`python -m tests.interop.test_lm_eval` where lm_eval, torch and transformers are installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

import tinyplm
from tinyplm.core import tree_map
from tinyplm.evaluation.benchmarks import TASKS, evaluate_task
from tinyplm.evaluation.requests import Likelihood
from tinyplm.tokenizers import Tokenizer

GOLDEN = Path(__file__).with_name("lm_eval.json")
WORDS = "the cat sat on a mat and the dog ran to town while it was raining. Question: Answer: yes no True False 12 7"
ROOM = 64
CHOICES = [["the mat", "a dog that ran", "town"], ["rain", "the cat sat on it", "no"], ["yes", "it was", "a town and a mat"],
           ["it ran", "on", "while raining"], ["True", "a cat", "was it?"]]  # fmt: skip
QUESTIONS = [{"question": f"What sat on the mat {n}?", "choices": {"text": c, "label": ["A", "B", "C"]},
              "answerKey": "ABC"[n % 3]}
             for n, c in enumerate(CHOICES)]  # fmt: skip
BLANKS = [{"sentence": f"The cat and the dog {n} ran while _ was raining on it.", "option1": "the cat", "option2": "a town",
           "answer": "12"[n % 2]} for n in range(4)]  # fmt: skip
LAST_WORDS = [{"text": "the cat sat on a mat"}, {"text": "it was raining  town"}, {"text": "a dog ran to the town"}]
SUMS = [{"question": f"{n} cats and 7 dogs?", "answer": f"It was {n}.\n#### 12"} for n in range(4)]


class Case(NamedTuple):
    task: str
    records: list[dict]
    shots: int = 0
    options: dict = {}


CASES = {
    "questions": Case("arc_easy", QUESTIONS, 0, {"mutual": True}),
    "questions after two": Case("arc_easy", QUESTIONS, 2, {"mutual": True}),
    "questions, one twice, after two": Case("arc_easy", [QUESTIONS[n] for n in (0, 1, 0, 2)], 2, {"mutual": True}),
    "blanks after one": Case("winogrande", BLANKS, 1),
    "last words after one": Case("lambada_openai", LAST_WORDS, 1),
    "texts": Case("text", [{"text": (WORDS + " ") * n} for n in (1, 3, 2)]),
    "sums": Case("gsm8k", SUMS, 0, {"most": 20}),
}


def decoder():
    """A GPT-2 in float64 with weights so large that answers differ."""
    tokenizer = Tokenizer.train([WORDS], 300)
    config = dict(vocab_size=tokenizer.vocab_size, n_positions=ROOM, n_embd=24, n_head=2, n_layer=2)
    model = tinyplm.create("gpt2", config, key=3, dtype="float64")
    model = model.with_params(tree_map(lambda a: a * 12 if a.ndim == 2 else a, model.params))
    model.tokenizer = tokenizer
    return model


def ours(ask, case, folder):
    """{"results": {"acc,none": ...}, "samples": [{"contexts", "answers"}, ...]}, by tinyplm."""
    path = folder / "file.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in case.records), encoding="utf-8")
    found = evaluate_task(ask, TASKS[case.task], str(path), shots=case.shots, **case.options)
    return {"results": found.results, "samples": [_sample(found.task.kind, one) for one in found.asked]}


def _sample(kind, one):
    answers = one.answer[0] + (one.answer[1] or []) if kind == "multiple_choice" else [one.answer]
    answers = [[a.log_prob, a.greedy] if isinstance(a, Likelihood) else a for a in answers]
    return {"contexts": [text for text in one.contexts if text], "answers": answers}


def check_same(found, expected):
    """Each number that is expected, to 1e-8 of it; contexts, texts and the greedy choices exactly."""
    assert expected["results"].keys() <= found["results"].keys()
    for name, value in expected["results"].items():
        assert found["results"][name] == pytest.approx(value, rel=1e-8, abs=1e-12), name
    for one, sample in zip(found["samples"], expected["samples"], strict=True):
        assert one["contexts"] == sample["contexts"]
        assert len(one["answers"]) == len(sample["answers"])
        for answer, value in zip(one["answers"], sample["answers"]):
            assert answer == (value if isinstance(value, str) else pytest.approx(value, rel=1e-8))

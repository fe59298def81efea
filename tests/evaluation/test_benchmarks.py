"""Benchmarks: requests against a loop over single tokens, each published format, few-shot prompts, resuming, bad files."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from reference.evaluation import benchmarks as reference
from tests.support.families import tiny
from tinyplm.evaluation.benchmarks import TASKS, choice_measures, evaluate_task, pass_at_k, passes
from tinyplm.evaluation.benchmarks.gsm8k import flexible_number, plain_number, strict_number
from tinyplm.evaluation.benchmarks.squad import TOTALS
from tinyplm.evaluation.requests import Asker, Cache, Likelihood
from tinyplm.tokenizers import Tokenizer

CONTEXT = 24
TEXT = "the cat sat on the mat and a naïve dog barked. Question: Answer: yes no"


@pytest.fixture(scope="module")
def model():
    tokenizer = Tokenizer.train([TEXT], 290)
    found = tiny("llama", dtype="float64", vocab_size=tokenizer.vocab_size, max_position_embeddings=CONTEXT)
    found.tokenizer = tokenizer
    return found


def log_p(model, ids, first, place):
    """log p of ids[place] from ids[first:place], by itself; whether it is the most probable."""
    logits = model(np.array([ids[first:place]]), grad=False)[0]["logits"][0, -1]
    return logits[ids[place]] - np.logaddexp.reduce(logits), int(logits.argmax()) == ids[place]


def test_likelihoods_one_token_at_a_time(model):
    """Spaces move to the continuation; empty and long contexts; rows shared by continuations of one token."""
    pairs = [("the cat ", "sat on"), ("", "the mat"), (TEXT, " barked"), ("the", " dog"), ("the", " cat"), ("a", "n")]
    found = Asker(model, batch=2).loglikelihood(pairs)
    encode, end = model.tokenizer.encode, model.tokenizer.eos_id
    for (context, continuation), one in zip(pairs, found):
        whole, before = encode(context + continuation), encode(context.rstrip())
        ids, start = ([end, *whole], 1) if not context else (whole, len(before))
        cut = max(0, len(ids) - CONTEXT - 1)
        singles = [log_p(model, ids, cut, place) for place in range(start, len(ids))]
        assert one.log_prob == pytest.approx(sum(p for p, _ in singles), rel=1e-12)
        assert (one.greedy, one.tokens) == (all(best for _, best in singles), len(singles))


@pytest.mark.parametrize("least", [1, 9])
def test_rolling_one_token_at_a_time(model, least):
    texts = [TEXT, "the cat", TEXT * 2]
    found = Asker(model, batch=3).loglikelihood_rolling(texts, least=least)
    for text, total in zip(texts, found):
        ids = [model.tokenizer.eos_id, *model.tokenizer.encode(text)]
        places = list(reference.contexts(len(ids) - 1, CONTEXT, least))
        assert [place for _, place in places] == list(range(1, len(ids)))
        assert all(place - first >= least for first, place in places if first)
        assert total == pytest.approx(sum(log_p(model, ids, *one)[0] for one in places), rel=1e-12)


def test_pass_at_k():
    for n in range(1, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(reference.pass_at_k(n, c, k), abs=1e-14)
    with pytest.raises(ValueError, match="k: expected an integer from 1 to 3, got 4"):
        pass_at_k(3, 1, 4)


def test_choices_by_each_score():
    """Sum, per character, per byte, per token and against the unconditional each prefer another choice."""
    given = [Likelihood(-2.0, False, 1), Likelihood(-4.0, False, 4), Likelihood(-5.0, False, 2), Likelihood(-3.0, False, 1)]
    choices = ["a", "éé", "abcdef", "b"]
    alone = [Likelihood(-1.0, False, 1), Likelihood(-4.0, False, 1), Likelihood(-5.5, False, 1), Likelihood(-9.0, False, 1)]
    best = {name: [gold for gold in range(4) if choice_measures(given, choices, gold, alone)[name]]
            for name in ("acc", "acc_norm", "acc_bytes", "acc_tokens", "acc_mutual_info")}  # fmt: skip
    assert best == {"acc": [0], "acc_norm": [2], "acc_bytes": [2], "acc_tokens": [1], "acc_mutual_info": [3]}


def test_numbers_and_squad():
    said = "So 3 and\n#### 1,200. That is $7"
    assert strict_number(said) == "1,200." and flexible_number(said) == "$7" and strict_number("7") == "[invalid]"
    assert plain_number(strict_number(said)) == plain_number("x #### $1,200") == "1200"
    rows = [(1.0, True, True, 0.1), (0.0, True, True, 0.6), (0.0, False, True, 0.9), (1.0, False, False, 0.2)]
    found = {name: total(rows) for name, total in TOTALS.items() if name.endswith("exact")}
    assert found == {"exact": 50.0, "HasAns_exact": 50.0, "NoAns_exact": 50.0, "best_exact": 75.0}


def test_programs():
    assert passes("assert 1 + 1 == 2")
    assert not passes("assert 1 + 1 == 3") and not passes("import sys\nsys.exit(0)")
    assert not passes("while True: pass", seconds=0.3)
    assert not passes("x = bytearray(2**31)") and not passes("open('f', 'wb').write(b'x' * 2**22)")


Q = {"question": "Is it?", "A": "a", "B": "b", "C": "c", "D": "d"}
MULTIRC = {"passage": {"text": "P.", "questions": [{"question": "Q?", "answers": [{"text": "x", "label": 1}]}]}}
RECORD = {"passage": {"text": "Ann met Bo.\n@highlight\nHot", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 9}]},
          "qas": [{"query": "@placeholder ran", "answers": [{"start": 8, "end": 9, "text": "Bo"}]}]}  # fmt: skip
WSC = {"text": "Tom said he ran .", "label": True,
       "target": {"span1_index": 0, "span1_text": "Tom", "span2_index": 2, "span2_text": "he"}}  # fmt: skip
ASKED = {"question": "Who?", "id": "1", "answers": [{"text": "Ann", "answer_start": 0}], "is_impossible": False}
SQUAD = {"data": [{"title": "T", "paragraphs": [{"context": "C.", "qas": [ASKED]}]}]}
# task -> (a file as published, the context asked, the choices or the answer, the gold one)
FORMATS = {
    "cola": ("gj04\t1\t\tShe ran.\n", "She ran.\nQuestion: Does this sentence make sense?\nAnswer:", "no|yes", 1),
    "sst2": ("sentence\tlabel\nfine \t0\n", "fine \nQuestion: Is this sentence positive or negative?\nAnswer:",
             "negative|positive", 0),
    "mnli": ("index\tsentence1\tsentence2\tgold_label\n0\tA.\tB \tneutral\n",
             "A.\nQuestion: B. True, False or Neither?\nAnswer:", "True|Neither|False", 1),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n", "A.\nQuestion: B. True or False?\nAnswer:",
            "True|False", 1),
    "copa": ({"premise": "It rained.", "choice1": "He ran.", "choice2": "Ann sat.", "question": "effect", "label": 1},
             "It rained therefore", " he ran.| ann sat.", 1),
    "boolq": ({"question": "is it", "passage": "P.", "label": False}, "P.\nQuestion: is it?\nAnswer:", "no|yes", 0),
    "multirc": (MULTIRC, "P.\nQuestion: Q?\nAnswer:", "x\nIs the answer correct? yes|x\nIs the answer correct? no", 1),
    "record": (RECORD, "Ann met Bo.\n\n  - Hot.\n", "  - Ann ran|  - Bo ran", 1),
    "wsc": (WSC,
            'Passage: Tom said *he* ran.\nQuestion: In the passage above, does the pronoun "*he*" refer to "*Tom*"?\nAnswer:',
            "no|yes", 1),
    "hellaswag": (
                  {"activity_label": "Run", "ctx_a": "He [x] ran.", "ctx_b": "he", "endings": ["sat [title] B", "b"], "label": 1},
                  "Run: He ran. He", "sat. B|b", 1),
    "piqa": ({"goal": "G", "sol1": "a", "sol2": "b", "label": 1}, "Question: G\nAnswer:", "a|b", 1),
    "arc_easy": ({"question": {"stem": "S?", "choices": [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]},
                  "answerKey": "2"}, "Question: S?\nAnswer:", "a|b", 1),
    "lambada_openai": ({"text": "the cat sat"}, "the cat", " sat", 0),
    "mmlu": ('"Is\nit?",a,b,c,d,C\n', "Is\nit?\nA. a\nB. b\nC. c\nD. d\nAnswer:", "A|B|C|D", 2),
    "ceval": ("id,question,A,B,C,D,answer\n0,Is it?,a,b,c,d,B\n", "Is it?\nA. a\nB. b\nC. c\nD. d\n答案：", "A|B|C|D", 1),
    "cmmlu": (",Question,A,B,C,D,Answer\n0,Is it?,a,b,c,d,D\n", "Is it?\nA. a\nB. b\nC. c\nD. d\n答案：", "A|B|C|D", 3),
    "squadv2": (SQUAD, "Title: T\n\nBackground: C.\n\nQuestion: Who?\n\nAnswer:", " Ann", 0),
    "xsum": ({"document": "D.", "summary": "S."}, "Summarize the following article:\n\nD.\n\nSummary:", "S.", 0),
    "gsm8k": ({"question": "1+1?", "answer": "#### 2"}, "Question: 1+1?\nAnswer:", "#### 2", 0),
}  # fmt: skip


def write(path, content):
    text = content if isinstance(content, str) else json.dumps(content) + "\n"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", FORMATS)
def test_published_formats(name, tmp_path):
    content, context, choices, gold = FORMATS[name]
    (sample,) = TASKS[name].read(write(tmp_path / "f", content))
    assert (sample.contexts, "|".join(sample.choices), sample.gold) == ((context,), choices, gold)
    bad = content.replace("\t", " ").replace(",", ";") if isinstance(content, str) else {"other": 1}
    with pytest.raises(ValueError, match=r"f(, line \d+)?: expected") as error:
        TASKS[name].read(write(tmp_path / "f", bad))
    assert "\n" not in str(error.value)


def test_winogrande_with_examples(model, tmp_path):
    """A context for each option; the examples that lm-evaluation-harness's random numbers draw."""
    records = [{"sentence": f"Is it {n} or _ here.", "option1": "a", "option2": "b", "answer": "2"} for n in range(5)]
    path = write(tmp_path / "w.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    found = evaluate_task(Asker(model), TASKS["winogrande"], path, shots=2, limit=3)
    draw = Random(1234)
    for n, one in enumerate(found.asked):
        chosen = [k for k in draw.sample(range(5), 3) if k != n][:2]
        before = "".join(f"Is it {k} or b here.\n\n" for k in chosen)
        assert one.contexts == (f"{before}Is it {n} or a", f"{before}Is it {n} or b")
    assert found.results["acc,none"] == sum(one.measures["acc"] for one in found.asked) / 3
    with pytest.raises(ValueError, match="shots: expected at most 4, the examples, got 5"):
        evaluate_task(Asker(model), TASKS["winogrande"], path, shots=5)


def test_a_killed_evaluation_resumes(model, tmp_path):
    """The last line torn: the same answers bit for bit, asking only the batches that are missing; another model asks all."""
    asked = []
    pairs = [("the", f" {word}") for word in TEXT.split()]
    path = tmp_path / "cache.jsonl"
    run = lambda **changes: Asker(model, batch=4, cache=Cache(path), **changes).loglikelihood(pairs)  # noqa: E731
    whole = run()
    lines = path.read_bytes()
    path.write_bytes(lines[: len(lines) - 20])
    forward = Asker._forward
    try:
        Asker._forward = lambda self, rows, some: asked.append(len(rows)) or forward(self, rows, some)
        assert run() == whole and len(asked) == 1
        assert run() == whole and len(asked) == 1 and Cache(path).damaged == 0
        assert run(fingerprint="another") == whole and len(asked) > 1
    finally:
        Asker._forward = forward


def test_generated_until(model):
    """Up to a stop string, by greedy choices."""
    (free,) = Asker(model).generate_until(["the cat"], most=6)
    assert free and Asker(model).generate_until(["the cat"], until=[free[2]], most=6) == [free[: free.index(free[2])]]
    with pytest.raises(ValueError, match="most: expected fewer than the 24 tokens of the context, got 24"):
        Asker(model).generate_until(["the"], most=24)

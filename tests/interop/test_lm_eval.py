# ruff: noqa: E402 - imports follow importorskip
"""Benchmarks against lm-evaluation-harness: one tiny model folder, made-up files, its task settings as published.

The model is transformers' GPT-2 with random weights; both sides compute in float64 and read the same tokenizer.
Their batches hold one request: with three, release 0.4.13 gives a long text another rolling likelihood than by itself.
"""

from __future__ import annotations

import json

import pytest

pytest.importorskip("lm_eval")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

import tinyplm
from tests.interop.pair import float64
from tinyplm.evaluation.benchmarks import TASKS, evaluate_task
from tinyplm.evaluation.requests import Asker
from tinyplm.tokenizers import Tokenizer

WORDS = "the cat sat on a mat and the dog ran to town while it was raining. Question: Answer: yes no True False 12 7"
CHOICES = [["the mat", "a dog that ran", "town"], ["rain", "the cat sat on it", "no"], ["yes", "it was", "a town and a mat"],
           ["it ran", "on", "while raining"], ["True", "a cat", "was it?"]]  # fmt: skip
METRICS = ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"]
ROOM = 64


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(lm-eval's, ours) of one folder."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    tokenizer = Tokenizer.train([WORDS], 300)
    model = tinyplm.create("gpt2", dict(vocab_size=tokenizer.vocab_size, n_positions=ROOM, n_embd=24, n_head=2, n_layer=2),
                           key=3, dtype="float64")  # fmt: skip
    model = model.with_params(_larger(model.params))
    model.tokenizer = tokenizer
    tinyplm.save(model, folder)
    with float64():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
        reads = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>")
        yield HFLM(pretrained=theirs, tokenizer=reads, batch_size=1, max_length=ROOM), Asker(model, batch=4)


def _larger(tree):
    """Weights so large that answers differ."""
    from tinyplm.core import tree_map

    return tree_map(lambda a: a * 12 if a.ndim == 2 else a, tree)


def _theirs(lm, records, shots=0, **settings):
    """Results and log-likelihoods by sample of a task with these settings, on these records."""
    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(records)})
    given = {"task": "made_up", "dataset_path": "none", "test_split": "test", "num_fewshot": shots, **settings}
    given["custom_dataset"] = lambda **_: data
    task = ConfigurableTask(config=given)
    out = lm_eval.simple_evaluate(lm, tasks=[task], num_fewshot=shots, bootstrap_iters=2, verbosity="ERROR")
    return out["results"]["made_up"], out["samples"]["made_up"]


def _lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def _same(ours, theirs, *names):
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name


def _listed(names):
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


@pytest.mark.parametrize("shots", [0, 2])
def test_multiple_choice(models, tmp_path, shots):
    """ARC: accuracies with standard errors, each log-likelihood, drawn examples; prompts longer than the context."""
    lm, ask = models
    records = [{"question": f"What sat on the mat {n}?", "choices": {"text": c, "label": ["A", "B", "C"]},
                "answerKey": "ABC"[n % 3]}
               for n, c in enumerate(CHOICES)]  # fmt: skip
    theirs, samples = _theirs(lm, records, shots, output_type="multiple_choice", doc_to_text="Question: {{question}}\nAnswer:",
                              doc_to_target="{{choices.label.index(answerKey)}}", doc_to_choice="{{choices.text}}",
                              metric_list=_listed(METRICS))  # fmt: skip
    path = _lines(tmp_path / "arc.jsonl", records)
    ours = evaluate_task(ask, TASKS["arc_easy"], path, shots=shots, mutual=True)
    _same(ours.results, theirs, *(f"{name}{end},none" for name in METRICS for end in ("", "_stderr")))
    for one, sample in zip(ours.asked, sorted(samples, key=lambda s: s["doc_id"]), strict=True):
        assert one.contexts[0] == sample["arguments"][0][0]
        for (log_p, greedy, _), (their_p, their_greedy) in zip(one.answer[0] + one.answer[1], [r[0] for r in sample["resps"]]):
            assert log_p == pytest.approx(their_p, abs=1e-9) and greedy == their_greedy


def test_winogrande_and_last_words(models, tmp_path):
    """A context for each choice; LAMBADA's perplexity."""
    lm, ask = models
    records = [{"sentence": f"The cat and the dog {n} ran while _ was raining on it.", "option1": "the cat", "option2": "a town",
                "answer": "12"[n % 2]} for n in range(4)]  # fmt: skip
    from lm_eval.tasks.winogrande import preprocess_winogrande as w

    theirs, _ = _theirs(lm, records, 1, output_type="multiple_choice", doc_to_text=w.doc_to_text, doc_to_target=w.doc_to_target,
                        doc_to_choice=w.doc_to_choice, metric_list=_listed(["acc"]))  # fmt: skip
    ours = evaluate_task(ask, TASKS["winogrande"], _lines(tmp_path / "w.jsonl", records), shots=1)
    _same(ours.results, theirs, "acc,none", "acc_stderr,none")
    records = [{"text": "the cat sat on a mat"}, {"text": "it was raining  town"}, {"text": "a dog ran to the town"}]
    metrics = [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}, *_listed(["acc"])]
    theirs, _ = _theirs(lm, records, 1, output_type="loglikelihood", doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
                        doc_to_target="{{' '+text.split(' ')[-1]}}", metric_list=metrics)  # fmt: skip
    ours = evaluate_task(ask, TASKS["lambada_openai"], _lines(tmp_path / "l.jsonl", records), shots=1)
    assert ours.results["perplexity,none"] == pytest.approx(theirs["perplexity,none"], rel=1e-6)
    _same(ours.results, theirs, "acc,none")


def test_rolling_perplexity(models, tmp_path):
    """Texts shorter and longer than the context."""
    lm, ask = models
    records = [{"text": (WORDS + " ") * n} for n in (1, 3, 2)]
    names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    theirs, samples = _theirs(lm, records, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
                              metric_list=[{"metric": name} for name in names])  # fmt: skip
    ours = evaluate_task(ask, TASKS["text"], _lines(tmp_path / "t.jsonl", records))
    for one, sample in zip(ours.asked, sorted(samples, key=lambda s: s["doc_id"]), strict=True):
        assert one.answer == pytest.approx(float(sample["resps"][0][0]), abs=1e-8)
    for name in names:
        assert ours.results[f"{name},none"] == pytest.approx(theirs[f"{name},none"], rel=1e-6)


def test_generated_numbers(models, tmp_path):
    """GSM8K: both filters, on greedy texts."""
    lm, ask = models
    records = [{"question": f"{n} cats and 7 dogs?", "answer": f"It was {n}.\n#### 12"} for n in range(4)]
    regex = [("strict-match", {"regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}),
             ("flexible-extract", {"group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"})]  # fmt: skip
    filters = [{"name": n, "filter": [{"function": "regex", **how}, {"function": "take_first"}]} for n, how in regex]
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True,
              "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}  # fmt: skip
    theirs, samples = _theirs(lm, records, output_type="generate_until", doc_to_text="Question: {{question}}\nAnswer:",
                              doc_to_target="{{answer}}", metric_list=[metric], filter_list=filters,
                              generation_kwargs={"until": ["Question:"], "do_sample": False, "max_gen_toks": 20})  # fmt: skip
    ours = evaluate_task(ask, TASKS["gsm8k"], _lines(tmp_path / "g.jsonl", records), most=20)
    _same(ours.results, theirs, *(f"exact_match{end},{name}" for name, _ in regex for end in ("", "_stderr")))
    said = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}
    assert [one.answer for one in ours.asked] == [said[n] for n in range(4)]

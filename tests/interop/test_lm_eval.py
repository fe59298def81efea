# ruff: noqa: E402 - imports follow importorskip
"""Benchmarks against lm-evaluation-harness: one tiny model folder, made-up files, its task settings as published.

The model is transformers' GPT-2 with random weights; both sides compute in float64 and read the same tokenizer.
Batches of the harness hold one request.  Of rolling windows that read the same tokens but predict different numbers of them
(a text that repeats itself has such), 0.4.13 computes one and gives the others its first predicted positions, not its last
(models/huggingface.py, gather after get_cache); with logits_cache=False a batch of three gives the numbers of batches of one.
Run as a module, this writes the harness's numbers into tests/evaluation/lm_eval.json.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.winogrande import preprocess_winogrande

import tinyplm
from tests.evaluation.lm_eval_cases import CASES, GOLDEN, ROOM, check_same, decoder, ours
from tests.interop.pair import float64
from tinyplm.evaluation.requests import Asker


def _listed(*names):
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


NUMBERS = {"strict-match": {"regex_pattern": "#### (\\-?[0-9\\.\\,]+)"},
           "flexible-extract": {"group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"}}  # fmt: skip
# from lm_eval/tasks: arc/arc_easy.yaml, winogrande/default.yaml, lambada/lambada_openai.yaml, wikitext/wikitext.yaml,
# gsm8k/gsm8k.yaml
SETTINGS = {
    "arc_easy": {"output_type": "multiple_choice", "doc_to_text": "Question: {{question}}\nAnswer:",
                 "doc_to_target": "{{choices.label.index(answerKey)}}", "doc_to_choice": "{{choices.text}}",
                 "metric_list": _listed("acc", "acc_norm", "acc_bytes", "acc_mutual_info")},
    "winogrande": {"output_type": "multiple_choice", "doc_to_text": preprocess_winogrande.doc_to_text,
                   "doc_to_target": preprocess_winogrande.doc_to_target,
                   "doc_to_choice": preprocess_winogrande.doc_to_choice, "metric_list": _listed("acc")},
    "lambada_openai": {"output_type": "loglikelihood", "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
                       "doc_to_target": "{{' '+text.split(' ')[-1]}}",
                       "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                                       *_listed("acc")]},
    "text": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
             "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]},
    "gsm8k": {"output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}",
              "metric_list": [{**_listed("exact_match")[0], "ignore_case": True,
                               "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}],
              "filter_list": [{"name": name, "filter": [{"function": "regex", **how}, {"function": "take_first"}]}
                              for name, how in NUMBERS.items()],
              "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 20}},
}  # fmt: skip


@contextlib.contextmanager
def models(folder, batch=1):
    """lm-eval's model and ours, of one folder."""
    model = decoder()
    tinyplm.save(model, folder)
    with float64():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
        reads = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>")
        yield HFLM(pretrained=theirs, tokenizer=reads, batch_size=batch, max_length=ROOM), Asker(model, batch=4)


def harness(lm, case):
    """The same form as lm_eval_cases.ours.

    fewshot_split names the split that is asked, so that the harness leaves the question itself out of its examples (without
    the name it does not).  Standard errors of a perplexity are bootstrapped there, and absent here.
    """
    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(case.records)})
    given = {"task": "made_up", "dataset_path": "none", "test_split": "test", "fewshot_split": "test", **SETTINGS[case.task]}
    task = ConfigurableTask(config={**given, "num_fewshot": case.shots, "custom_dataset": lambda **_: data})
    out = lm_eval.simple_evaluate(lm, tasks=[task], num_fewshot=case.shots, bootstrap_iters=2, verbosity="ERROR")
    numbers = {k: v for k, v in out["results"]["made_up"].items() if "," in k and "perplexity_stderr" not in k}
    numbers = {name: float(value) for name, value in numbers.items() if value != "N/A" and "byte_stderr" not in name}
    samples = {sample["doc_id"]: sample for sample in out["samples"]["made_up"]}  # one for each filter: the same answers
    return {"results": numbers, "samples": [_sample(given["output_type"], samples[n]) for n in sorted(samples)]}


def _sample(kind, sample):
    answers = [answer[0] for answer in sample["resps"]]
    if kind == "loglikelihood_rolling":
        return {"contexts": [], "answers": [float(answer) for answer in answers]}
    contexts = list(dict.fromkeys(arguments[0] for arguments in sample["arguments"] if arguments[0]))
    plain = kind == "generate_until"
    return {"contexts": contexts, "answers": [a if plain else [float(a[0]), bool(a[1])] for a in answers]}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with models(tmp_path_factory.mktemp("models") / "gpt2") as found:
        yield found


@pytest.mark.parametrize("name", CASES)
def test_same_numbers(name, both, tmp_path):
    """Of both, and of the file of numbers that stands for the harness where it is not installed."""
    theirs = harness(both[0], CASES[name])
    check_same(ours(both[1], CASES[name], tmp_path), theirs)
    check_same(theirs, json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"][name])


def write():
    about = f"EleutherAI/lm-evaluation-harness, lm_eval {lm_eval.__version__}, written by tests/interop/test_lm_eval.py"
    with tempfile.TemporaryDirectory() as folder, models(Path(folder, "gpt2")) as (lm, _):
        found = {name: harness(lm, case) for name, case in CASES.items()}
    GOLDEN.write_text(json.dumps({"about": about, "cases": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()

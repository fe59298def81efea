"""tinyplm evaluate: numbers by the library and by hand, files of results, and what is refused."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

import tinyplm
from tests.support import tuning
from tests.support.families import tiny
from tests.support.scripts import assert_one_line
from tinyplm.data import pack, read_documents, read_texts
from tinyplm.evaluation import baseline_rows
from tinyplm.tokenizers import Tokenizer
from tinyplm.tuning import answering, classification, predict, tagging, write_records

TEXT = "the cat sat on the mat\n\na naïve dog barked\n<|endoftext|>\nand ran\n"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "decoder"
    tokenizer = Tokenizer.train([TEXT], 270)
    model = tiny("llama", dtype="float32", vocab_size=tokenizer.vocab_size, max_position_embeddings=16)
    model.tokenizer = tokenizer
    tinyplm.save(model, folder)
    return folder


def cells(out):
    """{first cell of a row: the others}."""
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines() if line.strip()]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize(("context", "stride"), [(8, 3), (16, 16)])
def test_perplexity_by_hand(run, decoder, tmp_path, context, stride):
    """Each token from the window that holds the most tokens before it, one at a time."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "new" / "result.json"
    sizes = ("--context", context, "--stride", stride, "--dtype", "float64", "--workers", 1, "--out", out)
    done = run("evaluate", "--model", decoder, "--text", tmp_path / "text.txt", *sizes)
    assert done.code == 0, done.err
    model = tinyplm.load(decoder, dtype="float64")
    documents = read_documents(tmp_path / "text.txt")
    assert len(documents) == 2 and "".join(documents).count("\n\n") == 1  # neither cut
    tokens = pack([[], *model.tokenizer.encode_batch(documents)], model.tokenizer.eos_id, model.config.vocab_size)
    total = 0.0
    for place in range(1, len(tokens)):
        start = 0 if place <= context else stride * math.ceil((place - context) / stride)
        logits = model(tokens[None, start:place].astype(int), grad=False)[0]["logits"][0, -1]
        total -= logits[tokens[place]] - np.logaddexp.reduce(logits)
    result = json.loads(out.read_text())
    N = len(tokens) - 1
    assert result["total nll"] == pytest.approx(total, rel=1e-9) and result["tokens"] == N
    found, text = result["measures"]["model"], "".join(documents)
    assert found["perplexity"] == pytest.approx(math.exp(total / N))
    assert found["perplexity per word"] == pytest.approx(math.exp(total / len(TEXT.replace("<|endoftext|>", "").split())))
    assert found["bits per byte"] == pytest.approx(total / math.log(2) / len(text.encode()))
    assert found["bits per character"] == pytest.approx(total / math.log(2) / len(text)) != found["bits per byte"]
    assert cells(done.out)["model"][0] == f"{total / N:.4f}"
    assert result["settings"]["context"] == context and result["versions"]["tinyplm"].startswith(tinyplm.__version__)


def test_baselines_stand_beside_the_model(run, decoder, tmp_path, texts):
    """Counted on other files; with the model's own tokens."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    done = run("evaluate", "--model", decoder, "--text", tmp_path / "text.txt", "--baselines", texts[1])
    model, found = tinyplm.load(decoder), cells(done.out)

    def packed(documents):
        return pack([[], *model.tokenizer.encode_batch(documents)], model.tokenizer.eos_id, model.tokenizer.vocab_size)

    documents, training = read_documents(tmp_path / "text.txt"), read_documents(texts[1])
    size = sum(len(d.encode()) for d in documents)
    for row in baseline_rows(packed(training), packed(documents), model.tokenizer.vocab_size, size):
        assert found[row.name][0] == f"{row.nll:.4f}" and found[row.name][3] == f"{row.bits_per_byte:.4f}"
    assert len(read_texts(texts[0])) > len(read_documents(texts[0])) == 1  # a book is one document


# ---------------------------------------------------------------------------------------------------------------- labels


def record_files(folder):
    """{task: (a file, the samples of the library)} with random labels."""
    rng = np.random.default_rng(0)
    texts = [(text, str(rng.choice(["animal", "money"]))) for text in tuning.TEXTS]
    classes = [{"text": text, "label": label} for text, label in texts]
    tags = [{"tokens": t.split(), "tags": [str(rng.choice(["O", "B-X", "I-X"])) for _ in t.split()]} for t in tuning.TEXTS]
    answers = [{"question": "who sat", "context": text, "answers": text.split()[:1]} for text in tuning.TEXTS]
    records = {"sequence_classification": classes, "token_classification": tags, "question_answering": answers}
    for task, rows in records.items():
        write_records(folder / f"{task}.jsonl", rows)
    return records


NAMES = {"sequence_classification": ("animal", "money"), "token_classification": ("O", "B-X", "I-X"), "question_answering": ()}


@pytest.mark.parametrize("task", NAMES)
def test_metrics_of_a_tuned_model(run, tmp_path, task):
    records = record_files(tmp_path)[task]
    model = tuning.model(task, NAMES[task] or ("a", "b"))
    tinyplm.save(model, tmp_path / "run" / "best")  # as finetune leaves it
    out, file = tmp_path / "result.json", tmp_path / f"{task}.jsonl"
    options = ("--dtype", "float64", "--workers", 1, "--out", out)
    done = run("evaluate", "--model", tmp_path / "run", "--data", file, *options)
    assert done.code == 0, done.err
    if task == "sequence_classification":
        samples = classification(model, [r["text"] for r in records], [r["label"] for r in records])
    elif task == "token_classification":
        samples = tagging(model, [r["tokens"] for r in records], [r["tags"] for r in records])
    else:
        spans = [(0, len(r["answers"][0])) for r in records]
        samples = answering(model, [r["question"] for r in records], [r["context"] for r in records], spans)
    expected = samples.score(predict(model, samples))
    found = json.loads(out.read_text())
    assert found["measures"] == pytest.approx(expected) and found["samples"] == len(records) and found["task"] == task
    printed = cells(done.out)
    assert all(printed[name] == [f"{value:.4f}"] for name, value in expected.items())


def test_infinite_numbers_are_null_in_the_file(run, decoder, tmp_path):
    model = tinyplm.load(decoder)
    model.params["head"]["W"] *= 1e6
    tinyplm.save(model, tmp_path / "wild")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    done = run("evaluate", "--model", tmp_path / "wild", "--text", tmp_path / "text.txt", "--out", tmp_path / "r.json")
    assert done.code == 0 and "inf" in done.out
    found = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert found["measures"]["model"]["perplexity"] is None


def test_what_is_refused(run, decoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record_files(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text('{"text": "a cat", "label": "animal"}\n{"text": "a cat"}\n')
    (tmp_path / "other.jsonl").write_text('{"text": "a cat", "label": "plant"}\n')
    (tmp_path / "folder.json").mkdir()
    tinyplm.save(tuning.model(), tmp_path / "bert")
    before, text = sorted(tmp_path.rglob("*")), ("--text", "text.txt")
    for model, options, message in (
        (decoder, (), "--text: expected one of --text, --data and --tasks, got neither"),
        (decoder, (*text, "--data", "bad.jsonl"), "--text: expected one of --text, --data and --tasks, got --text and --data"),
        (decoder, (*text, "--length", "3"), "--length: expected none with --text, got one"),
        ("bert", ("--data", "bad.jsonl", "--stride", "3"), "--stride: expected none with --data, got one"),
        (decoder, (*text, "--out", "r.txt"), "--out: expected a file that ends with .json, got r.txt"),
        (decoder, (*text, "--out", "folder.json"), "--out: expected a file that ends with .json, got folder.json"),
        (decoder, (*text, "--context", "17"), "--context: expected at most 16, the model's, got 17"),
        (decoder, (*text, "--context", "8", "--stride", "9"), "--stride: expected at most 8, the context, got 9"),
        (decoder, ("--text", "none.txt"), "none.txt: expected a file, got none"),
        (decoder, (*text, "--baselines", "none.txt"), "none.txt: expected a file, got none"),
        ("bert", text, "--model: expected a decoder"),
        (decoder, ("--data", "bad.jsonl"), "--model: expected a model tuned by finetune, for sequence_classification, "),
        ("bert", ("--data", "bad.jsonl"), "bad.jsonl, line 2: "),
        ("bert", ("--data", "other.jsonl"), "plant"),
        ("bert", ("--data", "token_classification.jsonl"), "token_classification.jsonl, line 1: "),
        ("bert", ("--data", "none.jsonl"), "none.jsonl"),
        ("gpt2", text, "got gpt2, which has neither trained parameters nor a tokenizer"),
    ):
        assert_one_line(run("evaluate", "--model", model, *options), message)
    assert sorted(tmp_path.rglob("*")) == before


def test_benchmarks(run, decoder, tmp_path):
    """Results as lm-evaluation-harness has them; the same again from the answers on disk; refusals before any work."""
    records = [{"goal": "sat", "sol1": "the cat", "sol2": "a dog", "label": n % 2} for n in range(3)]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    out = tmp_path / "table"
    command = (
        "evaluate",
        "--model",
        decoder,
        "--tasks",
        f"piqa:{tmp_path / 'piqa.jsonl'}",
        "--mutual",
        "--limit",
        "2",
        "--out",
        out,
    )
    done = run(*command)
    assert done.code == 0, done.err
    result = json.loads((out / "results.json").read_text())
    assert {"acc,none", "acc_stderr,none", "acc_norm,none", "acc_mutual_info,none"} <= set(result["results"]["piqa"])
    assert (result["versions"], result["n-shot"], result["config"]["seed"]) == ({"piqa": 1.0}, {"piqa": 0}, 1234)
    assert result["n-samples"] == {"piqa": {"original": 3, "effective": 2}}
    samples = [json.loads(line) for line in (out / "samples_piqa.jsonl").read_text().splitlines()]
    assert np.mean([sample["acc"] for sample in samples]) == result["results"]["piqa"]["acc,none"]
    assert f"{result['results']['piqa']['acc,none']:.4f}" in done.out
    refused = run(*command)
    assert refused.code == 2 and "--out: expected a folder without answers" in refused.err
    again = run("evaluate", "--out", out, "--resume")
    assert again.code == 0 and json.loads((out / "results.json").read_text())["results"] == result["results"]
    for value, message in (("piqa", "expected NAME:FILE"), ("poqa:x", "expected one of"), ("piqa:none", "expected a file")):
        refused = run("evaluate", "--model", decoder, "--tasks", value)
        assert refused.code == 2 and message in refused.err and refused.err.count("\n") == 1
    refused = run(*command[:5], "--run-code")
    assert refused.code == 2 and refused.err.endswith("--run-code: expected humaneval among --tasks, got piqa\n")

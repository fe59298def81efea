"""The commands of tuning as a user runs them: whole runs on tiny models, their numbers computed again from the folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.cli.own import (
    INSTRUCTIONS,
    JUDGED,
    LABELLED,
    PAIRS,
    PROMPTS,
    QUICK,
    ROUNDS,
    decoder,
    encoder,
    lines,
    logged,
    result,
    row,
)
from tests.support.scripts import assert_one_line
from tinyplm.cli.sft import said
from tinyplm.tokenizers.chat import TEMPLATES
from tinyplm.tuning import (
    answer_loss,
    check_records,
    classification,
    conversations,
    instruction_messages,
    predict,
    preferences,
    read_records,
    score,
    set_chat_format,
    split,
)

CHATML = TEMPLATES["chatml"]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder with models and data; only read."""
    folder = tmp_path_factory.mktemp("own")
    decoder(folder / "base")
    encoder(folder / "encoder")
    for name, records in (
        ("ins", INSTRUCTIONS),
        ("pairs", PAIRS),
        ("judged", JUDGED),
        ("prompts", PROMPTS),
        ("labelled", LABELLED),
    ):
        lines(folder / f"{name}.jsonl", records)
    chat = tinyplm.load(folder / "base")
    set_chat_format(chat, CHATML, add_tokens=True)
    tinyplm.save(chat, folder / "chat")
    return folder


def command(name: str, own: Path, out: Path, *more: str) -> tuple[str, ...]:
    """The shortest command line of each recipe."""
    chat, data = str(own / "chat"), {n: str(own / f"{n}.jsonl") for n in ("ins", "pairs", "judged", "prompts", "labelled")}
    given = {
        "sft": ("--model", str(own / "base"), "--data", data["ins"], *QUICK),
        "dpo": ("--model", chat, "--data", data["pairs"], *QUICK),
        "kto": ("--model", chat, "--data", data["judged"], "--loss", "kto", "--validation", "0.3", *QUICK),
        "reward": ("--model", chat, "--data", data["pairs"], *QUICK[:8]),
        "ppo": ("--model", chat, "--data", data["prompts"], "--reward", "length:2", *ROUNDS),
        "grpo": ("--model", chat, "--data", data["prompts"], "--reward", "length:2", "--group", "2", *ROUNDS),
        "distill": ("--model", str(own / "base"), "--teacher", chat, "--data", data["ins"], *QUICK[:8]),
        "finetune": ("--model", str(own / "encoder"), "--data", data["labelled"], "--epochs", "2", "--batch", "4",
                     "--save-every", "1", "--lr", "0.01", "--validation", "0.3"),
    }[name]  # fmt: skip
    return ("dpo" if name == "kto" else name, *given, "--workers", "1", "--out", str(out), *more)


RECIPES = ("sft", "dpo", "kto", "reward", "ppo", "grpo", "distill", "finetune")


# ---------------------------------------------------------------------------------------------------------- whole stories


def test_sft_tells_the_loss_of_the_models_before_and_after_and_the_folder_chats(run, own, tmp_path):
    outcome = run(*command("sft", own, tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    _, held_out = split(read_records(own / "ins.jsonl"), 0.1, 0)
    talks = [{"messages": instruction_messages(record)} for record in held_out]
    before = tinyplm.load(own / "base")
    set_chat_format(before, CHATML, add_tokens=True)
    after = tinyplm.load(tmp_path / "out")
    losses = [answer_loss(m, conversations(m.tokenizer, CHATML, talks).sequences) for m in (before, after)]
    assert row(outcome.out, "loss, nats per token") == pytest.approx(losses, abs=6e-5) and losses[1] < losses[0]
    assert f"prompt   {held_out[0]['instruction']}\nwanted   {held_out[0]['output']}\nbefore   " in outcome.out
    assert "training   4 steps of 3 samples, 1.7 passes over the data" in outcome.out
    assert "2 tokens added to the vocabulary" in outcome.out and "warning" not in outcome.out
    assert after.generation["eos_token_id"] == [before.tokenizer.eos_id, before.tokenizer.token_to_id("<|im_end|>")]


def test_what_a_message_says():
    """Calls of tools may stand without content."""
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    record = {"messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "tool_calls": [call]}]}
    (talk,) = check_records([record], "conversation")
    assert said(talk["messages"][1]) == '[{"name": "add", "arguments": {"a": 2}}]' and said(talk["messages"][0]) == "2?"


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_preferences_start_from_equal_policies(run, own, tmp_path, name):
    outcome = run(*command(name, own, tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    first = {"dpo": np.log(2), "kto": 0.5}[name]  # -log sigmoid(0); 1 - sigmoid(0)
    before, after = row(outcome.out, "loss")
    assert before == pytest.approx(first, abs=6e-5) and after != before
    assert row(outcome.out, "margin of the rewards")[0] == 0
    assert outcome.out.count("prompt   Say ") == {"dpo": 1, "kto": 2}[name]  # held out


def test_a_reward_model_scores_as_it_says_and_ppo_takes_it(run, own, tmp_path):
    outcome = run(*command("reward", own, tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    model = tinyplm.load(tmp_path / "out")
    _, held_out = split(read_records(own / "pairs.jsonl"), 0.1, 0)
    answers = [answer for pair in preferences(model.tokenizer, CHATML, held_out) for answer in pair]
    chosen, rejected = score(model, answers).reshape(-1, 2).T
    assert row(outcome.out, "margin of the scores")[1] == pytest.approx(float(np.mean(chosen - rejected)), abs=6e-5)
    options = ("--model", str(own / "chat"), "--data", str(own / "prompts.jsonl"), "--reward-model", str(tmp_path / "out"))
    used = run("ppo", *options, *ROUNDS, "--steps", "1", "--reward", "length:2:0.5", "--out", str(tmp_path / "ppo"))
    assert used.code == 0, used.err
    (record,) = [r for r in logged(tmp_path / "ppo") if "reward" in r]
    assert record["reward"] == pytest.approx(record["reward_length"] * 0.5 + record["reward_model"], abs=1e-5)


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_rounds_log_the_reward_that_the_rule_gives(run, own, tmp_path, name):
    outcome = run(*command(name, own, tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    rounds = [r for r in logged(tmp_path / "out") if "reward" in r]
    assert [r["step"] for r in rounds] == [1, 2, 3, 4] and all(-1 <= r["reward"] <= 1 for r in rounds)
    assert all(1 <= length <= 3 for length in row(outcome.out, "tokens in an answer"))
    assert "data       7 prompts for training, 1 held out\n" in outcome.out


def test_distillation_into_the_same_model_starts_at_no_divergence(run, own, tmp_path):
    given = [str(own / "chat") if word == str(own / "base") else word for word in command("distill", own, tmp_path / "out")]
    outcome = run(*given, "--hard", "0", "--lr", "1e-9")
    assert outcome.code == 0, outcome.err
    assert max(abs(r["loss"]) for r in logged(tmp_path / "out") if "loss" in r) < 1e-5


def test_a_new_student_has_the_teachers_tokens(run, own, tmp_path):
    given = ("--teacher", str(own / "chat"), "--model", "llama", "--size", "tiny", "--text", str(own / "text.txt"))
    rows = "\n<|endoftext|>\n".join(f"{word} is a word, and {word} is read." for word in "abcdefgh")
    (own / "text.txt").write_text(rows)
    outcome = run("distill", *given, "--steps", "1", "--batch", "2", "--length", "16", "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    student, teacher = tinyplm.load(tmp_path / "out"), tinyplm.load(own / "chat")
    assert student.config.MODEL_TYPE == "llama" and student.tokenizer.vocab == teacher.tokenizer.vocab
    assert student.end_ids() == teacher.end_ids() and "chat_template.jinja" in student.files


def test_finetune_names_classes_and_its_table_is_that_of_the_saved_model(run, own, tmp_path):
    outcome = run(*command("finetune", own, tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    _, held_out = split(read_records(own / "labelled.jsonl"), 0.3, 0)
    model = tinyplm.load(tmp_path / "out")
    samples = classification(model, [r["text"] for r in held_out], [r["label"] for r in held_out])
    outputs = predict(model, samples)
    assert row(outcome.out, "accuracy")[1] == pytest.approx(samples.score(outputs)["accuracy"], abs=6e-5)
    said = [model.config.id2label[str(n)] for n in samples.predictions(outputs)]
    for record, answer in zip(held_out, said):
        assert f"text     {record['text']}\nwanted   {record['label']}\nmodel    {answer}\n" in outcome.out
    assert [r["epoch"] for r in logged(tmp_path / "out") if "validation_loss" in r] == [1, 2]


THREE = ("cat", "dog", "bird")
KINDS = {
    "tags": ([{"tokens": ["the", "cat", word], "tags": ["O", "B-A", "O"]} for word in ("sat", "ran", "sang", "fell")], "O B-A O"),
    "several": ([{"text": f"the {word} sat", "label": ["a", "b"][: n % 2 + 1]} for n, word in enumerate(THREE)], "a"),
    "numbers": ([{"text": f"the {word} sat", "label": n / 2} for n, word in enumerate(THREE)], "."),
    "answers": ([{"question": "who?", "context": f"the cat {word}", "answers": "cat"} for word in ("sat", "ran")], "cat"),
    "pairs": ([{"text": f"the {word}", "pair": "a cat", "label": n % 2} for n, word in enumerate(THREE)], "the "),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_finetune_shows_each_kind_of_label_in_words(run, own, tmp_path, kind):
    records, word = KINDS[kind]
    file = lines(tmp_path / "data.jsonl", records)
    outcome = run(
        "finetune", "--model", str(own / "encoder"), "--data", str(file), "--epochs", "1", "--out", str(tmp_path / "out")
    )
    assert outcome.code == 0, outcome.err
    shown = outcome.out[outcome.out.index("text     ") :]
    assert word in shown and "[" not in shown.split("model      ")[0], shown


def test_settings_from_a_run_json_repeat_the_run(run, own, tmp_path):
    given = (*command("sft", own, tmp_path / "one", "--validation-data", str(own / "ins.jsonl")), "--lora", "2")
    outcome = run(*given)
    assert outcome.code == 0 and "LoRA of rank 2, also of the tokens' table, " in outcome.out
    assert run("sft", "--config", str(tmp_path / "one/run.json"), "--out", str(tmp_path / "two")).code == 0
    assert result(tmp_path / "one") == result(tmp_path / "two")
    assert {"adapter.safetensors", "model.safetensors"} <= result(tmp_path / "one").keys()


def test_a_folder_with_the_name_of_a_family_is_the_folder(run, own, tmp_path, monkeypatch):
    shutil.copytree(own / "base", tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    given = [word if word != str(own / "base") else "gpt2" for word in command("sft", own, tmp_path / "out")]
    assert run(*given).code == 0


def test_steps_are_passes_over_the_data_but_at_least_a_hundred(run, own, tmp_path):
    data = lines(tmp_path / "many.jsonl", [{"instruction": f"{n}", "output": "a"} for n in range(90)])
    given = ("--model", str(own / "base"), "--data", str(data), "--lr", "1e-4", "--samples", "0", "--save-every", "999")
    for batch, steps in ((2, 122), (4, 100)):  # 81 samples
        out = tmp_path / f"out-{batch}"
        outcome = run("sft", *given, "--batch", str(batch), "--out", str(out))
        assert outcome.code == 0 and f"training   {steps} steps of {batch} samples" in outcome.out, outcome.err
        told = json.loads((out / "final/recipe.json").read_text())["settings"]
        assert (told["steps"], told["evaluate_every"]) == (steps, steps // 5)


# ------------------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("name", RECIPES)
def test_a_stopped_run_resumes_to_the_same_bytes(run, own, tmp_path, name):
    """As after a kill: the last checkpoint and the result are gone; and once more, when all is there."""
    whole = run(*command(name, own, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    steps = sorted((tmp_path / "out").glob("step-*"), key=lambda folder: int(folder.name[5:]))
    shutil.rmtree(steps[-1])
    shutil.rmtree(tmp_path / "out" / ("best" if name == "finetune" else "final"))
    (tmp_path / "out/latest").write_text(f"{steps[0].name}\n")
    if (tmp_path / "out/best").is_file():
        (tmp_path / "out/best").write_text(f"{steps[0].name}\n")
    first = "dpo" if name == "kto" else name
    for _ in range(2):
        resumed = run(first, "--out", str(tmp_path / "out"), "--resume")
        assert resumed.code == 0, resumed.err
        assert result(tmp_path / "out") == result(tmp_path / "whole")
        tables = [o.out[o.out.index("held out  ") :].replace("/whole/", "/out/") for o in (whole, resumed)]
        assert tables[0].split("plot ")[0] == tables[1].split("plot ")[0]


def test_only_what_does_not_change_the_numbers_may_change(run, own, tmp_path):
    assert run(*command("sft", own, tmp_path / "out")).code == 0
    for option, value in (("--lr", "0.5"), ("--steps", "9"), ("--data", "other.jsonl")):
        refused = run("sft", "--out", str(tmp_path / "out"), "--resume", option, value)
        assert_one_line(refused, f"{option} was", value)
    assert run("sft", "--out", str(tmp_path / "out"), "--resume", "--samples", "0", "--save-every", "3").code == 0
    assert_one_line(run(*command("sft", own, tmp_path / "out")), "add --resume")
    assert_one_line(run("dpo", "--out", str(tmp_path / "out"), "--resume"), "command: expected 'dpo'")

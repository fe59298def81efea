"""The options of all examples: their help, and what is refused before any work starts."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import runpy
import shlex
import shutil
import sys

import pytest

import tinyplm
from tests.families.test_gpt2 import tiny
from tests.support.scripts import EXAMPLES, ROOT, load_example
from tinyplm.cli import output
from tinyplm.data import corpus
from tinyplm.tokenizers import Tokenizer

LIBRARIES = ("common", "docstrings", "encoder_decoders", "skills")  # shared by examples
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in LIBRARIES)
common = load_example("common")


@pytest.fixture
def parser_of(monkeypatch):
    """The parser of an example, by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["parser"]()
    for name in ("skills", "dpo"):
        sys.modules.pop(name, None)


# ------------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", NAMES)
def test_help_is_sentences_with_the_default_once(parser_of, name):
    parser = parser_of(name)
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    assert actions
    for action in actions:
        said = action.help
        assert said and said[0].isupper() and said.endswith("."), action.dest
        has_default = action.nargs != 0 and (action.option_strings or action.nargs == "*")
        assert said.count("Default: ") == bool(has_default), action.dest
        assert not re.search(r"None|\(default|\[\]", said), action.dest
    assert "default: None" not in parser.format_help()


def test_git_ignores_what_examples_make(parser_of):
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    made = {str(parser_of(name).defaults.get("out", "out")).split("/")[0] for name in NAMES}
    assert len(made) > 8
    for out in made:
        assert any(fnmatch.fnmatch(out, pattern) for pattern in ignored), out


@pytest.mark.parametrize("name", NAMES)
def test_every_default_is_one_that_may_be_given(parser_of, name):
    parser = parser_of(name)
    for option, parse in parser.parsers.items():
        default = parser.defaults[option]
        for value in default if isinstance(default, list) else [default]:
            assert value is None or parse(str(value)) == value, option


# ----------------------------------------------------------------------------------------------------------- bad numbers


def numbers():
    """Every numeric option of every example."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        parsers = {name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["parser"]() for name in NAMES}
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in ("skills", "dpo"):
            sys.modules.pop(name, None)
    for name, parser in parsers.items():
        for option, parse in parser.parsers.items():
            if getattr(parse, "metavar", "") in ("N", "X"):
                yield name, "--" + option.replace("_", "-")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A folder with a tiny GPT-2 and a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "decoder"
    model = tiny(vocab_size=262)
    model.tokenizer = Tokenizer.train(["a few words"], 262)
    tinyplm.save(model, folder)
    return folder


@pytest.fixture
def no_work(monkeypatch):
    """Fails as soon as an example starts any work."""

    def work(*_, **__):
        raise AssertionError("work was done before the input was checked")

    monkeypatch.setattr(corpus, "default_corpus", work)
    monkeypatch.setattr(corpus, "documentation", work)
    monkeypatch.setattr(tinyplm, "create", work)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("skills", "dpo"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("name", "option"), list(numbers()))
def test_numbers_that_cannot_be_are_refused_first(run, no_work, tmp_path, name, option):
    for value in ("-1", "nan", "inf", "many", ""):
        done = run(f"{name}.py", f"{option}={value}")
        assert done.code == 1 and done.out == "", (value, done)
        assert re.fullmatch(rf"error: {option}: expected .*, got .*\n", done.err), (value, done.err)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ files and folders

TUNING = ["distill", "dpo", "grpo", "instruction_tuning", "lora", "prompting", "r1", "rlhf", "sft", "whole_path",
          "finetune_classifier", "finetune_gpt"]  # fmt: skip


@pytest.mark.parametrize("name", TUNING)
def test_an_out_that_cannot_be_used_is_refused_first(run, no_work, tmp_path, name):
    used, file = tmp_path / "used", tmp_path / "file"
    used.mkdir()
    (used / "precious").write_text("kept")
    file.write_text("kept")
    refused = {used: "--out: expected a new or empty folder, got ", file: "--out: expected a folder, got ",
               file / "below": "--out: expected a folder, got "}  # fmt: skip
    for out, message in refused.items():
        done = run(f"{name}.py", "--out", str(out))
        assert done.code == 1 and message in done.err and done.err.count("\n") == 1, done
    assert (used / "precious").read_text() == file.read_text() == "kept" and len(list(tmp_path.iterdir())) == 2
    if os.getuid():  # root may write anywhere
        used.chmod(0o500)
        done = run(f"{name}.py", "--out", str(used / "new"))
        assert done.code == 1 and "cannot be written into" in done.err


@pytest.mark.parametrize(("name", "options", "message"), [
    ("pretrain_bert", ("--text", "none.txt"), "none.txt: expected a file, got none (no such file)"),
    ("pretrain_bert", ("--out", "file"), "--out: expected a folder, got "),
    ("pretrain_t5", ("--text", "none.txt"), "none.txt: expected a file, got none (no such file)"),
    ("pretrain_t5", ("--out", "file"), "--out: expected a folder, got "),
    ("translate", ("--out", "file"), "--out: expected a folder, got "),
    ("translate", ("--width", "20"), "--width: expected a multiple of 8, got 20"),
    ("text_to_text", ("--out", "file"), "--out: expected a folder, got "),
    ("text_to_text", ("--alone", "all"), "--alone: expected one of none, share, full, got 'all'"),
    ("tokenizers", ("--text", "none.txt"), "none.txt: expected a file, got none (no such file)"),
    ("tokenizers", ("--save", "file"), "--save: expected a folder, got "),
    ("tokenizers", ("--out", "."), "--out: expected the name of a picture"),
    ("sentence_embeddings", ("--model", "empty"), "modules.json: expected a file, got none (no such file"),
    ("sentence_embeddings", ("", "--model", "empty"), "QUERY: expected a text, got an empty one"),
    ("sft", ("--samples", "99999"), "expected at most"),
    ("dpo", ("--samples", "99999"), "expected at most"),
    ("dpo", ("--beta", "0.1", "0"), "--beta: expected a finite number > 0.0, got 0.0"),
    ("rlhf", ("--tests", "99999"), "expected at most"),
    ("whole_path", ("--samples", "99999"), "expected at most"),
    ("distill", ("--width", "20"), "--width: expected a multiple of 8, got 20"),
    ("lora", ("--targets", "Wz"), "--targets: expected one of Wq, "),
    ("finetune_classifier", ("--model", "none"), "none: expected a model folder, as on the hub"),
    ("finetune_classifier", ("--model", "decoder"), "decoder: expected an encoder, such as BERT"),
    ("finetune_classifier", ("--labels", "4"), "--labels: expected at least 8, one per package, got 4"),
    ("finetune_gpt", ("--width", "20"), "--width: expected a multiple of 8, got 20"),
    ("finetune_gpt", ("--format", "poem"), "--format: expected one of classification, "),
    ("gradient_check", ("layernrom",), "COMPONENT: expected one of linear, "),
])  # fmt: skip
def test_what_is_wrong_with_files_is_said_first(decoder, run, no_work, monkeypatch, tmp_path, name, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    records = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(4)]
    for file, lines in (("good.jsonl", records), ("bad.jsonl", [records[0], {}, records[1]])):
        (tmp_path / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(decoder, tmp_path / "decoder")
    before = sorted(tmp_path.rglob("*"))
    done = run(f"{name}.py", *options)
    assert done.code == 1 and message in done.err and done.err.count("\n") == 1, done
    assert "Traceback" not in done.err and sorted(tmp_path.rglob("*")) == before


# --------------------------------------------------------------------------------------------------------------- commands


def test_commands_name_this_python_as_it_would_be_typed(monkeypatch, tmp_path):
    environment = tmp_path / "a project/.venv/bin"
    environment.mkdir(parents=True)
    python = environment / "python"
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "argv", ["examples/sft.py"])
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path / "a project")
    assert common.command("dpo.py", "my run") == ".venv/bin/python examples/dpo.py 'my run'"
    monkeypatch.chdir(environment)
    assert shlex.split(common.command("dpo.py", "out")) == ["python", "examples/dpo.py", "out"]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert common.command("dpo.py", "out") == f"'{python}' examples/dpo.py out"
    monkeypatch.setenv("PATH", str(environment))  # the environment is activated
    assert common.command("dpo.py", "out") == "python examples/dpo.py out"


def test_a_range_is_that_of_several():
    assert output.spread([0.7059]) == "70.6%" and output.over_seeds([4]) == "seed 4"
    assert output.spread([1.0, 2.0], "{:.1f}") == "1.5 (1.0 to 2.0)"
    assert output.over_seeds(range(3)) == "mean of 3 seeds (least to greatest)"


def test_no_conclusion_is_printed_that_nothing_computed():
    """Every comparison that examples and benchmarks print contains a number or is in a branch that depends on numbers."""
    words = re.compile(r"\b(better|worse|more|less|fewer|faster|slower|rose|fell|nearer|learns?|helps?)\b")
    for path in [*EXAMPLES.glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "print(" in line and words.search(line):
                assert "{" in line, f"{path.name}: {line.strip()}"

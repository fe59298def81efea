"""The options of all commands: their help, and what is refused before any work starts."""

from __future__ import annotations

import argparse
import json
import re

import pytest

from tests.support.scripts import assert_one_line
from tinyplm import cli, hub
from tinyplm.data import corpus

PARSERS = cli.parsers()[1]
NUMBERS = [
    (name, f"--{option.replace('_', '-')}")
    for name, parser in PARSERS.items()
    for option, parse in parser.parsers.items()
    if getattr(parse, "metavar", "") in ("N", "X")
]


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Fails as soon as a command starts any work; the current folder is empty."""

    def work(*_, **__):
        raise AssertionError("work was done before the input was checked")

    for module, name in ((corpus, "default_corpus"), (corpus, "documentation"), (hub, "create"), (hub, "load")):
        monkeypatch.setattr(module, name, work)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_help_is_sentences_with_the_default_once(name):
    parser = PARSERS[name]
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    assert actions
    for action in actions:
        said = action.help
        assert said and said[0].isupper() and said.endswith("."), action.dest
        assert said.count("Default: ") == (action.nargs != 0 and action.dest not in parser.needed), action.dest
        assert not re.search(r"None|\(default|\[\]", said), action.dest
    assert "default: None" not in parser.format_help()


@pytest.mark.parametrize("name", PARSERS)
def test_every_default_is_one_that_may_be_given(name):
    parser = PARSERS[name]
    for option, parse in parser.parsers.items():
        default = parser.defaults[option]
        for value in default if isinstance(default, list) else [default]:
            assert value is None or parse(str(value)) == value, option


def test_numbers_are_checked_by_every_command_that_has_some():
    assert len(NUMBERS) > 40 and {name for name, _ in NUMBERS} >= {"pretrain", "generate", "chat", "check"}


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_numbers_that_cannot_be_are_refused_first(run, no_work, tmp_path, name, option):
    signed = (name, option) == ("sample", "--threshold")  # a reward may be negative
    for value in ("-1", "nan", "inf", "many", "")[signed:]:
        done = run(name, f"{option}={value}")
        assert done.code == 2 and done.out == "", (value, done)
        assert re.fullmatch(rf"tinyplm: {option}: expected .*, got .*\n", done.err), (value, done.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name, parser in PARSERS.items() if "config" in parser.defaults])
def test_a_file_of_settings_is_checked_like_the_command_line(run, no_work, tmp_path, name):
    option = next((option.removeprefix("--") for command, option in NUMBERS if command == name), None)
    (tmp_path / "unknown.json").write_text(json.dumps({"modle": 1}))
    assert_one_line(run(name, "--config", "unknown.json"), "unknown.json: expected options of tinyplm", "'modle'")
    (tmp_path / "table.toml").write_text(f"{name} = 3\n")  # the name of a table of the command's options
    assert_one_line(run(name, "--config", "table.toml"), "table.toml: expected options of tinyplm", repr(name))
    if option is not None:
        (tmp_path / "wrong.toml").write_text(f"{option} = -1\n")
        assert_one_line(run(name, "--config", "wrong.toml"), f"wrong.toml: {option}: expected ", "got -1")
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".toml"}


# ------------------------------------------------------------------------------------------------------ files and folders


@pytest.mark.parametrize(("name", "options", "message"), [
    ("pretrain", ("--model", "llama", "--size", "gpt2"), "--size: expected one of tiny, mini, small"),
    ("pretrain", ("--out", "file"), "--out: expected a folder, got "),
    ("pretrain", ("--out", ""), "--out: expected a path, got ''"),
    ("chat", (), "--model: expected a value, got none"),
    ("chat", ("--model", "file"), "--model: expected the folder of a model, got 'file', which is a file"),
    ("chat", ("--model", "empty", "--template", "xml"), "--template: expected one of chatml, "),
    ("generate", ("--model", "nowhere"), "--model: expected the folder of a model, got 'nowhere', which is no folder"),
    ("generate", ("--model", "gpt2"), "got gpt2, which has neither trained parameters nor a tokenizer"),
])  # fmt: skip
def test_what_is_wrong_is_said_first(run, no_work, tmp_path, name, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert_one_line(run(name, *options), message)
    assert {path.name for path in tmp_path.rglob("*")} <= {"empty", "file", "out"}


# what --model may name that is no model, and what is said of it
NO_MODELS = {
    "adapter": (("adapter.json", "adapter.safetensors"), "expected a model folder, got an adapter ("),
    "tokenizer": (("tokenizer.json",), "expected a model folder with a config.json, got a tokenizer alone"),
    "run": (("run.json",), "expected a run with a checkpoint, got one without any"),
    "several": (("run.json", "a/latest", "b/latest"), "expected a run with a checkpoint, got one of several models: "),
    "increment": (("increment.safetensors", "trainer.json"), "expected a full checkpoint, got an incremental one"),
    "empty": ((), "config.json: expected a file, got none"),
}
MORE = {  # what else a command needs
    "embed": ("--texts", "a", "--query", "b"), "evaluate": ("--text", "text.txt"), "convert": ("--out", "new"),
    "tokenizer": ("--show", "a"),
}  # fmt: skip
# what a command can do more with, so that only the form of its line is known
USED = [("tokenizer", "tokenizer"), ("tokenizer", "empty"), ("convert", "increment")]


@pytest.mark.parametrize("kind", NO_MODELS)
@pytest.mark.parametrize("name", ["generate", "chat", "pretrain", "count", *MORE])
def test_a_folder_that_is_no_model_is_one_line(run, monkeypatch, tmp_path, name, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("a text")
    files, message = NO_MODELS[kind]
    message = "expected " if (name, kind) in USED else message
    (tmp_path / "given").mkdir()
    for file in files:
        (tmp_path / "given" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "given" / file).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert_one_line(run(name, "--model", "given", *MORE.get(name, ())), message)
    assert sorted(tmp_path.rglob("*")) == before

"""Reading untrusted files, writing them atomically, links out of a folder, and one writer at a time."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.families.test_gpt2 import tiny
from tinyplm import files
from tinyplm.data.packing import write_tokens
from tinyplm.files import replaced
from tinyplm.tokenizers import Tokenizer
from tinyplm.tuning.data.records import read_records

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links of POSIX")


def one_line(error: BaseException, longest: int = 600) -> str:
    message = str(error)
    assert message.isprintable() and len(message) < longest, message
    return message


# ---------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(("text", "message"), [
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "expected valid JSON, got the key 'c' 2 times in one object"),
    ("[" * 101 + "]" * 101, "nesting of more than 100 levels"), ('{"a":' * 40_000, "nesting of more than 100 levels"),
    ("9" * 5000, "got an integer of 5000 digits .at most 40."), ("9" * 41, "an integer of 41 digits"),
    ("[1,]", "expected valid JSON, got an error "), ("", "got an error .Expecting value"),
    ('{"' + "k" * 10**6 + '": 1, "' + "k" * 10**6 + '": 1}', "the key 'kkk"),
])  # fmt: skip
def test_json_that_does_not_mean_one_thing_is_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        files.read_json(tmp_path / "x.json")
    assert one_line(error.value).startswith(f"{tmp_path / 'x.json'}: ")


def test_json_that_is_read(tmp_path):
    deep = "[" * 99 + "]" * 99
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + f'{{"a": {10**39}, "b": {deep}, "c": NaN}}'.encode())
    found = files.read_json(tmp_path / "x.json")
    assert found["a"] == 10**39 and json.dumps(found["b"]) == deep and np.isnan(found["c"])
    with pytest.raises(ValueError, match="x: expected valid JSON, got NaN"):
        files.parse_json("NaN", "x", constants=False)


# ------------------------------------------------------------------------------------------------------- what is read


@posix
@pytest.mark.parametrize(("make", "message"), [
    (os.mkfifo, "expected a regular file, got a pipe"), (os.mkdir, "expected a regular file, got a folder"),
    (lambda p: os.symlink("/dev/zero", p), "expected a regular file, got a device"), (lambda p: None, "no such file"),
    (lambda p: os.symlink(p, p), "a readable file, got an error"),
    (lambda p: Path(p).write_bytes(bytes(11)), "at most 10 bytes, got 11"),
], ids=["pipe", "folder", "device", "nothing", "loop", "large"])  # fmt: skip
def test_only_regular_files_of_a_limited_size_are_read(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(ValueError, match=message) as error:
        files.read_bytes(tmp_path / "x", largest=10)
    assert str(error.value).startswith(f"{tmp_path / 'x'}: ")


@posix
def test_refused_files_are_closed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for name in ("pipe", ".", "gone"):
        for _ in range(5):
            with pytest.raises(ValueError):
                files.read_bytes(tmp_path / name)
    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("name", "shown"), [("a\nb\x1b[31m", "'a\\nb\\x1b[31m'"), ("n" * 10**6, None), ("\ud800", "'\\ud800'"), ("é", "é")]
)
def test_names_in_messages(name, shown):
    found = files.printable(name)
    assert found.isprintable() and len(found) <= 200 and shown in (None, found)


def test_a_byte_order_mark_in_json_lines(tmp_path):
    line = b'{"prompt": "a"}\n'
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + line + line)
    assert read_records(tmp_path / "x.jsonl", "prompt") == [{"prompt": "a"}] * 2
    (tmp_path / "x.jsonl").write_bytes(line + b"\xef\xbb\xbf" + line)
    with pytest.raises(ValueError, match="x.jsonl, line 2: expected valid JSON, got an error"):
        read_records(tmp_path / "x.jsonl", "prompt")


# -------------------------------------------------------------------------------------------------------------- links


def hub_cache(folder: Path, cache: Path) -> Path:
    """The folder as the hub's cache stores it: links in snapshots/REVISION to blobs/HASH."""
    snapshot = cache / "models--a--b/snapshots/0123abcd"
    for n, file in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        blob, link = cache / f"models--a--b/blobs/hash{n}", snapshot / file.relative_to(folder)
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.fixture
def model_folder(tmp_path) -> Path:
    model = tiny()
    model.tokenizer = Tokenizer.train(["a few words"], 262)
    tinyplm.save(model, tmp_path / "model")
    (tmp_path / "model/tokenizer_config.json").write_text("{}")
    return tmp_path / "model"


@posix
def test_the_cache_of_the_hub_and_linked_folders_are_read(tmp_path, model_folder):
    snapshot = hub_cache(model_folder, tmp_path / "cache")
    (tmp_path / "linked").symlink_to(snapshot)
    (tmp_path / "again").symlink_to("linked")
    (tmp_path / "cache2").symlink_to("cache")
    for folder in (snapshot, tmp_path / "linked", tmp_path / "again", tmp_path / "cache2/models--a--b/snapshots/0123abcd"):
        assert tinyplm.load(folder).files == tinyplm.load(model_folder).files
    (model_folder / "shared").mkdir()
    (model_folder / "config.json").rename(model_folder / "shared/config.json")
    (model_folder / "config.json").symlink_to("shared/config.json")  # within the folder
    tinyplm.load(model_folder)


@posix
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                                  "chat_template.jinja", "generation_config.json", "vocab.txt"])  # fmt: skip
@pytest.mark.parametrize(
    "way", ["absolute", "relative", "through another link", "a blob that is a link", "blobs that are a link"]
)
def test_links_out_of_a_folder_are_refused(tmp_path, model_folder, name, way):
    """Otherwise their target would be read, and written out again by `save`."""
    secret = tmp_path / "elsewhere/secret"
    secret.parent.mkdir()
    source = model_folder / name
    secret.write_bytes(source.read_bytes() if source.exists() else b"{}")
    folder = model_folder
    if way.startswith("a blob"):
        folder = hub_cache(model_folder, tmp_path / "cache")
        blob = folder.parents[1] / "blobs/more"
        blob.symlink_to(secret)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("../../blobs/more")
    elif way.startswith("blobs"):
        folder = tmp_path / "models--x/snapshots/1"
        folder.parent.mkdir(parents=True)
        model_folder.rename(folder)
        (tmp_path / "models--x/blobs").symlink_to(secret.parent)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("../../blobs/secret")
    else:
        source.unlink(missing_ok=True)
        if way == "through another link":
            (folder / "more").symlink_to(secret)
        source.symlink_to({"absolute": secret, "relative": "../elsewhere/secret"}.get(way, "more"))
    with pytest.raises(ValueError, match="expected a file in the folder .*, got a link to ") as error:
        tinyplm.load(folder)
    assert one_line(error.value).startswith(f"{folder / name}: ")
    if name not in ("config.json", "model.safetensors", "generation_config.json"):
        with pytest.raises(ValueError, match="expected a file in the folder .*, got a link to "):
            Tokenizer.load(folder)


@posix
@pytest.mark.parametrize("place", ["models/snapshots/1", "models--a/versions/1"])
def test_blobs_are_those_of_the_hubs_cache_alone(tmp_path, model_folder, place):
    folder, blob = tmp_path / place, tmp_path / place.split("/")[0] / "blobs/more"
    folder.parent.mkdir(parents=True)
    model_folder.rename(folder)
    blob.parent.mkdir()
    (folder / "config.json").rename(blob)
    (folder / "config.json").symlink_to("../../blobs/more")
    with pytest.raises(ValueError, match="config.json: expected a file in the folder .*, got a link to "):
        tinyplm.load(folder)


# ------------------------------------------------------------------------------------------------------------ writing


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_all_files_get_the_permissions_of_the_process(tmp_path, mask):
    """The safetensors library would create them as 0600."""
    before = os.umask(mask)
    try:
        model = tiny()
        model.tokenizer = Tokenizer.train(["a few words"], 262)
        tinyplm.save(model, tmp_path / "one")
        tinyplm.save(model, tmp_path / "more", max_shard_size=2000)
    finally:
        os.umask(before)
    found = [file for folder in ("one", "more") for file in (tmp_path / folder).iterdir()]
    assert len(found) > 6 and {stat.S_IMODE(file.stat().st_mode) for file in found} == {0o666 & ~mask}


def test_a_write_that_fails_names_the_file(tmp_path, monkeypatch):
    """NumPy's error for a full disk has neither an errno nor a file name."""

    def full(file, array, **options):
        raise OSError("100 requested and 0 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="100 requested and 0 written: .*train.npy") as error:
        write_tokens(tmp_path / "train.npy", np.zeros(5, np.uint16))
    assert error.value.filename == str(tmp_path / "train.npy") and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ a sole writer

HOLD = ("import sys\nfrom tinyplm.files import sole_writer\n"
        "with sole_writer(sys.argv[1]):\n    print('holding', flush=True)\n    sys.stdin.read()\n")  # fmt: skip


def hold(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert process.stdout.readline() == "holding\n"
    return process


@posix
def test_a_folder_has_one_writer_until_it_ends_however_that_ends(tmp_path):
    for end in (signal.SIGKILL, None):
        process = hold(tmp_path)
        with (
            pytest.raises(ValueError, match=f"^{tmp_path}: expected no other writer, got another process"),
            files.sole_writer(tmp_path),
        ):
            pass
        if end:
            process.send_signal(end)
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()
        with files.sole_writer(tmp_path), files.sole_writer(tmp_path / "."):  # the same thread may enter again
            pass
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_made_and_does_not_stay_empty(tmp_path):
    for name in ("some/folder", "kept"):
        with files.sole_writer(tmp_path / name):
            assert (tmp_path / name).is_dir()
            if name == "kept":
                (tmp_path / name / "file").touch()
        assert (tmp_path / name).exists() == (name == "kept")


@posix
@pytest.mark.parametrize("script", ["pretrain", "pretrain_bert.py", "pretrain_t5.py"])
def test_the_examples_hold_their_folder_from_the_start(run, texts, tmp_path, script):
    process = hold(tmp_path / "out")
    done = run(script, "--size", "tiny", "--steps", "2", "--text", *texts, "--out", str(tmp_path / "out"))
    process.kill()
    process.wait(timeout=60)
    process.stdout.close()
    process.stdin.close()
    assert done.code in (1, 2) and "got another process that is writing into this folder" in done.err and "corpus" not in done.out
    assert not list((tmp_path / "out").iterdir())


def test_another_thread_is_another_writer(tmp_path):
    refused = []

    def enter() -> None:
        try:
            with files.sole_writer(tmp_path):
                pass
        except ValueError as error:
            refused.append(str(error))

    with files.sole_writer(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(refused) == 1
    enter()
    assert len(refused) == 1


@posix
@pytest.mark.parametrize(("make", "kind"), [(Path.mkdir, "a folder"), (os.mkfifo, "a pipe")])
def test_only_files_are_replaced(tmp_path, make, kind):
    """A rename would replace whatever is there; as root, even /dev/null."""
    make(tmp_path / "x")
    before = os.stat(tmp_path / "x").st_mode
    with pytest.raises(ValueError, match=f"x: expected the name of a file, got {kind}"), replaced(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert os.stat(tmp_path / "x").st_mode == before and os.listdir(tmp_path) == ["x"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refused(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refused)
        with pytest.raises(ValueError, match="config.json: expected a readable file, got an error .Permission denied"):
            files.exists(tmp_path / "config.json")

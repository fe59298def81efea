"""Each hostile folder gives a correct result or one line that names it, quickly and in little memory.

The folders are in tests/support/hostile_folders.py.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.support import encoder_families, families, hostile_runs
from tests.support import hostile_folders as hostile
from tests.support.survivor import interrupted
from tests.test_sentence_encoder import encoder
from tinyplm.data.packing import write_tokens

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and signals of POSIX")
MODELS = ("gpt2", "llama", "bert", "deberta-v2", "xlnet")
FEW = ("null", "zero", "minus one", "10^6", "10^12", "1e400", "text", "object")


def save(name: str, folder: Path, **options) -> None:
    model = families.tiny(name, dtype="float32") if name in families.FAMILIES else encoder_families.tiny(name, dtype="float32")
    tinyplm.save(model, folder, **options)


def campaign(whole: Path, work: Path, damages: Iterable[hostile.Damage], attempt: Callable[[Path], None]) -> int:
    """Applies each damage to a copy of `whole`; returns their number.  The AssertionError names every unclean outcome."""
    bad, damages = [], list(damages)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, damage in damages:
        folder = work / "folder"
        shutil.copytree(whole, folder)
        damage(folder)
        try:
            attempt(folder)
        except Exception as error:
            bad.append(f"{name}: {type(error).__name__}: {error}"[:400])
        shutil.rmtree(folder)
        (work / "secret").unlink(missing_ok=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert not bad, f"{len(bad)} of {len(damages)}:\n" + "\n".join(bad)
    assert grown < 300, f"{grown} MB"
    return len(damages)


@pytest.mark.parametrize("name", MODELS)
def test_settings(name, tmp_path):
    """Replaces each value of config.json in turn with wrong types and extreme values."""
    save(name, tmp_path / "whole")
    kinds = hostile.REPLACEMENTS if name in families.FAMILIES else FEW
    damages = [*hostile.json_damages(tmp_path / "whole", "config.json", kinds), *hostile.text_damages("config.json")]
    assert campaign(tmp_path / "whole", tmp_path, damages, hostile.try_model) > 200


@pytest.mark.parametrize("name", MODELS)
def test_bytes_and_kinds_of_files(name, tmp_path):
    save(name, tmp_path / "whole")
    files = {f.name: f.stat().st_size for f in (tmp_path / "whole").iterdir()}
    damages = [damage for file, size in files.items() for damage in hostile.byte_damages(file, size, 25)]
    names = (*files, "model.safetensors.index.json", "generation_config.json", "vocab.txt", "tokenizer.json")
    damages += [damage for file in names for damage in hostile.kind_damages(file)]
    assert campaign(tmp_path / "whole", tmp_path, damages, hostile.try_model) > 150


@pytest.mark.parametrize("name", MODELS)
def test_tensors(name, tmp_path):
    save(name, tmp_path / "whole")
    damages = [*hostile.header_damages("model.safetensors"), *hostile.tensor_damages()]
    assert campaign(tmp_path / "whole", tmp_path, damages, hostile.try_model) > 60


def test_shards(tmp_path):
    save("llama", tmp_path / "whole", max_shard_size=1000)
    index, shard = "model.safetensors.index.json", min(f.name for f in (tmp_path / "whole").glob("model-*"))
    damages = [*hostile.index_damages(), *hostile.text_damages(index), *hostile.kind_damages(index),
               *hostile.json_damages(tmp_path / "whole", index, hostile.SOME),
               *hostile.kind_damages(shard), *hostile.header_damages(shard)]  # fmt: skip
    assert campaign(tmp_path / "whole", tmp_path, damages, hostile.try_model) > 100


def test_sentence_encoders(tmp_path):
    encoder().save(tmp_path / "whole")
    (tmp_path / "whole/config_sentence_transformers.json").write_text('{"prompts": {}, "default_prompt_name": null}')
    names = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json")
    damages = []
    for name in names:
        damages += hostile.json_damages(tmp_path / "whole", name, hostile.SOME)
        damages += [*hostile.text_damages(name), *hostile.kind_damages(name)]
    for path in ("../secret", "/etc", "..", "a/b", "x\n\x1b[2J", "n" * 10**6, "\0", "\ud800"):
        for number in (0, 1):
            damages.append((f"module {number} in {path!r:.20}", lambda f, n=number, p=path: hostile.replace_json(
                f / "modules.json", (n, "path"), json.dumps(p))))  # fmt: skip
    assert campaign(tmp_path / "whole", tmp_path, damages, hostile.try_sentences) > 200


def test_training_runs(tmp_path):
    """Each run resumes, or is refused in one line that names it."""
    with interrupted(4):
        hostile_runs.make(tmp_path / "whole")
    assert (tmp_path / "whole" / hostile_runs.LAST / "increment.safetensors").exists()
    assert campaign(tmp_path / "whole", tmp_path, hostile_runs.run_damages(tmp_path / "whole"), hostile_runs.try_run) > 300


def test_token_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole").mkdir()
    write_tokens(tmp_path / "whole/train.npy", np.arange(200, dtype=np.uint16))
    assert campaign(tmp_path / "whole", tmp_path, hostile_runs.token_damages(tmp_path / "whole"), hostile_runs.try_tokens) > 60

"""The documents of the project: their code blocks and command lines, and the files that the blocks assume."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinyplm
from tests.support import families, minilm, tuning
from tests.support.scripts import ROOT, write_texts
from tinyplm.families import llama

BLOCK = re.compile(r"```python\n(.*?)```\n(?:\(`([^`]+)`)?", re.DOTALL)  # code, and the file it is quoted from
SPAN = re.compile(r"`([^`\n]+)`")
SHORT = {"steps": 2, "warmup": 1, "max_new_tokens": 2}  # what makes a run long
NUMBER = re.compile(rf"\b({'|'.join(SHORT)})=\d+")
COMMAND = re.compile(r"(?:^|[ /])tinyplm [a-z]|examples/\w+\.py")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[tuple[str, str]]:
    """(code, the file it quotes or "")."""
    return BLOCK.findall(text_of(document))


def needs_torch(code: str) -> bool:
    return "import torch" in code


def run_blocks(document: str, codes: list[str], names: dict[str, Any]) -> None:
    """Runs blocks in order in one namespace, with fewer steps and tokens."""
    for code in codes:
        short = NUMBER.sub(lambda match: f"{match[1]}={SHORT[match[1]]}", code)
        exec(compile(short, f"{document}: {code.splitlines()[0]}", "exec"), names)


def prose(document: str) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)


def indented(document: str) -> list[str]:
    """The lines of indented blocks, outside of fenced ones, without comments and alignment."""
    found = [line for line in prose(document).splitlines() if line.startswith("    ") and line.strip()]
    return [re.sub(r"\s+# .*", "", line).strip() for line in found]


def command_lines(document: str) -> Iterator[list[str]]:
    """["tinyplm", "chat", ...] or ["examples/sft.py", ...], from indented blocks and code spans."""
    for line in [*indented(document), *SPAN.findall(prose(document))]:
        if not COMMAND.search(line) or "COMMAND" in line:
            continue
        for part in line.split(" && "):
            words = shlex.split(part)
            for n, word in enumerate(words):
                if Path(word).name == "tinyplm" and n < 2:
                    yield ["tinyplm", *words[n + 1 :]]
                    break
                if re.fullmatch(r"examples/\w+\.py", word):
                    yield words[n:]
                    break


def script_lines(path: str) -> Iterator[list[str]]:
    """The same of a shell script with functions tinyplm and example; none if the file is not packed."""
    text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else ""
    for line in text.splitlines():
        if re.match(r"(tinyplm|example) [a-z]|echo .* \| tinyplm ", line):
            line = re.sub(r"^echo .* \| | *(</dev/null *)?(\| (tail|sed) .*)?$", "", line.replace("$work", "work"))
            first, *rest = shlex.split(line)
            yield ["tinyplm", *rest] if first == "tinyplm" else [f"examples/{rest[0]}.py", *rest[1:]]


def write_lines(path: str, records: list[Any]) -> None:
    Path(path).write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def write_decoder(folders: tuple[str, ...], tokenizer: Any, family: str = "gpt2") -> None:
    """A tiny decoder with this tokenizer in each of the folders."""
    sizes = {"vocab_size": tokenizer.vocab_size, "bos_token_id": None, "eos_token_id": None}
    if family == "gpt2":
        sizes |= {"n_embd": 12, "n_head": 2, "n_layer": 1, "n_positions": 128}
    else:
        sizes |= {"hidden_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
        sizes |= {"intermediate_size": 20, "max_position_embeddings": 128}
    decoder = tinyplm.create(family, **sizes)
    decoder.tokenizer = tokenizer
    for folder in folders:
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
        tinyplm.save(decoder, folder)


def prepare(trained, monkeypatch) -> dict[str, Any]:
    """Writes the files that the documents assume into the current folder; returns the names."""
    monkeypatch.setitem(llama.SIZES, "llama-3.2-1b", families.FAMILIES["llama"].config)
    Path("all-MiniLM-L6-v2").symlink_to(minilm.folder())
    write_decoder(("path/to/a/hugging-face/folder", "path/to/a/smaller/folder", "my-model"), trained)
    tinyplm.save(tuning.model(dtype="float32"), "bert-folder")
    asked = [[{"role": "user", "content": f"Who is {n}?"}] for n in range(8)]
    said = {name: [{"role": "assistant", "content": name}] for name in ("Ada.", "Alan.")}
    write_lines("talks.jsonl", [{"messages": [*one, *said["Ada."]]} for one in asked])
    write_lines("pairs.jsonl", [{"prompt": one, "chosen": said["Ada."], "rejected": said["Alan."]} for one in asked])
    write_lines("prompts.jsonl", [{"prompt": one, "answer": "Ada."} for one in asked[:2]])
    write_lines("my-pairs.jsonl", 60 * [{"source": "the quick fox", "target": "the lazy dog"}])
    write_texts(Path())
    ids = np.array([[1, 2, 3]])
    texts = ["good fox", "bad dog", "the lazy dog", "the quick fox"]
    labels = ["good", "bad", "bad", "good"]
    return {
        "input_ids": ids,
        "next_ids": ids[:, :1],
        "mask": np.ones_like(ids),
        "types": np.zeros_like(ids),
        "dlogits": np.ones((1, 3, trained.vocab_size), dtype="float32"),
        **{"texts": texts, "more_texts": texts, "labels": labels, "more_labels": labels},
    }

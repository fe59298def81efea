"""Convert a model: another data type, other shards, a merged adapter; a run to one folder.

    tinyplm convert --model out --out gpt2-mine                     # of a run, its best checkpoint
    tinyplm convert --model llama-folder --dtype bfloat16 --shard-size 2GB --out llama-16
    tinyplm convert --model gpt2-folder --adapter out-lora --out gpt2-tuned

What is written is read again and compared before the folder gets its name.  An incremental
checkpoint becomes a whole model.
"""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .. import hub
from ..arguments import mismatch
from ..core import flatten
from ..families import MULTI_TOKEN
from ..files import printable, sync_folder
from ..hub.runs import ADAPTER, BEST, FINAL, INCREMENT, LATEST, PEFT
from ..hub.tensors import parse_size
from ..models.model import Model
from ..training import incremental
from ..training.checkpoint import find
from ..training.folders import check_intact
from ..tuning.adapters.lora import load_lora, merge_lora
from .folders import config_option, unused
from .models import folder_of, model_option, read_config
from .parser import Parser, one_of

# name in files, and the relative rounding error and smallest step of each
FORMATS = {
    "float16": ("F16", 2.0**-11, 2.0**-25),
    "bfloat16": ("BF16", 2.0**-8, 2.0**-134),
    "float32": ("F32", 2.0**-24, 2.0**-150),
    "float64": ("F64", 0.0, 0.0),
}


def add(parser: Parser) -> None:
    text = "Model: a folder as on the hub, the --out of a run, or one of its checkpoints."
    model_option(parser, help=text)
    text = "New or empty folder to write."
    parser.option("--out", None, text, metavar="FOLDER", needed=True)
    text = f"Data type of all tensors: {', '.join(FORMATS)}."
    parser.option("--dtype", None, text, one_of(*FORMATS), shown="as they are stored")
    text = "Largest file of tensors, such as 500MB or 5GB; larger models are written in several."
    parser.option("--shard-size", "5GB", text, metavar="SIZE")
    text = "Folder of a LoRA adapter, or the --out of the run that made it, to merge."
    parser.option("--adapter", None, text, metavar="FOLDER", shown="none")
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    try:
        limit = parse_size(options.shard_size)
    except ValueError as error:
        text = str(error).removeprefix("max_shard_size")
        raise ValueError(f"--shard-size{text}") from None
    out = unused(options.out)
    outside(out, options.model)
    model = read(options.model)
    if options.adapter is not None:
        model = merged(model, options.adapter)
    dtype = None if options.dtype is None else FORMATS[options.dtype][0]
    with whole_folder(out) as folder:
        hub.save(model, folder, dtype=dtype, max_shard_size=limit)
        worst = compare(model, folder, options.dtype)
        files = sorted(folder.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
    print(f"model      {model}")
    many = f"{len(files)} files" if len(files) > 1 else files[0].name
    print(f"written    {out}: {many}, {size:,} bytes")
    rounding = (
        f"rounded by at most {worst:.1e} of a tensor's largest number"
        if worst
        else "every number equal"
    )
    print(f"verified   read again: {rounding}")


def outside(out: Path, model: str) -> None:
    """ValueError if the folder to write lies in the one to read."""
    inner, outer = out.resolve(), Path(model).resolve()
    if inner == outer or outer in inner.parents:
        raise mismatch("--out", f"a folder outside {printable(model)}", printable(out))


def read(name: str) -> Model:
    """The model of a folder, a run or a checkpoint, also an incremental one, as it is stored."""
    path = Path(name)
    whole = any((path / part / "config.json").is_file() for part in ("", FINAL, BEST))
    if path.is_dir() and not whole:
        for pointer in (BEST, LATEST):
            if (path / pointer).is_file():
                path = find(path, pointer)
                break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if (path / INCREMENT).is_file():
            check_intact(str(path), path)
            return incremental.read(path)[0]
        folder = folder_of(str(path))
        if getattr(read_config(folder), "modules", 0):
            with suppress(ValueError):  # the file has no such modules, as transformers writes it
                return hub.load(folder, task=MULTI_TOKEN)
        return hub.load(folder)


def merged(model: Model, adapter: str) -> Model:
    """The model with a LoRA adapter in its matrices, computed in at least float32."""
    path = Path(adapter)
    itself = any((path / file).is_file() for file in (ADAPTER, PEFT))
    path = path if itself else path / FINAL
    theta, alpha = load_lora(path)
    if (path / "config.json").is_file():  # of a run, whose vocabulary may have grown
        size, own = read_config(path).vocab_size, model.config.vocab_size
        if size != own:
            given = f"one of {size}; tinyplm convert --model {adapter} has it merged"
            raise mismatch("--adapter", f"an adapter of a model of {own} tokens", given)
    half, dtypes = model.dtype == np.float16, model.file_dtypes
    wide = model.astype("float32") if half else model
    cast = {
        matrix: {name: a.astype(wide.dtype) for name, a in factors.items()}
        for matrix, factors in theta.items()
    }
    made = merge_lora(wide, cast, alpha=alpha)
    made = made.astype("float16") if half else made
    made.file_dtypes = dtypes
    return made


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder, which gets the name `out` only if nothing fails."""
    out = out.resolve()  # "." has no name
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_folder(temporary)
        if out.exists():
            out.rmdir()  # it is empty
        os.rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def compare(model: Model, folder: Path, dtype: str | None) -> float:
    """Load the folder; the largest difference from the model's numbers, as a share of the largest
    one of the same tensor.

    ValueError for one that rounding to the dtype does not explain.
    """
    again = hub.load(folder, task=model.task)
    kinds = {*model.file_dtypes.values()} if dtype is None else {FORMATS[dtype][0]}
    _, u, least = max(
        (form for form in FORMATS.values() if form[0] in kinds),
        default=("", 0.0, 0.0),
        key=lambda form: form[1],
    )
    worst = 0.0
    ours = flatten({"params": model.params, "buffers": model.buffers})
    theirs = flatten({"params": again.params, "buffers": again.buffers})
    for path, a in ours.items():
        a, b = a.astype("float64"), theirs[path].astype("float64")
        difference = np.abs(a - b)
        if (difference > u * np.abs(a) + least).any():
            raise ValueError(f"{path}: expected the numbers that were written, got others")
        size = np.abs(a).max(initial=0.0)
        worst = max(worst, float(difference.max(initial=0.0) / size) if size else 0.0)
    return worst

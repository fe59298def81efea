"""What a training step holds: the closures' arrays one by one, and the peak of what is allocated."""

from __future__ import annotations

import functools
import tracemalloc
import types
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import families
from tests.support.scripts import assert_one_line
from tinyplm import random, scaling
from tinyplm.core import StackOptions, flatten
from tinyplm.families import gpt2, llama
from tinyplm.layers.mask import Visible
from tinyplm.models.protocol import LossOptions
from tinyplm.optim import AdamW
from tinyplm.scaling import planning
from tinyplm.training.step import accumulate


def owner(a):
    return owner(a.base) if isinstance(a.base, np.ndarray) else a


def content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # a variable that a branch has not set
        return None


def held_by(root):
    """{id: array} of all arrays that a closure reaches, each the one that owns its memory."""
    seen, found, todo = set(), {}, [root]
    while todo:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, np.ndarray):
            found[id(owner(x))] = owner(x)
        elif isinstance(x, types.FunctionType):
            todo += [content(cell) for cell in x.__closure__ or ()]
        elif isinstance(x, functools.partial):
            todo += [x.func, *x.args, *x.keywords.values()]
        elif isinstance(x, dict):
            todo += x.values()
        elif isinstance(x, (list, tuple)):
            todo += x
        elif isinstance(x, Visible):
            todo += vars(x).values()
    return found


# samples, tokens, dtype, group of checkpointing, dropout: both forms of attention and of the head's gradient
STEPS = [(3, 5, "float32", 0, False), (2, 6, "float16", 0, False), (2, 130, "float32", 0, True), (1, 140, "float16", 0, True),
         (1, 2, "float32", 1, False), (2, 6, "float64", 2, True), (2, 6, "float32", 0, True)]  # fmt: skip


@pytest.mark.parametrize("name", scaling.WALKED)
def test_closures_hold_what_is_counted(name):
    known = families.FAMILIES[name]
    for B, T, dtype, size, dropping in STEPS:
        model = families.tiny(name, dtype=dtype, **{known.context: 300}, **(known.dropout if dropping else {}))
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (B, T))
        inputs = {"input_ids": ids} | ({"key": random.sample_keys(1, np.arange(B))} if dropping else {})
        stacking, options = StackOptions(checkpointing=size), LossOptions(factors=B * T < model.width)
        _, back = model.loss_in_parts(lambda *_: None, inputs, targets={"logits": ids}, options=options, stacking=stacking)
        others = {id(owner(a)) for a in (*flatten(model.params).values(), *inputs.values())}
        held = sum(a.nbytes for at, a in held_by(back).items() if at not in others and a.ndim)
        sizes = {"batch": B, "length": T, "dtype": dtype, "checkpointing": size, "dropout": dropping}
        assert sum(scaling.activations(model.family, model.config, **sizes).values()) == held, (B, T, dtype, size, dropping)


LLAMA = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 176,
         "num_hidden_layers": 3, "max_position_embeddings": 300}  # fmt: skip
GPT2 = {"n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 300}


@pytest.mark.parametrize(("name", "changes", "B", "T", "size"), [
    ("gpt2", GPT2, 6, 64, 0), ("gpt2", GPT2, 6, 64, 1), ("llama", LLAMA, 6, 64, 0), ("llama", LLAMA, 6, 64, 2),
    ("gpt2", GPT2, 2, 300, 0), ("llama", LLAMA, 2, 300, 0),
    ("gpt2", GPT2 | {"vocab_size": 3000}, 16, 80, 0), ("gpt2", GPT2 | {"vocab_size": 3000}, 2, 20, 0),
])  # fmt: skip
def test_the_peak_of_a_step(name, changes, B, T, size):
    """Of what is allocated: beside large arrays there are norms' and others of one number a token and of a few rows."""
    model = families.tiny(name, dtype="float32", **changes)
    optimizer = AdamW(model.params)
    model.params = optimizer.params
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (B, T))
    settings = SimpleNamespace(micro_size=B, workers=1, smoothing=0.0, checkpointing=size)
    accumulate(model, optimizer, ids, ids, settings=settings)  # what is made once
    tracemalloc.start()
    try:
        accumulate(model, optimizer, ids, ids, settings=settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    found = scaling.training_memory(model.family, model.config, batch=B, length=T, checkpointing=size)
    assert sum(found[part] for part in ("activations", "logits", "temporary")) == pytest.approx(peak, rel=0.1)


def test_states_are_counted_with_the_step():
    config, sizes = gpt2.SIZES["gpt2"], {"batch": 8, "length": 256}
    found = scaling.training_memory(gpt2, config, **sizes)
    assert {part: found[part] for part in ("weights", "gradients", "moments")} == scaling.states(gpt2, config)
    shared = scaling.training_memory(gpt2, config, **sizes, workers=2)
    half = scaling.training_memory(gpt2, config, batch=4, length=256)
    assert all(shared[part] == 2 * half[part] for part in ("activations", "logits", "temporary"))
    again = planning.memory(12 * 12 * 1536**2, length=64)
    assert again["moments"] == 8 * 12 * 12 * 1536**2 and again.keys() == {*found} - {"temporary"}


def test_what_is_printed(run):
    plain, recomputed = (run("count", "--model", "gpt2", "--batch", 64, *more).out for more in ((), ("--checkpointing", 1)))
    assert "activations of our walk, 64 x 1,024 tokens" in plain and "training at its peak" in plain != recomputed
    assert "Activations are not counted: expected layers that" in run("count", "--model", "gpt2", "--tensor", 2).out
    assert "Activations are not counted: expected one of gpt2, " in run("count", "--model", "palm-8b").out
    shown = run("plan", "--flops", "1e20", "--context", 128).out
    assert all(f"{part}_bytes" in shown for part in ("weights", "gradients", "moments", "activations", "logits"))
    assert_one_line(run("plan", "--flops", "1e20", "--context", 0), "--context: expected ")


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch": 0}, "batch: expected an integer from 1 to "),
    ({"length": 2049}, "length: expected an integer from 1 to 2048, got 2049"),
    ({"dtype": "int8"}, "dtype: expected one of "), ({"checkpointing": -1}, "checkpointing: expected an integer"),
    ({"dropout": 1}, "dropout: expected "), ({"workers": 0}, "workers: expected an integer"),
])  # fmt: skip
def test_bad_input(changes, message):
    f = scaling.training_memory if "workers" in changes else scaling.activations
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        f(llama, llama.SIZES["llama-7b"], **{"batch": 1, "length": 8} | changes)

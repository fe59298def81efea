"""Invalid calls of exported names and kernels, and whether every export has a row somewhere in this folder."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.calls.test_tuning import CHAT, MODEL, PROMPTS, QUICK, TEXT, TURNS
from tests.support.wrong_calls import wrong_calls
from tinyplm import checks, core, optim, tuning
from tinyplm.kernels import attention, block_attention, mlp
from tinyplm.layers import cross_attention
from tinyplm.layers.activation import gelu
from tinyplm.layers.mask import Visible
from tinyplm.models.protocol import LossOptions, OutputOptions
from tinyplm.training import presets, writers
from tinyplm.training.settings import Settings

X = np.ones((2, 3, 4))
with checks.trace() as TRACE:
    MODEL([[1, 2]], grad=False)
Q, K = np.ones((1, 2, 3, 4)), np.ones((1, 1, 3, 4))
W, MEMORY = np.eye(4), (Q[..., :2], Q[..., 2:])
ATTENTION = {f"W{n}": W for n in "qkvo"}
CAUSAL = Visible(3, 3, causal=True, window=None, padding=None, allowed=None, xp=np)
WEIGHTS = {
    "q": Q,
    "k": K,
    "v": K,
    "bias": None,
    "mask": CAUSAL,
    "scale": 0.5,
    "cap": 2.0,
    "offsets": np.zeros((1, 2, 1, 3)),
    "rate": 0.0,
    "key": None,
}
CORPUS = {"corpus_tokens": 1000, "vocab_size": 300, "context": 16}
SETTINGS = Settings(**QUICK, sequence_length=5)
ROWS = [
    (LossOptions, {"smoothing": 0.1, "auxiliary": 0.5, "chunk": 4, "factors": False}),
    (OutputOptions, {"temperature": 1.0, "entropy": True, "chunk": 4, "total": 3.0}),
    (core.blas_threads, {"count": 1}),
    (core.on_tree, {"f": gelu}),
    (core.shift_right, {"labels": np.ones((2, 3), int), "start_id": 0, "pad_id": 0}),
    (core.reduce_shards, {"f": lambda part, emit: emit("", part), "batch": {"x": X}, "workers": 1, "accumulate": lambda *a: 0}),
    (attention.attention, WEIGHTS),
    (block_attention.block_attention, WEIGHTS | {"block": 2}),
    (attention.self_attention, {"p": ATTENTION, "x": X, "heads": 2, "kv_heads": 2, "mask": None, "scale": 0.5, "cap": 2.0,
                                "offsets": np.zeros((1, 2, 1, 3)), "rotary": None, "head_norm": None, "projection_norm": None,
                                "cache": None, "rate": 0.0, "key": None, "bias": np.zeros((2, 3, 3))}),
    (attention.cross_attention, {"p": ATTENTION, "x": X, "context": X, "heads": 2, "memory": MEMORY, "mask": None, "scale": 0.5,
                                 "rate": 0.0, "key": None}),
    (cross_attention.keys_and_values, {"p": ATTENTION, "context": X, "heads": 2}),
    (cross_attention.attend_to, {"p": ATTENTION, "x": X, "k": MEMORY[0], "v": MEMORY[1], "heads": 2, "mask": None, "scale": 0.5,
                                 "rate": 0.0, "key": None}),
    (mlp.mlp, {"p": {"W1": W, "W2": W}, "x": X, "activation": gelu}),
    (mlp.gated_mlp, {"p": {"Wgate": W, "Wup": W, "Wdown": W}, "x": X, "activation": gelu}),
    (optim.FlatTree, {"like": {"W": X}, "dtype": None, "paths": ["W"], "copy": True}),
    (optim.depths, {"params": MODEL.params}),
    (optim.layerwise_rates, {"params": MODEL.params, "decay": 0.9}),
    (optim.warmup_constant, {"step": 1, "peak": 0.1, "warmup": 2}),
    (optim.warmup_inverse_sqrt, {"step": 1, "peak": 0.1, "warmup": 2}),
    (optim.constant_inverse_sqrt, {"step": 1, "peak": 0.1, "warmup": 2}),
    (optim.inverse_sqrt_peak, {"width": 4, "warmup": 2}),
    (optim.relative_step, {"step": 1, "warmup_init": True}),
    (optim.warmup_linear, {"step": 1, "peak": 0.1, "warmup": 2, "total": 5, "floor": 0.0}),
    (optim.warmup_cosine, {"step": 1, "peak": 0.1, "warmup": 2, "total": 5, "floor": 0.0}),
    (optim.warmup_stable_decay, {"step": 1, "peak": 0.1, "warmup": 2, "total": 5, "floor": 0.0, "decay": 2}),
    (optim.learning_rate, {"name": "stable-decay", "step": 1, "peak": 0.1, "warmup": 2, "total": 5, "floor": 0.0, "decay": 2}),
    (tuning.FewShot, {"question": "{a}", "answer": " {b}", "examples": [{"a": "x", "b": "y"}], "instruction": "",
                      "separator": "\n", "balance": "b"}),
    (tuning.Task, {"name": "add", "phrasings": ["{a}?"], "answer": "{b}"}),
    (tuning.Verbaliser, {"words": {"good": " cat", "bad": " dog"}}),
    (tuning.RecipeSettings, {**QUICK, "micro_batch_size": 1, "learning_rate": 0.1, "schedule": "cosine", "floor": 0.0,
                             "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "clip": 1.0, "dropout": False,
                             "seed": 0, "workers": 1, "checkpointing": 0}),
    (tuning.conversation, {"tokenizer": TEXT, "template": CHAT, "messages": TURNS}),
    (tuning.prompt_ids, {"tokenizer": TEXT, "template": CHAT, "prompt": TURNS[:1]}),
    (tuning.preference, {"tokenizer": TEXT, "template": None, "record": {"prompt": "a", "chosen": "b", "rejected": "c"}}),
    (tuning.read_records, {"path": "/nowhere/at/all", "kind": "instruction"}),
    (tuning.text_sequences, {"tokens": np.arange(9), "length": 4}),
    (tuning.sampled_answers, {"teacher": MODEL, "prompts": PROMPTS, "accept": None, "max_new_tokens": 2,
                              "stop_ids": list(range(300))}),
    (tuning.lora_parameters, {"params": MODEL.params, "rank": 2, "targets": ["Wq"], "key": 0}),
    (checks.compare, {"a": TRACE, "b": TRACE, "model": None, "names": None, "dtype": None, "partial": False, "explain": True}),
    (checks.save_trace, {"trace": TRACE, "path": "trace.safetensors"}),
    (tuning.Learner, {"model": MODEL, "settings": tuning.SFTSettings(**QUICK), "updates": 1}),
    (presets.preset, {"size": "tiny", "hours": 1.0, "flop_per_second": 1e9, "tokens_per_parameter": 20.0, "beta2": 0.9,
                      **CORPUS}),
    (presets.propose, {"make": lambda *shape: MODEL, "size": (1, 8, 2), "settings": SETTINGS, "corpus_tokens": 99,
                       "vocab_size": 9, "hours": 1.0}),
    (presets.measured_speed, {"model": MODEL, "settings": SETTINGS, "steps": 3}),
    (presets.learning_rate_of, {"parameters": 1000}),
    (presets.warmup_steps, {"steps": 1000, "beta2": 0.9}),
    (writers.check_writers, {"writers": []}),
]  # fmt: skip
# Words that a message may use instead of the argument's name.
WORDS = {
    "workers": ["count"], "steps": ["total"], "name": ["schedule"], "context": ["W"], "memory": ["k:", "context"],
    "mask": ["allowed"], "kv_heads": ["heads"], "examples": ["example 0"],
    "balance": ["example 0"], "answer": ["example 0"], "question": ["example 0"], "messages": ["message"],
    "prompt": ["text", "template", "message"], "stop_ids": ["accept"], "max_new_tokens": ["accept"], "x": ["W", "heads"],
    "template": ["template"], "make": ["model: expected a model"],
    "flop_per_second": ["hours"], "path": ["file", "xxx", "hello"], "records": ["record"],
    "kind": ["expected a file"],  # None is any kind
}  # fmt: skip


@pytest.mark.parametrize(("f", "right"), ROWS, ids=lambda v: getattr(v, "__qualname__", ""))
def test_wrong_kinds(f, right, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if right.get("path") != "/nowhere/at/all":
        f(**right)
    complaints = wrong_calls(f, right, aliases=WORDS)
    # a class or any function is callable, so the error appears only in the call; and the operating system's message for a path
    allowed = (" = class: ", "rotary = function: ", "_norm = function: ", "No such file or directory", "File name too long")
    complaints = [c for c in complaints if not any(words in c for words in allowed)]
    assert not complaints, "\n".join(complaints)


# Return types and type names; functions without user-supplied arguments; functions that a component's own laws test.
NOT_CALLED = {
    "core": {"Array", "Backward", "Component", "Tree", "Product", "Rows", "chain", "in_float32"},
    "data": {"default_corpus", "MixedDocuments"},  # the latter in tests/data/test_mixing.py
    "evaluation": {"Bleu", "Interval", "Judgement", "PairedTest", "Row", "Scores", "WinRate"},
    "generation": {"Blank", "Continuation", "Filled", "Hypothesis", "Piece"},
    "models.protocol": {"Arrays", "Emit", "LossInputs", "Trainable"},
    "optim": {"Optimizer", "decays_by_default"},
    "tokenizers": set(),
    "objectives": {"Infilling"},
    "tuning": {"FinetuneResult", "PPOResult", "Result", "RewardResult", "Rollouts", "Accepted", "Pair", "Feedback", "Journal",
               "save_lora", "save_prefix", "save_rows", "token_log_probs"},
}  # fmt: skip


@pytest.mark.parametrize("package", NOT_CALLED)
def test_every_export_has_a_row(package):
    module = importlib.import_module(f"tinyplm.{package}")
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    exported = {name for name in getattr(module, "__all__", defined) if callable(getattr(module, name))}
    rows = "".join(path.read_text().partition("NOT_CALLED = {")[0] for path in Path(__file__).parent.glob("*.py"))
    assert {name for name in exported if not re.search(rf"\b{name}\b", rows)} <= NOT_CALLED[package]
    assert NOT_CALLED[package] <= {*exported, *vars(module)}


def test_the_public_names_are_listed():
    """Those that are imported when first asked for included."""
    assert set(tinyplm.__all__) < set(dir(tinyplm)) and "Any" not in dir(tinyplm)

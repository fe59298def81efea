# ruff: noqa: E402 - imports follow importorskip
"""Traces of PyTorch modules: values and gradients of their modules, other names, other dtypes, bad input."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import tinyplm
from tests.interop.test_planted_mistakes import our_side, transformers_pair
from tests.support import torch_models
from tinyplm.checks import read_trace, save_trace, trace_torch


def theirs(family="llama", **pieces):
    ours, inputs, targets, trace = our_side(family)
    model = {"llama": torch_models.Llama, "gpt2": torch_models.GPT2}[family](ours, **pieces)
    labels = torch.from_numpy(targets["logits"])
    return model, inputs, trace, lambda logits: nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_values_and_gradients_are_those_of_autograd():
    model, inputs, _, loss = theirs()
    t = trace_torch(model, inputs, backward=loss)
    logits = model(**{name: torch.from_numpy(a) for name, a in inputs.items()})
    assert np.array_equal(t["lm_head"].value, logits.detach().numpy()) and t["loss"].gradient == 1
    value = loss(logits)
    (dlogits,) = torch.autograd.grad(value, logits, retain_graph=True)
    assert t["loss"].value == value.item() and np.array_equal(t["lm_head"].gradient, dlogits.numpy())
    assert t.backward[:3] == ["loss", "lm_head", "model.norm"] and "model.embed_tokens" in t.backward[-4:]
    assert all(p.grad is None for p in model.parameters())
    for p, d in zip(model.parameters(), torch.autograd.grad(value, list(model.parameters()))):
        name = next(n for n, q in model.named_parameters() if q is p)
        assert np.array_equal(t.gradients[name], d.numpy())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_inputs_are_those_before_the_module_changes_them():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    t = trace_torch(nn.Sequential(InPlace(), InPlace()), np.ones(3))
    assert [(name, record.value[0]) for name, record in t.items()] == [("0:input", 1), ("0", 2), ("1:input", 2), ("1", 4)]


def test_values_alone_and_other_forms_of_input():
    model, inputs, ours, _ = theirs()
    for given in (inputs, tuple(inputs.values()), [torch.from_numpy(a) for a in inputs.values()]):
        t = trace_torch(model, given)
        assert t.gradients is None and t.backward == [] and all(record.gradient is None for record in t.values())
        result = tinyplm.compare(ours, t)
        assert result.equal and {row.kind for row in result.rows} == {"forward"}
    assert "lm_head" in trace_torch(model, inputs["input_ids"])


def test_a_second_call_of_a_module_and_outputs_that_are_no_tensors():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), Tuple()

        def forward(self, x):
            return self.b(self.a(self.a(x)))["y"][1]

    class Tuple(nn.Module):
        def forward(self, x):
            return {"n": 1, "y": (torch.arange(2), x + 1)}

    t = trace_torch(Twice(), np.ones((1, 2), dtype=np.float32), backward=lambda y: y.sum())
    assert list(t) == ["a:input", "a", "a:input#2", "a#2", "b:input", "b", "loss"]
    assert np.array_equal(t["b"].value, t["a#2"].value + 1) and np.array_equal(t["a"].value, t["a:input#2"].value)
    assert t["a:input"].gradient is None, "of an input that needs none"


def test_a_branch_without_gradient_is_zero():
    model, inputs, _, loss = theirs(add=lambda x, y: x + y.detach())
    assert not trace_torch(model, inputs, backward=loss)["model.layers.0.self_attn.o_proj"].gradient.any()


class Wrapped(nn.Module):
    """The LLaMA with other names of its modules."""

    def __init__(self, model):
        super().__init__()
        self.net = model

    def forward(self, **inputs):
        return self.net(**inputs)


def test_other_names():
    model, inputs, ours, loss = theirs()
    wrapped = Wrapped(model)
    rules = [(r"^net\.", "")]
    result = tinyplm.compare(ours, trace_torch(wrapped, inputs, backward=loss, names=rules))
    assert result.equal and len([row for row in result.rows if row.kind == "parameter"]) == 21
    plain = trace_torch(wrapped, inputs, backward=loss)
    assert len(tinyplm.compare(ours, plain, names=rules).rows) == len(result.rows)
    with pytest.raises(ValueError, match=r"compare: b: expected modules with the hub's names, such as .*names=\.\.\. maps them"):
        tinyplm.compare(ours, plain)
    own = {
        "layers.1.mlp.gate": "net.model.layers.1.mlp.gate_proj",
        "layers.0.attention.heads": "net.model.layers.0.self_attn.o_proj:input",
    }
    result = tinyplm.compare(ours, plain, names=own)
    assert {row.name for row in result.rows} == {*own, "loss"} and result.equal


def test_a_trace_of_torch_survives_a_file(tmp_path):
    model, inputs, ours, loss = theirs("gpt2")
    t = trace_torch(model, inputs, backward=loss)
    save_trace(t, tmp_path / "t")
    back = read_trace(tmp_path / "t")
    assert back.source == "torch" and list(back) == list(t)
    assert tinyplm.compare(ours, tmp_path / "t").table() == tinyplm.compare(ours, t).table()
    assert tinyplm.compare(back, t).equal
    save_trace(ours, tmp_path / "ours")
    with pytest.raises(ValueError, match="compare: expected the model of our trace beside a PyTorch model's"):
        tinyplm.compare(tmp_path / "ours", tmp_path / "t")
    assert tinyplm.compare(tmp_path / "ours", tmp_path / "t", model=ours.model).equal


def test_bfloat16_is_noted_and_explained():
    """A model in bfloat16 against ours in float32 with the same parameters."""
    model, inputs, _, loss = theirs()
    ours, *_ = our_side("llama")
    model.to(torch.bfloat16)
    from tinyplm.core import tree_map

    rounded = ours.with_params(tree_map(lambda a: torch.from_numpy(a).bfloat16().float().numpy(), ours.params))
    _, inputs, targets, _ = our_side("llama")
    with tinyplm.trace() as t:
        _, backward = rounded.loss(**inputs, targets=targets)
        backward(1.0)
    narrow = trace_torch(model, inputs, backward=lambda logits: loss(logits.float()))
    assert set(narrow.dtypes.values()) == {"bfloat16"} and narrow["lm_head"].value.dtype == np.float32
    result = tinyplm.compare(t, narrow)
    assert result.equal, result.table()
    assert max(row.difference for row in result.rows) > 1e-3


def test_float32_inside_a_float64_model_is_recognised(tmp_path):
    """transformers' RMSNorm computes in float32, whatever the model's dtype."""
    pytest.importorskip("transformers")
    model, ours, inputs, _ = transformers_pair("llama", tmp_path)
    with tinyplm.trace() as t:
        ours(**inputs, grad=False)
    result = tinyplm.compare(t, trace_torch(model, inputs), partial=True)
    assert result.first_forward == "layers.0.norm1" and result.explanation.name == "rounding of float32"


BAD = [
    ((3, {}), {}, "trace_torch: model: expected a PyTorch module (torch.nn.Module), got 3"),
    ((nn.Linear(2, 2), 3), {}, "trace_torch: inputs: expected a dict of arrays, a tuple of them or one, got 3"),
    ((nn.Linear(2, 2), np.ones(2, "f4")), {}, "trace_torch: model: expected a module with modules inside, got 'Linear'"),
    ((nn.Sequential(nn.Linear(2, 2)), np.ones(2, "f4")), {"backward": 3},
     "trace_torch: backward: expected None or a function, got 3"),
    ((nn.Sequential(nn.Linear(2, 2)), np.ones(2, "f4")), {"backward": lambda y: y},
     "trace_torch: backward: expected a function that gives one number, a tensor, got (2,)"),
    ((nn.Sequential(nn.Linear(2, 2)), np.ones(2, "f4")), {"backward": lambda y: y.sum().detach()},
     "trace_torch: backward: expected a number with a gradient, got one without"),
    ((nn.Sequential(nn.Linear(2, 2)), np.ones(2, "f4")), {"names": {1: 2}}, "trace_torch: names: expected None, {our path"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "options", "message"), BAD, ids=[row[2][13:60] for row in BAD])
def test_bad_input(args, options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        trace_torch(*args, **options)


def test_without_torch(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"^trace_torch: expected PyTorch \(pip install torch\), got none$"):
        trace_torch(nn.Linear(2, 2), {})

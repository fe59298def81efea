"""Comparisons of traces: what differs first and by how much, in files and in memory, and bad input."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

import tinyplm
from tests.checks.test_alternatives import planted
from tests.support import families
from tinyplm.checks import Trace, compare, read_trace, save_trace
from tinyplm.checks.alternatives.norms import bfloat16
from tinyplm.checks.files import parameter_gradients
from tinyplm.checks.tracing import Call
from tinyplm.core import tree_map
from tinyplm.hub.tensors import write_safetensors


@functools.cache
def traced(family="llama", dtype="float64", padded=True, also=(), **changes):
    model = families.tiny(family, dtype=dtype, **changes)
    ids, targets = families.batch()
    given = {"attention_mask": families.PADDING} if padded else {}
    with tinyplm.trace(also=also) as t:
        _, backward = model.loss(input_ids=ids, targets={"logits": targets}, **given)
        backward(1.0)
    return t


def changed(trace, kind, name, by=1e-3):
    own = parameter_gradients(trace) if kind == "parameter" else {name: trace[name].value}
    own = trace[name].gradient if kind == "backward" else own[name]
    return planted(trace, kind, name, own + by * np.cos(np.arange(own.size)).reshape(own.shape))


def test_a_trace_equals_itself():
    t = traced(also=("scores", "probabilities"))
    result = tinyplm.compare(t, t)
    assert result.equal and (result.first_forward, result.first_backward, result.first_parameter) == (None, None, None)
    assert [row.name for row in result.rows if row.kind == "forward"] == list(t)
    assert [row.name for row in result.rows if row.kind == "backward"] == t.backward
    assert all(row.ratio == row.difference == 0 and row.explained > 0 for row in result.rows)
    assert str(result).startswith(f"equal: {len(t)} values, {len(t)} gradients and 21 gradients of parameters")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rounding_is_no_difference_and_more_than_that_is_one(dtype):
    """float64 against a run of its parameters in a narrower dtype."""
    t = traced()
    narrow = t.model.astype(dtype)
    wide = narrow.with_params(tree_map(lambda a: a.astype("float64"), narrow.params))  # the same numbers
    runs = []
    for model in (wide, narrow):
        with tinyplm.trace() as run:
            _, backward = model.loss(input_ids=t.inputs["input_ids"], targets={"logits": t.inputs["targets.logits"]})
            backward(1.0)
        runs.append(run)
    result = compare(*runs)
    assert result.equal, result.table()
    assert all(row.ratio < 0.5 for row in result.rows if row.kind != "parameter")
    worse = changed(runs[1], "forward", "layers.0.mlp", 100 * float(np.finfo(dtype).eps))
    worse.records["layers.0.mlp"].value = worse.records["layers.0.mlp"].value.astype(dtype)
    assert compare(runs[0], worse).first_forward == "layers.0.mlp"


def test_the_error_of_our_own_run_is_what_is_explained():
    t = traced()
    other = t.again("float32")
    result = compare(t, t)
    for name in ("layers.1.attention.heads", "logits"):
        d = np.abs(t[name].value - other[name].value)[families.PADDING[:, None, :, None] * np.ones((1, 4, 1, 4)) == 1] \
            if name.endswith("heads") else np.abs(t[name].value - other[name].value)[families.PADDING == 1]  # fmt: skip
        own = max(d.max(), np.abs(t[name].value).max() * 2.0**-23 * 0.5)
        assert 5 * own < result.row("forward", name).explained * 2.0**29 < 25 * own


PLACES = [("forward", "layers.1.attention.q"), ("backward", "layers.1.mlp.up"), ("parameter", "model.norm.weight")]


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_the_first_difference_and_its_size(kind, name):
    t = traced()
    result = compare(t, changed(t, kind, name))
    firsts = {"forward": result.first_forward, "backward": result.first_backward, "parameter": result.first_parameter}
    assert firsts == {**dict.fromkeys(firsts), kind: name} and not result.equal
    row = result.row(kind, name)
    assert np.isclose(row.difference, 1e-3) and row.ratio > 1e6 and row.differs
    assert result.explanation is None and "no known alternative explains it" in str(result)
    table = result.table()
    assert re.search(rf"^\* {re.escape(name)} ", table, re.MULTILINE) and table.count("\n* ") + table.startswith("*") == 1
    assert f"differs first at {name} by 0.001" in table


def test_the_order_of_the_backward_decides_what_is_first_there():
    t = traced()
    other = changed(t, "backward", "layers.0.mlp")
    other.records["layers.1.norm2"].gradient = t["layers.1.norm2"].gradient + 1
    assert compare(t, other).first_backward == "layers.1.norm2"


def test_frozen_layers_and_a_call_with_a_cache():
    """A frozen layer's gradients are zero; a call that consumed a cache cannot run again, so its bound is estimated."""
    model, (ids, targets) = families.tiny("llama"), families.batch()
    with tinyplm.trace() as t:
        model.loss(input_ids=ids, targets={"logits": targets}, frozen=1)[1](1.0)
    result = compare(t, t)
    assert result.equal and sum(row.kind == "parameter" for row in result.rows) == 21
    assert not any("layers.0" in row.name for row in result.rows if row.kind == "backward")
    with tinyplm.trace() as t:
        model(ids, cache=model.empty_cache(3), grad=False)
    assert t.again is None and compare(t, t).equal
    other = {name: record.value for name, record in t.items()}
    assert compare(t, {**other, "norm": other["norm"] + 1e-9}).first_forward == "norm"


def test_rows_of_padding_do_not_count():
    t = traced()
    wrong = t["layers.0"].value.copy()
    wrong[families.PADDING == 0] = np.nan
    assert compare(t, planted(t, "forward", "layers.0", wrong)).equal
    heads = t["layers.0.attention.heads"].value.copy()
    heads[1, :, 0] = 7
    assert compare(t, planted(t, "forward", "layers.0.attention.heads", heads)).equal
    heads[1, :, 2] = 7
    assert compare(t, planted(t, "forward", "layers.0.attention.heads", heads)).first_forward == "layers.0.attention.heads"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_trace_survives_a_file(tmp_path, family):
    t = traced(family)
    save_trace(t, tmp_path / "t.safetensors")
    back = read_trace(tmp_path / "t.safetensors")
    assert list(back) == list(t) and back.backward == t.backward and back.model is None
    for name, record in t.items():
        assert np.array_equal(back[name].value, record.value) and np.array_equal(back[name].gradient, record.gradient)
    assert back.inputs.keys() == t.inputs.keys() and parameter_gradients(back).keys() == parameter_gradients(t).keys()
    assert compare(t, back).equal and compare(back, t).equal and compare(tmp_path / "t.safetensors", t).equal
    assert not [path for path in tmp_path.iterdir() if path.name != "t.safetensors"]


def test_two_files_without_a_model_use_a_bound_from_counts(tmp_path):
    t = traced()
    save_trace(t, tmp_path / "a")
    save_trace(t.again("float32"), tmp_path / "b")
    result = compare(tmp_path / "a", str(tmp_path / "b"))
    assert result.equal and max(row.ratio for row in result.rows) > 1e-3
    save_trace(changed(t, "forward", "layers.1.norm1"), tmp_path / "c")
    result = compare(tmp_path / "a", tmp_path / "c")
    assert result.first_forward == "layers.1.norm1" and "not tried" in str(result)


def test_files_are_explained_with_a_model(tmp_path):
    t = traced()
    own = t["layers.0.norm1"].value
    save_trace(t, tmp_path / "a")
    save_trace(
        planted(t, "forward", "layers.0.norm1", own / t.model.params["body"]["layers"][0]["norm1"]["gamma"]), tmp_path / "b"
    )
    assert compare(tmp_path / "a", tmp_path / "b", model=t.model).explanation.name == "no gain"


def test_a_model_that_is_not_that_of_the_trace(tmp_path):
    """Other weights, and another width: that is said first, and no alternative is blamed."""
    t = traced()
    save_trace(t, tmp_path / "a")
    save_trace(changed(t, "forward", "layers.1.norm1"), tmp_path / "b")
    assert compare(tmp_path / "a", tmp_path / "b", model=t.model).unlike == ""
    layer = t.model.params["body"]["layers"][1]
    mlp = {**layer["mlp"], "Wup": 1.5 * layer["mlp"]["Wup"]}
    layers = [t.model.params["body"]["layers"][0], {**layer, "mlp": mlp}]
    other = t.model.with_params({**t.model.params, "body": {**t.model.params["body"], "layers": layers}})
    said = str(compare(tmp_path / "a", tmp_path / "b", model=other))
    assert said.startswith("the model does not reproduce trace A: layers.1.mlp.up differs by 0.")
    assert "very model" in said and "no known alternative" not in said
    wide = families.tiny("llama", hidden_size=12)
    assert "trace A: tokens has shape (3, 5, 12)" in str(compare(tmp_path / "a", tmp_path / "b", model=wide))
    small = families.tiny("llama", vocab_size=2)
    assert "trace A: it refuses the inputs, " in str(compare(tmp_path / "a", tmp_path / "b", model=small))


def test_a_table_of_what_differs_and_of_all():
    t = traced()
    short, long = (compare(t, changed(t, "forward", "layers.1.norm1")).table(all=all) for all in (False, True))
    assert "\n* layers.1.norm1 " in short and "layers.0.mlp " not in short and f"  and {len(t) - 1} that are equal" in short
    assert "\n  layers.0.mlp " in long and "that are equal" not in long and "Backward" in long and "Backward" not in short
    assert compare(t, t).table() == str(compare(t, t))


def test_plain_files_of_arrays(tmp_path):
    t = traced()
    arrays = {name: record.value for name, record in t.items()}
    np.savez(tmp_path / "b.npz", **arrays)
    write_safetensors(tmp_path / "b.safetensors", arrays)
    for path in ("b.npz", "b.safetensors"):
        result = compare(t, tmp_path / path, partial=True)
        assert result.equal and {row.kind for row in result.rows} == {"forward"}
    arrays["layers.1"] = arrays["layers.1"] * 2
    assert compare(t, arrays).first_forward == "layers.1"
    some = {name: a for name, a in arrays.items() if name.startswith("layers.0")}
    result = compare(t, some, partial=True)
    assert result.equal and "logits" in result.missing and "only one side has it" in str(result)
    with_gradients = {f"value:{n}": r.value for n, r in t.items()} | {f"gradient:{n}": -r.gradient for n, r in t.items()}
    np.savez(tmp_path / "g.npz", **with_gradients)
    assert compare(t, tmp_path / "g.npz").first_backward == "loss"


def test_bfloat16_by_name():
    """Arrays of float32 that hold bfloat16 numbers: rounding explains them only if it is said."""
    t = traced(dtype="float32")
    rounded = {name: bfloat16(record.value).astype("float32") for name, record in t.items()}
    assert not compare(t, rounded).equal and compare(t, rounded, dtype="bfloat16").equal


def test_ours_may_be_the_second():
    t = traced()
    result = compare({name: record.value for name, record in changed(t, "forward", "norm").items()}, t)
    assert result.first_forward == "norm" and result.explanation is None and result.tried


# --------------------------------------------------------------------------------------------------------- bad input


def arrays_but(**changes):
    return {n: r.value for n, r in traced().items()} | {name.replace("_", "."): a for name, a in changes.items()}


BAD = [
    (lambda t: (t, traced("gpt2")), {}, "compare: expected traces of the same model, got llama and gpt2"),
    (lambda t: (t, {"a": np.ones(3), "b": np.ones(2)}), {"partial": True}, "compare: expected traces of the same model, got"),
    (lambda t: (t, {n: a for n, a in arrays_but().items() if n != "norm"}), {},
     "compare: b: expected norm, as in a, got none (partial=True, or --partial, compares what both have)"),
    (lambda t: ({n: a for n, a in arrays_but().items() if n != "norm"}, t), {}, "compare: a: expected norm, as in b, got none"),
    (lambda t: (t, arrays_but(norm=np.ones((3, 5)))), {},
     "compare: b: norm: expected shape (3, 5, 6), as in a, got float64 array of shape (3, 5)"),
    (lambda t: (t, arrays_but(norm=np.ones((3, 5, 6), dtype=int))), {},
     "compare: b: norm: expected floating-point numbers, got int64 array of shape (3, 5, 6)"),
    (lambda t: (t, arrays_but(norm=np.full((3, 5, 6), np.nan))), {}, "compare: b: norm: expected numbers, got NaN"),
    (lambda t: (arrays_but(norm=np.full((3, 5, 6), np.nan)), t), {}, "compare: a: norm: expected numbers, got NaN"),
    (lambda t: (t, 3), {}, "compare: b: expected a trace, as tinyplm.trace() or trace_torch gives it, got 3"),
    (lambda t: (t, {"norm": [1.0]}), {}, "compare: b: expected a trace, a path, or a dict of NumPy arrays by name, got"),
    (lambda t: (t, Call()), {}, "compare: b: expected the trace of a call, got an empty one"),
    (lambda t: (Trace(()), t), {}, "trace: expected a call of a model in it, got none"),
    (lambda t: (t, t), {"dtype": "int8"}, "compare: dtype: expected None or one of float64, float32, float16, bfloat16"),
    (lambda t: (t, t), {"model": 3}, "compare: model: expected a model, as tinyplm.load or tinyplm.create gives it, got 3"),
    (lambda t: (t, t), {"partial": 1}, "compare: partial: expected True or False, got 1"),
    (lambda t: (t, t), {"names": [("(", "")]}, "trace_torch: names: expected None, {our path: their module} or pairs of"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "message"), BAD, ids=[row[2][:60] for row in BAD])
def test_bad_input(make, options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        compare(*make(traced()), **options)
    assert "\n" not in str(error.value)


def test_bad_files(tmp_path):
    t, path = traced(), tmp_path / "bad"
    with pytest.raises(ValueError, match="expected a file, got none"):
        compare(t, path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="bad: expected a complete safetensors file, got an error .*npz file"):
        compare(t, path)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="expected an npz of arrays, got Object arrays cannot be loaded"):
        read_trace(tmp_path / "bad.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "bad.npz").read_bytes()[:90])
    with pytest.raises(ValueError, match="cut.npz: expected an npz of arrays, got"):
        read_trace(tmp_path / "cut.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="none.npz: expected a file with arrays, got"):
        read_trace(tmp_path / "none.npz")
    for about in ('{"version": 2}', "[]", '{"version": 1, "model": 3}', "{"):
        write_safetensors(path, {"value:a": np.ones(2)}, metadata={"tinyplm.trace": about})
        with pytest.raises(ValueError, match="bad: tinyplm.trace.*: expected"):
            read_trace(path)
    with pytest.raises(ValueError, match="save_trace: trace: expected a trace"):
        save_trace({}, path)
    with pytest.raises(ValueError, match="expected the name of a file, got a folder"):
        save_trace(t, tmp_path)

"""Golden vectors as somebody else reads them: they equal the papers' formulas, right code is within every tolerance, and wrong
code is outside it in every dtype."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

import reference.layers.attention as ref_attention
import reference.layers.norm as ref_norm
import reference.layers.rope as ref_rope
import reference.layers.softmax as ref_softmax
import reference.losses.cross_entropy as ref_cross_entropy
from tests.laws import CASE, SMALLEST, relative_error, rounding
from tinyplm.checks import vectors
from tinyplm.checks.laws import DIFFERENCE
from tinyplm.checks.vectors.draws import DTYPES, rounded

REFERENCE = {
    "rmsnorm": ref_norm.rmsnorm,
    "layernorm": ref_norm.layernorm,
    "softmax": ref_softmax.softmax,
    "attention": ref_attention.attention,
    "rope": ref_rope.rope,
    "cross_entropy": ref_cross_entropy.cross_entropy,
}
STEP = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return vectors.write(tmp_path_factory.mktemp("vectors") / "golden", components=[*REFERENCE, "adamw", "tokenizer_wordpiece"])


@pytest.mark.parametrize("name", REFERENCE)
def test_outputs_equal_the_formula(folder, name):
    for dtype in DTYPES:
        for v in vectors.read(folder, name, dtype=dtype).values():
            args = [a if a is None else np.asarray(a, "float64") for a in v.arguments.values()]
            kwargs = {n: np.asarray(a, "float64") if getattr(a, "dtype", None) == "float16" else a for n, a in v.keywords.items()}
            assert relative_error(v.results["output"], REFERENCE[name](*args, **kwargs)) < rounding(*CASE) / SMALLEST


@pytest.mark.parametrize("name", REFERENCE)
def test_gradients_are_those_of_the_formula(folder, name):
    """<cotangent, f(x + h d) - f(x - h d)> / 2h = <gradient, d>, for the drawn cases."""
    rng = np.random.default_rng(4)
    for case, v in vectors.read(folder, name).items():
        if not case.startswith("drawn"):
            continue
        args = {n: a for n, a in v.arguments.items() if a is not None}
        d = {n: rng.normal(size=a.shape) for n, a in args.items()}
        ahead, behind = (
            REFERENCE[name](*(a + s * STEP * d[n] for n, a in args.items()), **v.keywords) for s in (1, -1)
        )  # fmt: skip
        numerical = np.sum(v.cotangents["output"] * (ahead - behind)) / (2 * STEP)
        terms = [v.results[f"gradient.{n}"] * d[n] for n in args]
        scale = sum(np.abs(t).sum() for t in terms) + 1e-3
        assert abs(numerical - sum(t.sum() for t in terms)) < 10 * DIFFERENCE * scale


# ------------------------------------------------------------------------------------------- right and wrong implementations


def work(v, *arrays):
    """Arrays in the dtype that another implementation would compute in."""
    return [np.asarray(a, "float64" if v.dtype == "float64" else "float32") for a in arrays]


def norm(v, *, centred=False, projected=True, eps=None):
    """RMSNorm, written once more."""
    x, gamma, dy = work(v, *v.arguments.values(), v.cotangents["output"])
    eps = v.keywords["eps"] if eps is None else eps
    x = x - x.mean(-1, keepdims=True) if centred else x
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    xhat, dxhat = x * r, gamma * dy
    dx = r * (dxhat - projected * xhat * (dxhat * xhat).mean(-1, keepdims=True))
    return {"output": gamma * xhat, "gradient.x": dx, "gradient.gamma": (dy * xhat).reshape(-1, len(gamma)).sum(0)}


def probabilities(v, *, inner=True, masked=True):
    x, dp = work(v, v.arguments["x"], v.cotangents["output"])
    if masked and v.keywords["mask"] is not None:
        x = np.where(v.keywords["mask"], x, -np.inf)
    e = np.exp(x - np.maximum(x.max(-1, keepdims=True), -1e4))
    p = e / np.maximum(e.sum(-1, keepdims=True), 1e-30)
    return {"output": p, "gradient.x": p * (dp - inner * (dp * p).sum(-1, keepdims=True))}


def flash(v, *, scaled=True, inner=True, grouped=True):
    """Attention one key at a time with a running maximum, as in FlashAttention: dA = P (dP - sum(do o))."""
    q, k, v_, do = work(v, *list(v.arguments.values())[:3], v.cotangents["output"])
    bias, mask, scale = v.arguments["bias"], v.keywords["mask"], v.keywords["scale"]
    scale = (q.shape[-1] ** -0.5 if scale is None else scale) if scaled else 1.0
    H, K = q.shape[1], k.shape[1]
    heads = np.arange(H) // (H // K) if grouped else np.arange(H) % K
    k, v_ = k[:, heads], v_[:, heads]
    A = scale * (q[:, :, :, None] * k[:, :, None]).sum(-1)
    A = A if bias is None else A + work(v, bias)[0]
    A = A if mask is None else np.where(mask, A, -np.inf).astype(A.dtype)
    top, total, o = np.full(A.shape[:3], -1e4, A.dtype), np.zeros(A.shape[:3], A.dtype), np.zeros(do.shape, A.dtype)
    for s in range(A.shape[-1]):
        new = np.maximum(top, A[..., s])
        old, p = np.exp(top - new), np.exp(A[..., s] - new)
        total, o, top = total * old + p, o * old[..., None] + p[..., None] * v_[:, :, None, s], new
    o = o / np.maximum(total, 1e-30)[..., None]
    P = np.exp(A - top[..., None]) / np.maximum(total, 1e-30)[..., None]
    dP = (do[:, :, :, None] * v_[:, :, None]).sum(-1)
    dA = P * (dP - inner * (do * o).sum(-1, keepdims=True))
    dk, dv = scale * np.einsum("bhts,bhte->bhse", dA, q), np.einsum("bhts,bhte->bhse", P, do)

    def shared(a):
        return np.stack([a[:, heads == j].sum(1) for j in range(K)], axis=1)

    found = {
        "output": o,
        "gradient.q": scale * np.einsum("bhts,bhse->bhte", dA, k),
        "gradient.k": shared(dk),
        "gradient.v": shared(dv),
    }
    if bias is not None:
        axes = tuple(i for i, n in enumerate((1,) * (4 - bias.ndim) + bias.shape) if n == 1)
        found["gradient.bias"] = dA.sum(axes, keepdims=True).reshape(bias.shape)
    return found


def cross_entropy(v, *, mean_of_all=False, shift=0, smoothed=True):
    logits, dloss = work(v, v.arguments["logits"], v.cotangents["output"])
    k = v.keywords
    V, e = logits.shape[-1], k["smoothing"] * smoothed
    counts = k["targets"] != -100
    t = (np.where(counts, k["targets"], 0) + shift) % V
    (w,) = work(v, counts * (1 if k["weights"] is None else k["weights"]))
    total = k["total"] if k["total"] is not None else (counts.size if mean_of_all else w.sum() or 1)
    log_p = logits - logits.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    q = (1 - e) * (np.arange(V) == t[..., None]) + e / V
    dlogits = dloss * (w / total)[..., None] * (np.exp(log_p) - q)
    return {"output": -(w[..., None] * q * log_p).sum() / total, "gradient.logits": dlogits}


def rotation(v, *, interleaved=False, backwards=1, offset=0):
    x, dy = work(v, v.arguments["x"], v.cotangents["output"])
    k = v.keywords
    positions, F = k["positions"] + offset, k["frequencies"].size
    angles = positions[..., None] * k["frequencies"]
    angles = angles[:, None] if positions.ndim == 2 else angles[None, None]
    a, b = (slice(0, 2 * F, 2), slice(1, 2 * F, 2)) if interleaved else (slice(0, F), slice(F, 2 * F))

    def turned(x, sign):
        y, (c, s) = x.copy(), work(v, k["magnitude"] * np.cos(angles), sign * k["magnitude"] * np.sin(angles))
        y[..., a], y[..., b] = x[..., a] * c - x[..., b] * s, x[..., b] * c + x[..., a] * s
        return y

    return {"output": turned(x, 1), "gradient.x": turned(dy, -backwards)}


# {name: (right, {mistake: the keywords of it})}
CODE = {
    "rmsnorm": (norm, {"mean subtracted": {"centred": True}, "no projection": {"projected": False}, "eps": {"eps": 1.0}}),
    "softmax": (probabilities, {"no inner product": {"inner": False}, "no mask": {"masked": False}}),
    "attention": (flash, {"no scale": {"scaled": False}, "no inner product": {"inner": False},
                          "heads modulo K": {"grouped": False}}),
    "cross_entropy": (cross_entropy, {"mean of all": {"mean_of_all": True}, "shifted": {"shift": 1},
                                      "no smoothing": {"smoothed": False}}),
    "rope": (rotation, {"interleaved": {"interleaved": True}, "backward turns on": {"backwards": -1},
                        "off by one": {"offset": 1}}),
}  # fmt: skip


def computed(folder, name, dtype, **mistake):
    """{CASE/ARRAY: values} of another implementation, rounded to the dtype."""
    f = CODE[name][0]
    return {
        f"{case}/{array}": a if dtype == "float64" else rounded(np.asarray(a, "float64"), dtype)
        for case, v in vectors.read(folder, name, dtype=dtype).items()
        for array, a in f(v, **mistake).items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODE)
def test_right_code_is_within_every_tolerance(folder, name, dtype):
    assert vectors.check_against(folder, name, computed(folder, name, dtype), dtype=dtype) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "mistake"), [(name, mistake) for name, (_, wrong) in CODE.items() for mistake in wrong])
def test_wrong_code_is_outside_in_every_dtype(folder, name, mistake, dtype):
    arrays = computed(folder, name, dtype, **CODE[name][1][mistake])
    found = vectors.check_against(folder, name, arrays, dtype=dtype)
    assert any(d.error > 2 * d.tolerance for d in found)
    assert str(found[0]).startswith(f"{name}: ") and f"/{dtype}/" in str(found[0])


@pytest.mark.parametrize("name", CODE)
def test_a_step_in_float16_is_outside_in_float32(folder, name):
    """Products of inputs rounded to float16 are not float32's."""
    half = {key: rounded(np.asarray(a, "float64"), "float16") for key, a in computed(folder, name, "float32").items()}
    assert vectors.check_against(folder, name, half, dtype="float32")


def test_arrays_are_checked(folder):
    y = vectors.read(folder, "rmsnorm")["drawn-1"].results["output"]
    assert vectors.check_against(folder, "rmsnorm", {"drawn-1/output": y}) == []
    nan = np.where(y == y.max(), np.nan, y)
    assert np.isnan(vectors.check_against(folder, "rmsnorm", {"drawn-1/output": nan})[0].error)
    for arrays, message in [
        ({"drawn-1/outptu": y}, "rmsnorm: arrays: expected names such as drawn-1/output, .*, got 'drawn-1/outptu'"),
        ({"drawn-1/output": y[0]}, r"rmsnorm: drawn-1/output: expected shape \(3, 3, 5\), got 'shape \(3, 5\)'"),
        ({"drawn-1/output": np.full(y.shape, "x")}, "rmsnorm: drawn-1/output: expected an array of numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            vectors.check_against(folder, "rmsnorm", arrays)
    with pytest.raises(ValueError, match="name: expected names such as rmsnorm, .*, got 'rsmnorm'"):
        vectors.read(folder, "rsmnorm")
    with pytest.raises(ValueError, match="rmsnorm: dtype: expected one of float64, float32, float16, bfloat16, got 'float8'"):
        vectors.read(folder, "rmsnorm", dtype="float8")
    with pytest.raises(ValueError, match="tokenizer_wordpiece: kind: expected an entry with arrays"):
        vectors.read(folder, "tokenizer_wordpiece")


# -------------------------------------------------------------------------------------------------- verifying, and corruption


def test_the_installed_version_holds(folder):
    assert vectors.verify(folder) == []


def test_a_family_holds(tmp_path):
    out = vectors.write(tmp_path / "v", families=["gpt2"], dtypes=["float64"])
    assert vectors.verify(out) == []
    cases = vectors.read(out, "gpt2")
    assert cases["padding"].keywords["config"]["model_type"] == "gpt2"
    v = cases["padding"]
    weights = {n.removeprefix("argument.weights.") for n in v.inputs if n.startswith("argument.weights.")}
    assert weights == {n.removeprefix("gradient.weights.") for n in v.results if n.startswith("gradient.weights.")}
    assert {"transformer.wte.weight", "transformer.h.1.attn.c_attn.weight"} <= weights
    assert {"intermediate.layers.1.attention.probabilities", "intermediate_gradient.layers.0.mlp.up"} <= v.results.keys()
    cache = cases["cache"].results
    error = abs(cache["output.logits"] - cache["output.cached_logits"]).max()
    assert error <= 2 * cases["cache"].record["arrays"]["output.logits"]["tolerance"]["float64"]


def changed(folder, tmp_path, name, change):
    """A copy of the folder in which `change` edits the bytes of an entry's file, with the new checksum unless it is silent."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    entry = manifest["entries"][name]
    data = change(bytearray((copy / entry["file"]).read_bytes()), entry)
    (copy / entry["file"]).write_bytes(data)
    entry["sha256"] = hashlib.sha256(data).hexdigest() if change.__name__ != "silent" else entry["sha256"]
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return copy


def place(data, tensor):
    """(start, stop) of a tensor's bytes, by the description in docs/vectors.md."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    return tuple(8 + size + n for n in header[tensor]["data_offsets"])


def test_a_changed_file_is_seen(folder, tmp_path):
    def silent(data, entry):
        data[-1] ^= 1
        return data

    with pytest.raises(ValueError, match="rmsnorm.safetensors: SHA-256: expected .*, got "):
        vectors.verify(changed(folder, tmp_path, "rmsnorm", silent))


def test_a_changed_number_is_seen(folder, tmp_path):
    def scaled(data, entry):
        start, stop = place(data, "drawn-2/float32/gradient.gamma")
        a = np.frombuffer(data[start:stop]) * (1 + 1e-12)
        data[start:stop] = a.tobytes()
        return data

    found = vectors.verify(changed(folder, tmp_path, "rmsnorm", scaled), names=["rmsnorm"])
    assert [(d.entry, d.case, d.dtype, d.array) for d in found] == [("rmsnorm", "drawn-2", "float32", "gradient.gamma")]


def test_an_array_without_explanation_is_seen(folder, tmp_path):
    def forgotten(data, entry):
        del entry["cases"][0]["arrays"]["output"]
        return data

    with pytest.raises(ValueError, match="drawn-1/bfloat16/output: expected it in file and manifest"):
        vectors.verify(changed(folder, tmp_path, "rmsnorm", forgotten))


def test_another_shape_is_seen(folder, tmp_path):
    def reshaped(data, entry):
        entry["cases"][0]["arrays"]["output"]["shape"] = [1]
        return data

    with pytest.raises(ValueError, match=r"drawn-1/\w+/output: expected .*, got "):
        vectors.verify(changed(folder, tmp_path, "rmsnorm", reshaped))


def test_other_ids_are_seen(folder, tmp_path):
    def renumbered(data, entry):
        return bytes(data).replace(b'"decoded": "a text."', b'"decoded": "a test."')

    found = vectors.verify(changed(folder, tmp_path, "tokenizer_wordpiece", renumbered), names=["tokenizer_wordpiece"])
    assert found == ["tokenizer_wordpiece: 'A text.': decoded"]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="manifest.json: expected a file, got none"):
        vectors.verify(tmp_path)
    (tmp_path / "manifest.json").write_text('{"what": "golden vectors of tinyplm", "format": 99, "entries": {}}')
    with pytest.raises(ValueError, match="manifest.json: format: expected 1, got 99"):
        vectors.verify(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- the page


def test_the_page_reads_and_checks_rmsnorm(folder, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "vectors.md").read_text(encoding="utf-8")
    shutil.copytree(folder, tmp_path / "golden")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # files are closed when they are no longer needed
        exec(compile(code, "docs/vectors.md", "exec"), {})
    cases = vectors.read(folder, "rmsnorm", dtype="float32")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*cases]
    v = cases["drawn-1"]
    for array, row in (("argument.x", v.arguments["x"][0, 0]), ("argument.gamma", v.arguments["gamma"]),
                       ("output", v.results["output"][0, 0])):  # fmt: skip
        shown = re.search(rf"^    {re.escape(array)} +(-?\d[-.\d ]+)$", page, re.MULTILINE)[1].split()
        assert np.allclose([float(x) for x in shown], row, rtol=0, atol=1e-7)
    roles = {record["role"] for record in v.record["arrays"].values()}
    assert all(f"`{role}`" in page for role in roles) and v.keywords == {"eps": 1e-06}

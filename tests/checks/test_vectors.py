"""Golden vectors: every name makes its cases, the files are explained by the manifest, and nothing is half-written."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from tinyplm.checks import COMPONENTS, vectors
from tinyplm.checks.vectors import folder as writing
from tinyplm.checks.vectors import measure
from tinyplm.checks.vectors.draws import EPSILON, SIGNIFICAND, Draws, cast, rounded
from tinyplm.checks.vectors.encoding import decoded, encoded
from tinyplm.checks.vectors.subjects import subject
from tinyplm.checks.vectors.tokenization import NAMES as TOKENIZERS
from tinyplm.families import FAMILIES

WITH_ARRAYS = sorted({*vectors.names(), *FAMILIES} - {*TOKENIZERS})
SOME = ["rmsnorm", "softmax", "rope", "grpo", "warmup_cosine", "masked_windows"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return vectors.write(tmp_path_factory.mktemp("vectors") / "golden", components=SOME)


def test_everything_has_a_name():
    names = vectors.names()
    assert {*COMPONENTS} < {*names} and names == sorted(set(names)) and not {*names} & {*FAMILIES}
    kinds = {subject(name).kind for name in WITH_ARRAYS}
    assert kinds == {"component", "kernel", "optimiser", "schedule", "sampler", "objective", "family"}
    assert len(TOKENIZERS) == 5


@pytest.mark.parametrize("name", WITH_ARRAYS)
def test_cases_are_named_repeatable_and_can_be_stored(name):
    made = subject(name).cases()
    again = subject(name).cases() if name not in FAMILIES or name == "gpt2" else made
    assert len({case.name for case in made}) == len(made) >= 1
    for a, b in zip(made, again, strict=True):
        assert a.name.replace("-", "").isalnum() and a.name == a.name.lower()
        assert a.note or a.name.startswith("drawn") or name not in COMPONENTS, "a difficult case says what is difficult"
        arrays, others = {}, {}
        spec = [encoded(a.args, "argument", arrays), encoded(a.kwargs, "keyword", arrays)]
        assert spec == [encoded(b.args, "argument", others), encoded(b.kwargs, "keyword", others)]
        assert json.loads(json.dumps(spec, allow_nan=False)) == spec
        assert arrays.keys() == others.keys() and all(arrays[n].tobytes() == others[n].tobytes() for n in arrays)
        decoded(spec, arrays)


# ------------------------------------------------------------------------------------------------------------ difficult cases

DIFFICULT = {
    ("softmax", "nothing-visible"): lambda v: not v.keywords["mask"][0].any() and not v.results["output"][0].any(),
    ("attention", "nothing-visible"): lambda v: not v.keywords["mask"][0, :, 0].any() and not v.results["output"][0, :, 0].any(),
    ("softmax", "large-logits"): lambda v: v.arguments["x"].max() > 710 and v.results["output"].max() == 1,
    ("attention", "odd-groups"): lambda v: v.arguments["q"].shape[1] == 9 and v.arguments["k"].shape[1] == 3,
    ("attention", "one-kv-head"): lambda v: v.arguments["q"].shape[1] == 3 and v.arguments["k"].shape[1] == 1,
    ("layernorm", "zero-rows"): lambda v: np.ptp(v.arguments["x"][-1, -1]) == 0 == np.abs(v.arguments["x"][0, 0]).max(),
    ("rmsnorm", "large-rows"): lambda v: (v.arguments["x"] ** 2).mean(-1).max() > 65504,
    ("l2_normalise", "zero-norm"): lambda v: not v.arguments["x"][0, 0].any() and not v.results["output"][0, 0].any(),
    ("rope", "far-positions"): lambda v: v.keywords["positions"].min() >= 100_000,
    ("rotary_attention", "far-positions"): lambda v: v.keywords["rotary"].keywords["positions"].min() >= 100_000,
    ("cross_entropy", "all-ignored"): lambda v: v.results["output"] == 0 and not v.results["gradient.logits"].any(),
    ("cross_entropy", "ignored"): lambda v: not v.results["gradient.logits"][v.keywords["targets"] == -100].any(),
    ("cross_entropy", "improbable"): lambda v: v.results["output"] > 40,
    ("cross_entropy", "smoothing"): lambda v: v.keywords["smoothing"] == 0.1,
    ("mean_squared_error", "all-ignored"): lambda v: np.isnan(v.keywords["targets"]).all() and v.results["output"] == 0,
    ("dpo", "zero-weights"): lambda v: not v.keywords["weights"].any() and v.results["output"] == 0,
    ("max_pooling", "ties"): lambda v: np.ptp(v.arguments["x"]) == 0 and np.count_nonzero(v.results["gradient.x"]) <= 2 * 7,
    ("relu", "kink"): lambda v: not v.results["gradient.x"][v.arguments["x"] == 0].any() and (v.arguments["x"] == 0).any(),
    ("attention", "one-token"): lambda v: v.arguments["q"].shape[0] == v.arguments["q"].shape[2] == 1,
    ("attention", "batch-of-one"): lambda v: v.arguments["q"].shape[0] == 1,
    ("token_distribution", "top-k-ties"): lambda v: ((v.results["output.probabilities"] > 0).sum(-1) == 3).all(),
    ("token_distribution", "greedy-ties"): lambda v: (v.results["output.ids"] == v.arguments["logits"].argmax(-1)).all(),
    ("adamw", "zero-gradients"): lambda v: not v.arguments["gradients"]["layers"][0]["W"].any(),
}  # fmt: skip


@pytest.mark.parametrize(("name", "case"), DIFFICULT, ids=str)
def test_a_difficult_case_is_what_it_says(name, case):
    s = subject(name)
    made = next(made for made in s.cases() if made.name == case)
    record, tensors, _ = measure.measured(s, made, ("float64",))
    loaded = vectors.reading._vectors(record, "float64", tensors)
    assert record["difficult"] and DIFFICULT[name, case](loaded)


# ------------------------------------------------------------------------------------------------------------- random numbers

# {entry: SHA-256 of the inputs and cotangents of all its cases in float64}: the same on every machine, also where the maker uses
# a logarithm (grpo) or a power (rope).  They change only when a case changes, and then FORMAT may have to.
INPUTS = {
    "rmsnorm": "70ae669dd04120e2755b1b6cda025969b8fb066780789915ac8f24ea6cb756fb",
    "grpo": "1ec012d6c43be48c53f0a76b822792436f7bf5f5c536874cf7aa5a99d0eb6f54",
    "rope": "70bc0de02a5b692eeed073517554de2dc882bb9c26d2e62b0a2e4c5f44b9b9b5",
    "masked_windows": "9353c7d2f70c405208bc0c25626b249efe39288f04102d4a0ccc2cd1a7230eea",
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_have_the_same_bits_on_every_machine(written, name):
    digest = hashlib.sha256()
    for case, v in vectors.read(written, name).items():
        for array in sorted(v.inputs):
            digest.update(f"{case}/{array}/{v.inputs[array].dtype.newbyteorder('<')}".encode() + v.inputs[array].tobytes())
    assert digest.hexdigest() == INPUTS[name]


def test_draws_are_exact():
    rng = Draws(0)
    assert rng.random() == 0.6369616873214543 == np.random.default_rng(0).random()
    z = rng.normal(size=40_000)
    assert np.array_equal(z * 2.0**32, np.rint(z * 2.0**32)) and abs(z).max() < 6
    assert abs(z.mean()) < 5 / 200 and abs(z.var() - 1) < 5 * 2**0.5 / 200  # five standard errors
    assert {*rng.integers(2, 5, 100).tolist()} == {2, 3, 4} and sorted(rng.permutation(7)) == list(range(7))
    assert 3 <= rng.uniform(3, 4) < 4 and rng.normal() != rng.normal() and rng.integers(3).__class__ is int
    assert {*rng.choice([0.5, 2.0], 50).tolist()} == {0.5, 2.0} and rng.integers(0, 2**64, 3, dtype=np.uint64).dtype == np.uint64


@pytest.mark.parametrize(("dtype", "bits"), [("float64", SIGNIFICAND), ("float32", 24), ("float16", 11), ("bfloat16", 8)])
def test_inputs_are_rounded_to_the_dtype(dtype, bits):
    a = Draws(3).normal(size=500)
    b = rounded(a, dtype)
    assert b.dtype == {"bfloat16": "float32"}.get(dtype, dtype) and rounded(b.astype("float64"), dtype).tobytes() == b.tobytes()
    off = abs(a - b) / 2.0 ** np.floor(np.log2(abs(a)))
    assert 2.0**-bits / 2 < off[abs(a) > 1e-3].max() <= 2.0**-bits
    assert EPSILON[dtype] == 2.0 ** (1 - (53 if dtype == "float64" else bits))
    assert cast({"a": [b, None]}, "float64")["a"][0].dtype == "float64"


# -------------------------------------------------------------------------------------------------------------------- folders


def test_each_array_is_explained_and_each_entry_complete(written):
    manifest = vectors.read_manifest(written)
    assert list(manifest["entries"]) == sorted(SOME) and list(manifest["dtypes"]) == list(vectors.DTYPES)
    found = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    assert found == {"manifest.json", *(entry["file"] for entry in manifest["entries"].values())}
    for entry in manifest["entries"].values():
        path = written / entry["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"] and path.stat().st_size == entry["bytes"]
        assert entry["equation"] and entry["implementation"].startswith("tinyplm.") and isinstance(entry["sources"], list)
        vectors.reading._tensors(written, entry)  # each tensor in the manifest, and each of the manifest in the file
        for case in entry["cases"]:
            assert case["difficult"] == bool(case["note"])
            for name, record in case["arrays"].items():
                result = record["role"] not in ("argument", "keyword", "cotangent")
                assert ("tolerance" in record) == result and record["role"] in manifest["about"]["roles"], name
                assert "any" in record["tensors"] or [*record["tensors"]] == entry["dtypes"]
                assert not result or record["tolerance"].keys() == record["tensors"].keys()
    entries = manifest["entries"]
    assert entries["rmsnorm"]["sources"] == ["Zhang & Sennrich 2019, eq. 4"]
    assert entries["rmsnorm"]["equation"] == "y = gamma * xhat, xhat = x * r, r = 1 / sqrt(mean(x^2) + eps)."
    assert entries["rmsnorm"]["implementation"] == "tinyplm.layers.norm.rmsnorm"


def test_the_same_bytes_twice_and_with_two_threads(written, tmp_path):
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    for threads in (1, 2):
        with limits(limits=threads):
            vectors.write(tmp_path / "again", components=SOME)  # the second time replacing the first
        for path in written.rglob("*"):
            assert path.is_dir() or path.read_bytes() == (tmp_path / "again" / path.relative_to(written)).read_bytes(), path.name


def test_some_dtypes_alone(tmp_path):
    out = vectors.write(tmp_path / "v", components=["gelu", "causal_windows"], dtypes=["bfloat16", "float32"])
    entries = vectors.read_manifest(out)["entries"]
    assert entries["gelu"]["dtypes"] == ["float32", "bfloat16"] and entries["causal_windows"]["dtypes"] == []
    v = vectors.read(out, "gelu", dtype="bfloat16")["drawn-1"]
    assert v.inputs["argument.x"].dtype == np.float32 and v.results["output"].dtype == np.float64
    assert vectors.verify(out) == []


BAD = {
    "name": (dict(components=["rmsnrom"]), r"components: expected names such as rmsnorm, got 'rmsnrom'"),
    "family": (dict(families=["lama"]), r"families: expected names such as llama, got 'lama'"),
    "dtype": (dict(components=["gelu"], dtypes=["float8"]), r"dtypes: expected names such as float64, .*, got 'float8'"),
    "a string": (dict(components="gelu"), r"components: expected a list of names, got 'gelu'"),
    "a number": (dict(components=[3]), r"components: expected names such as .*, got 3"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_are_refused_before_any_work(tmp_path, bad, monkeypatch):
    monkeypatch.setattr(writing, "subject", None)  # any work would fail
    arguments, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        vectors.write(tmp_path / "v", **arguments)
    assert not any(tmp_path.iterdir())


def test_only_empty_folders_and_folders_of_vectors_are_replaced(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    out = vectors.write(tmp_path / "empty", components=["relu"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "manifest.json").write_text('{"what": "something else"}')
    (tmp_path / "file").write_text("x")
    (out / "notes.txt").write_text("mine")
    for name in ("other", "json", "file", "empty"):
        before = sorted((p, p.read_bytes()) for p in (tmp_path / name).rglob("*") if p.is_file())
        with pytest.raises(ValueError, match=name):
            vectors.write(tmp_path / name, components=["relu"])
        assert before == sorted((p, p.read_bytes()) for p in (tmp_path / name).rglob("*") if p.is_file())
    (out / "notes.txt").unlink()
    vectors.write(out, components=["tanh"])
    assert [*vectors.read_manifest(out)["entries"]] == ["tanh"] and not (out / "components" / "relu.safetensors").exists()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(writing.measure, "measured", fail)
    for name in ("empty", "new"):
        with pytest.raises(OSError, match="disk full"):
            vectors.write(tmp_path / name, components=["relu"])
    assert [*vectors.read_manifest(out)["entries"]] == ["tanh"]
    assert {p.name for p in tmp_path.iterdir()} == {"empty", "other", "json", "file"}


def test_everything_within_fifty_megabytes(tmp_path, request):
    """All of it, written and verified: a minute, so with --long alone."""
    if not request.config.getoption("--long"):
        pytest.skip("with --long")
    out = vectors.write(tmp_path / "v")
    assert sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) < 50e6
    assert vectors.verify(out) == []

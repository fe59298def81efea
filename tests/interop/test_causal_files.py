# ruff: noqa: E402 - imports follow importorskip
"""Every causal family against transformers: the same files in both directions, whole and sharded; sizes and initial values.

What is specific to LLaMA is in test_llama_files.py.
"""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import (
    EAGER,
    FILE_DTYPES,
    as_in_files,
    assert_bit_equal,
    assert_same,
    exact_logits,
    float64,
    our_tensors,
    pair,
    peer,
    tensors_of,
    their_logits,
)
from tinyplm.core import flatten
from tinyplm.families import buffer_shapes_of
from tinyplm.hub import folders as hub
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import to_dict
from tinyplm.models.names import hub_shapes, names_of

ALL = list(FAMILIES)
IDS = np.random.default_rng(0).integers(0, 41, (2, 8))
# Values that careless conversion changes: -0, the smallest subnormals of float16 and bfloat16, ties of bfloat16.
DIFFICULT = [-0.0, 2.0**-24, -(2.0**-133), 1 + 2.0**-8, 1 + 3 * 2.0**-8]


def difficult(family, model):
    with torch.no_grad():
        for name in FAMILIES[family].spots:
            flat = model.get_parameter(name).view(-1)
            flat[:5] = flat[-5:] = torch.tensor(DIFFICULT, dtype=model.dtype)
    return model


def read(family, folder, kind="lm"):
    """DeepSeek's routers are float32 whatever the file's dtype, so float64 is put in its place."""
    exact = any(t.dtype == torch.float64 for path in folder.glob("*.safetensors") for t in load_file(path).values())
    with float64() if exact else contextlib.nullcontext():
        model = getattr(FAMILIES[family], kind).from_pretrained(folder, **EAGER).eval()
    return model.to(model.dtype)


def random_model(family, dtype="float64", **changes):
    """A model created by us with every parameter random, some of them difficult values."""
    config = FAMILIES[family].module.Config(**{**FAMILIES[family].tiny, **changes})
    ours = tinyplm.create(family, config, key=3, dtype=dtype)
    rng = np.random.default_rng(0)
    leaves = flatten(ours.params)
    for a in [*leaves.values(), *flatten(ours.buffers).values()]:
        a += rng.normal(0, 0.3, a.shape)
    for path in FAMILIES[family].paths:
        leaves[path].reshape(-1)[:5] = leaves[path].reshape(-1)[-5:] = DIFFICULT
    return ours


def assert_same_parameters(ours, others):
    ours, others = (flatten([model.params, model.buffers]) for model in (ours, others))
    assert ours.keys() == others.keys()
    for path, a in ours.items():
        assert a.dtype == others[path].dtype and a.tobytes() == others[path].tobytes(), path


# ------------------------------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", list(FILE_DTYPES))
@pytest.mark.parametrize("family", ALL)
def test_transformers_to_ours_to_transformers_is_bit_equal(tmp_path, family, name, tied):
    dtype = FILE_DTYPES[name]
    theirs = difficult(family, peer(family, tie_word_embeddings=tied)).to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = tinyplm.load(tmp_path / "theirs")
    assert set(ours.file_dtypes.values()) == {name}
    exact = torch.float32 if name == "BF16" else dtype  # NumPy has no bfloat16; float32 represents all its values
    assert_bit_equal(our_tensors(ours), {n: t.to(exact) for n, t in tensors_of(theirs).items()})
    tinyplm.save(ours, tmp_path / "ours")
    assert_bit_equal(load_file(tmp_path / "ours" / "model.safetensors"), load_file(tmp_path / "theirs" / "model.safetensors"))
    again = read(family, tmp_path / "ours")
    assert again.dtype == dtype
    assert_bit_equal(again.state_dict(), theirs.state_dict())
    assert np.array_equal(their_logits(again, IDS), their_logits(read(family, tmp_path / "theirs"), IDS))
    assert_same("logits", ours.astype("float64")(IDS)[0]["logits"], exact_logits(theirs, IDS))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", list(FILE_DTYPES))
@pytest.mark.parametrize("family", ALL)
def test_ours_to_transformers_to_ours_is_bit_equal(tmp_path, family, name, tied):
    """A model created by us, float32 or float64 in memory, rounded to the file's dtype exactly as torch rounds."""
    ours = random_model(family, "float64" if name == "F64" else "float32", tie_word_embeddings=tied)
    tinyplm.save(ours, tmp_path / "ours", dtype=name)
    theirs = read(family, tmp_path / "ours")
    assert theirs.dtype == FILE_DTYPES[name]
    assert_bit_equal({n: t.to(theirs.dtype) for n, t in our_tensors(ours).items()}, tensors_of(theirs))
    assert (theirs.lm_head.weight is theirs.get_parameter(FAMILIES[family].tables[0])) == tied
    again = tinyplm.load(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same("logits", again.astype("float64")(IDS)[0]["logits"], exact_logits(theirs, IDS))
    back = tinyplm.load(tmp_path / "theirs")
    assert set(back.file_dtypes.values()) == {name}
    assert_same_parameters(back, again)


@pytest.mark.parametrize("told", ["load", "save"])
@pytest.mark.parametrize("family", ALL)
def test_a_change_of_dtype_reaches_transformers(tmp_path, family, told):
    """transformers loads in the dtype that config.json names: if it stayed bfloat16, the float32 weights would be rounded."""
    peer(family).to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    ours = tinyplm.load(tmp_path / "theirs", dtype="float32" if told == "load" else None)
    tinyplm.save(ours, tmp_path / "ours", dtype="F32" if told == "save" else None)
    assert {t.dtype for t in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.float32}
    assert FAMILIES[family].lm.from_pretrained(tmp_path / "ours").dtype == torch.float32


# -------------------------------------------------------------------------------------------------------------- shards


def shards(folder):
    """The checked index and files: each tensor is in the file the index names, and there are no other files to load from."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    assert {name: {t for t, file in index["weight_map"].items() if file == name} for name in files} == {
        name: set(tensors) for name, tensors in files.items()}  # fmt: skip
    assert index["metadata"]["total_size"] == sum(t.nbytes for tensors in files.values() for t in tensors.values())
    return index, files


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("name", "limit"), [("F32", "20KB"), ("BF16", "9KB")])
@pytest.mark.parametrize("family", ALL)
def test_shards_of_transformers_to_ours_to_transformers(tmp_path, family, name, limit, tied):
    theirs = difficult(family, peer(family, tie_word_embeddings=tied)).to(FILE_DTYPES[name])
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=limit)
    their_index, their_files = shards(tmp_path / "theirs")
    assert len(their_files) >= 3
    ours = tinyplm.load(tmp_path / "theirs")
    exact = torch.float32 if name == "BF16" else FILE_DTYPES[name]
    assert_bit_equal(our_tensors(ours), {n: t.to(exact) for n, t in tensors_of(theirs).items()})
    tinyplm.save(ours, tmp_path / "ours", max_shard_size=limit)
    index, files = shards(tmp_path / "ours")
    assert len(files) >= 3
    assert all(sum(t.nbytes for t in tensors.values()) <= 1000 * int(limit[:-2]) for tensors in files.values())
    assert set(index["weight_map"]) == set(their_index["weight_map"])
    again = read(family, tmp_path / "ours")
    assert again.dtype == theirs.dtype
    assert_bit_equal(again.state_dict(), theirs.state_dict())
    assert_same("logits", ours.astype("float64")(IDS)[0]["logits"], exact_logits(again, IDS))


@pytest.mark.parametrize("limit", [1, 7_000, "9KB", 10**9])  # a tensor per shard; several; a matrix larger than a shard; one file
@pytest.mark.parametrize("family", ALL)
def test_shards_of_ours_of_any_size_load_in_transformers(tmp_path, family, limit):
    ours = random_model(family)
    tinyplm.save(ours, tmp_path, max_shard_size=limit)
    assert (tmp_path / "model.safetensors.index.json").exists() == (limit != 10**9)
    theirs = read(family, tmp_path)
    assert_bit_equal(tensors_of(theirs), our_tensors(ours))
    if limit == 1:
        assert len(shards(tmp_path)[1]) == len(tensors_of(theirs))
    assert_same("logits", tinyplm.load(tmp_path)(IDS)[0]["logits"], exact_logits(theirs, IDS))


@pytest.mark.parametrize("family", ALL)
def test_saving_over_shards_and_over_a_single_file(tmp_path, family):
    """Whatever the folder held before, transformers loads what was saved last, and nothing else remains."""
    for seed, limit in enumerate(["20KB", "1GB", "9KB", "20KB"]):
        ours = random_model(family)
        flatten(ours.params)[FAMILIES[family].paths[0]][...] = seed
        tinyplm.save(ours, tmp_path, max_shard_size=limit)
        assert_bit_equal(tensors_of(read(family, tmp_path)), our_tensors(ours))
        if limit == "1GB":
            assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
        else:
            shards(tmp_path)


# ------------------------------------------------------------------------------------------- bare bodies and old files


@pytest.mark.parametrize("size", ["1GB", "20KB"])
@pytest.mark.parametrize("family", ALL)
def test_the_bare_body_loads(tmp_path, family, size):
    """A file of the bare body has no prefix and no head, like the released GPT-2 file; transformers loads ours as one."""
    body = peer(family, "body", tie_word_embeddings=True)
    body.save_pretrained(tmp_path, max_shard_size=size)
    names = {name for path in tmp_path.glob("*.safetensors") for name in load_file(path)}
    assert FAMILIES[family].tables[0].removeprefix(FAMILIES[family].module.PREFIX) in names
    ours = tinyplm.load(tmp_path)
    with float64():
        expected = body(torch.from_numpy(IDS)).last_hidden_state
    assert_same("hidden", ours(IDS)[0]["hidden"], expected.detach().numpy())
    tinyplm.save(ours, tmp_path / "ours", max_shard_size=size)
    assert_bit_equal(read(family, tmp_path / "ours", "body").state_dict(), body.state_dict())


@pytest.mark.parametrize("family", ALL)
def test_the_bare_body_of_an_untied_model_lacks_its_head(tmp_path, family):
    peer(family, "body", tie_word_embeddings=False).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing tensors: lm_head.weight$"):
        tinyplm.load(tmp_path)


OLD_TENSORS = {
    "gpt2": {"transformer.h.{i}.attn.bias": torch.ones(1, 1, 12, 12).tril(),
             "transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4)},
    "openai-gpt": {"transformer.h.{i}.attn.bias": torch.ones(1, 1, 12, 12).tril()},
    **{name: {"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.rand(4)}  # deliberately wrong
       for name in ("llama", "mistral", "qwen2", "gemma", "phi3")},
}  # fmt: skip


@pytest.mark.parametrize("family", OLD_TENSORS)
def test_tensors_that_only_old_files_have_are_ignored(tmp_path, family):
    """transformers ignores them too: their values are computed."""
    theirs, _ = pair(family, tmp_path)
    old = {name.replace("{i}", str(i)): t.clone() for name, t in OLD_TENSORS[family].items() for i in range(2)}
    save_file({**load_file(tmp_path / "model.safetensors"), **old}, tmp_path / "model.safetensors", {"format": "pt"})
    ours = tinyplm.load(tmp_path)
    assert_bit_equal(our_tensors(ours), tensors_of(theirs))
    assert_bit_equal(read(family, tmp_path).state_dict(), theirs.state_dict())
    assert_same("logits", ours(IDS)[0]["logits"], exact_logits(theirs, IDS))
    tinyplm.save(ours, tmp_path / "new")
    assert_bit_equal(load_file(tmp_path / "new" / "model.safetensors"), tensors_of(theirs))


# -------------------------------------------------------------------------------------------------------------- config


def settings_in(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"tie_word_embeddings": False, "n_inner": 17, "activation_function": "relu", "summary_type": "mean"}),
        ("gpt2", {"eos_token_id": [3, 5], "bos_token_id": 2, "pad_token_id": 0, "resid_pdrop": 0,
                  "id2label": {0: "a", 1: "b", 2: "c"}}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-7, "initializer_range": 0.01}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "head_dim": 6, "hidden_act": "gelu_pytorch_tanh", "pretraining_tp": 2}),
        ("llama", {"eos_token_id": [3, 5], "bos_token_id": 2, "pad_token_id": 0, "attention_dropout": 0, "use_cache": False,
                   "id2label": {0: "a", 1: "b", 2: "c"}}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-7, "initializer_range": 0.01,
                   "num_key_value_heads": None}),
        *((family, {}) for family in ALL if family not in ("gpt2", "llama")),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"], "attn_logit_softcapping": None}),
        ("gemma3_text", {"layer_types": ["full_attention"] * 2, "final_logit_softcapping": 2.0}),
        ("qwen3", {"use_sliding_window": False, "attention_bias": True}),
        ("phi3", {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 9.0,
                                                              "partial_rotary_factor": 0.5}}),
        ("glm", {"rope_parameters": {"rope_type": "default", "rope_theta": 9.0, "partial_rotary_factor": 1.0}}),
        ("bloom", {"tie_word_embeddings": False, "id2label": {0: "a", 1: "b", 2: "c"}}),
        ("openai-gpt", {"afn": "relu", "resid_pdrop": 0.0}),
    ],
    ids=str,
)  # fmt: skip
def test_the_config_survives_both_ways(tmp_path, family, changes):
    """Every key that transformers wrote is kept unchanged, known to us or not; and transformers reads our file the same way."""
    _, ours = pair(family, tmp_path / "theirs", **changes)
    tinyplm.save(ours, tmp_path / "ours")
    assert settings_in(tmp_path / "ours") == settings_in(tmp_path / "theirs")
    read_back = [FAMILIES[family].config.from_pretrained(tmp_path / name).to_dict() for name in ("ours", "theirs")]
    assert read_back[0] == read_back[1]

    # A complete config of our own; test_llama_files.py covers what transformers fills in for null.
    Config = FAMILIES[family].module.Config
    config = Config(**{name: value for name, value in vars(ours.config).items() if name in Config.__dataclass_fields__
                       and name != "source"})  # fmt: skip
    tinyplm.save(tinyplm.create(family, config), tmp_path / "own")
    FAMILIES[family].lm.from_pretrained(tmp_path / "own").save_pretrained(tmp_path / "own again")
    written, again = settings_in(tmp_path / "own"), settings_in(tmp_path / "own again")
    again |= {name: again[alias] for alias, name in Config.ALIASES.items() if alias in again}
    assert {name: again[name] for name in written} == written
    assert tinyplm.load(tmp_path / "own again").config == config


# ------------------------------------------------------------------------------------------------------ sizes and init


@pytest.mark.parametrize(("family", "size"), [(family, size) for family in ALL for size in FAMILIES[family].module.SIZES])
def test_sizes_have_the_counts_of_transformers(family, size):
    """Also every tensor's shape, on torch's meta device, which allocates nothing."""
    module = FAMILIES[family].module
    config = module.SIZES[size]
    with torch.device("meta"):
        theirs = FAMILIES[family].lm(FAMILIES[family].config(**to_dict(config)))
    assert count_parameters(module.shapes(config)) == sum(p.numel() for p in theirs.parameters())
    # arrays that are views of a single number
    shapes = {**module.shapes(config), "buffers": buffer_shapes_of(module, config, "causal_lm")}
    leaves = {path: np.broadcast_to(np.float32(0), shape) for path, shape in flatten(shapes).items()}
    assert hub_shapes(leaves, names_of(module, config)) == {name: tuple(t.shape) for name, t in tensors_of(theirs).items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ALL)
def test_init_has_the_distribution_of_transformers(family, tied):
    """Constants are equal.  A standard deviation estimated from n numbers is off by 1 / sqrt(2n), so the ratio of two by
    1 / sqrt(n), and the difference of two means by std sqrt(2/n); five times that is allowed.
    """
    changes = {"vocab_size": 300, "initializer_range": 0.05, "tie_word_embeddings": tied}
    if family == "openai-gpt":  # transformers starts its Conv1D with 0.02, whatever the config says
        changes["initializer_range"] = 0.02
    changes |= {"n_layer": 3} if "n_layer" in FAMILIES[family].tiny else {"num_hidden_layers": 3}
    changes |= {"n_embd": 64} if "n_embd" in FAMILIES[family].tiny else {"hidden_size": 64}
    changes |= {"bloom": {"n_head": 4}, "gemma3_text": {"layer_types": ["sliding_attention"] * 3}}.get(family, {})
    settings = {**FAMILIES[family].tiny, **changes}
    torch.manual_seed(0)
    theirs = FAMILIES[family].lm(FAMILIES[family].config(**settings))
    model = tinyplm.create(family, FAMILIES[family].module.Config(**settings), key=1)
    ours = hub.gradients_by_hub_name(model, model.params)
    expected = as_in_files(theirs, {name: p.detach() for name, p in theirs.named_parameters()})
    expected = {name: p.numpy() for name, p in expected.items()}
    assert set(ours) == set(expected)
    for name, b in expected.items():
        a, n, std = ours[name], b.size, b.std()
        assert a.shape == b.shape and a.dtype == b.dtype
        if std == 0:
            assert np.array_equal(a, b), name
        else:
            assert abs(a.std() / std - 1) < 5 / n**0.5 and abs(a.mean() - b.mean()) < 5 * std * (2 / n) ** 0.5, name

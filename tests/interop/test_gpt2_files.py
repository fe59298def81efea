# ruff: noqa: E402 - imports follow importorskip
"""GPT-2 against transformers: the same files in both directions, sizes, initial values, and greedy text."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file

import tinyplm
from tests.interop.gpt2_pair import (
    TINY,
    assert_same,
    pair,
    peer,
)
from tinyplm import hub
from tinyplm.core import flatten
from tinyplm.generation.generate import generate
from tinyplm.generation.sampling import token_distribution
from tinyplm.models import gpt2
from tinyplm.models.config import to_dict
from tinyplm.weights import count_parameters

# ------------------------------------------------------------------------------------------------------------- files

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
FILE_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


def assert_bit_equal(a, b):
    """Two {name: torch tensor} with the same names, dtypes, shapes and bits (so -0 and 0 differ)."""
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        bits = BITS[a[name].element_size()]
        assert torch.equal(a[name].contiguous().view(bits), b[name].contiguous().view(bits)), name


def tensors_of(model):
    """What a file of this transformers model holds: a tied head only once."""
    tied = model.config.tie_word_embeddings
    return {name: t.detach() for name, t in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def difficult_values(model):
    """Values that careless conversion changes: -0, the smallest subnormals of float16 and bfloat16, ties of bfloat16."""
    values = [-0.0, 2.0**-24, -(2.0**-133), 1 + 2.0**-8, 1 + 3 * 2.0**-8]
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[:5] = torch.tensor(values, dtype=model.dtype)
        model.transformer.h[0].attn.c_attn.bias[-5:] = torch.tensor(values, dtype=model.dtype)
    return model


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.double().numpy()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", list(FILE_DTYPES))
def test_transformers_to_ours_to_transformers_is_bit_equal(tmp_path, name, tied):
    dtype = FILE_DTYPES[name]
    theirs = difficult_values(peer(tie_word_embeddings=tied)).to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = tinyplm.load(tmp_path / "theirs")
    assert set(ours.file_dtypes.values()) == {name}
    exact = torch.float32 if name == "BF16" else dtype  # NumPy has no bfloat16; float32 holds each of its values
    named = hub.gradients_by_hub_name(ours, ours.params)
    assert_bit_equal({n: torch.from_numpy(a.copy()) for n, a in named.items()},
                     {n: t.to(exact) for n, t in tensors_of(theirs).items()})  # fmt: skip
    tinyplm.save(ours, tmp_path / "ours")
    assert_bit_equal(load_file(tmp_path / "ours" / "model.safetensors"), load_file(tmp_path / "theirs" / "model.safetensors"))
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    assert again.dtype == dtype
    assert_bit_equal(again.state_dict(), theirs.state_dict())
    ids = np.random.default_rng(0).integers(0, 41, (2, 8))
    assert np.array_equal(logits_of(again.eval(), ids), logits_of(theirs, ids))
    assert_same("logits", ours.astype("float64")(ids)[0]["logits"], logits_of(theirs.double(), ids))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", list(FILE_DTYPES))
def test_ours_to_transformers_to_ours_is_bit_equal(tmp_path, name, tied):
    """A model of our own, float32 or float64 in memory, rounded to the file's dtype exactly as torch rounds."""
    memory = "float64" if name == "F64" else "float32"
    ours = tinyplm.create("gpt2", gpt2.Config(**TINY, tie_word_embeddings=tied), key=3, dtype=memory)
    rng = np.random.default_rng(0)
    for a in flatten(ours.params).values():
        a += rng.normal(0, 0.3, a.shape)
    bias = ours.params["body"]["layers"][0]["attention"]["bv"]
    bias[:5] = [-0.0, 2.0**-24, -(2.0**-133), 1 + 2.0**-8, 1 + 3 * 2.0**-8]
    tinyplm.save(ours, tmp_path / "ours", dtype=name)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert theirs.dtype == FILE_DTYPES[name]
    named = hub.gradients_by_hub_name(ours, ours.params)
    assert_bit_equal({n: torch.from_numpy(a.copy()).to(theirs.dtype) for n, a in named.items()}, tensors_of(theirs))
    assert (theirs.lm_head.weight is theirs.transformer.wte.weight) == tied
    again = tinyplm.load(tmp_path / "ours")
    ids = rng.integers(0, 41, (2, 8))
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same("logits", again.astype("float64")(ids)[0]["logits"], logits_of(theirs.double(), ids))
    back = tinyplm.load(tmp_path / "theirs")
    assert set(back.file_dtypes.values()) == {name} and back.config == ours.config
    for path, a in flatten(back.params).items():
        assert a.tobytes() == flatten(again.params)[path].tobytes(), path


def settings_in(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "n_inner": 17, "activation_function": "relu", "summary_type": "mean"},
        {"eos_token_id": [3, 5], "bos_token_id": 2, "pad_token_id": 0, "resid_pdrop": 0, "id2label": {0: "a", 1: "b", 2: "c"}},
        {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-7, "initializer_range": 0.01},
    ],
    ids=str,
)
def test_the_config_survives_both_ways(tmp_path, changes):
    """Every key that transformers wrote is still there and equal, known to us or not; and what we write it reads the same."""
    _, ours = pair(tmp_path / "theirs", **changes)
    tinyplm.save(ours, tmp_path / "ours")
    assert settings_in(tmp_path / "ours") == settings_in(tmp_path / "theirs")
    assert transformers.GPT2Config.from_pretrained(tmp_path / "ours").to_dict() == transformers.GPT2Config.from_pretrained(
        tmp_path / "theirs").to_dict()  # fmt: skip

    fields = {name: value for name, value in changes.items() if name in {f.name for f in dataclasses.fields(gpt2.Config)}}
    own = tinyplm.create("gpt2", gpt2.Config(**{**TINY, **fields}))
    tinyplm.save(own, tmp_path / "own")
    read = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "own")
    read.save_pretrained(tmp_path / "own again")
    written, again = settings_in(tmp_path / "own"), settings_in(tmp_path / "own again")
    assert {name: again[name] for name in written} == written
    assert tinyplm.load(tmp_path / "own again").config == own.config


@pytest.mark.parametrize("told", ["load", "save"])
def test_a_change_of_dtype_reaches_transformers(tmp_path, told):
    """transformers loads in the dtype that config.json names: left at bfloat16, it would round the float32 weights again."""
    peer().to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    ours = tinyplm.load(tmp_path / "theirs", dtype="float32" if told == "load" else None)
    tinyplm.save(ours, tmp_path / "ours", dtype="F32" if told == "save" else None)
    assert load_file(tmp_path / "ours" / "model.safetensors")["transformer.wte.weight"].dtype == torch.float32
    assert transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").dtype == torch.float32


def test_the_bare_body_loads(tmp_path):
    """GPT2Model writes no "transformer." prefix and no head, as the released file does."""
    body = peer("GPT2Model")
    body.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    ours = tinyplm.load(tmp_path)
    ids = np.random.default_rng(0).integers(0, 41, (2, 6))
    assert_same("hidden", ours(ids)[0]["hidden"], body(torch.from_numpy(ids)).last_hidden_state.detach().numpy())
    tinyplm.save(ours, tmp_path / "ours")
    again = transformers.GPT2Model.from_pretrained(tmp_path / "ours")
    assert_bit_equal(again.state_dict(), body.state_dict())


def test_the_bare_body_of_an_untied_model_lacks_its_head(tmp_path):
    peer("GPT2Model", tie_word_embeddings=False).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing tensors: lm_head.weight$"):
        tinyplm.load(tmp_path)


# -------------------------------------------------------------------------------------------------- sizes and init


@pytest.mark.parametrize("size", list(gpt2.SIZES))
def test_sizes_have_the_counts_of_transformers(size):
    """Every tensor's shape as well, on torch's meta device, which allocates nothing."""
    config = gpt2.SIZES[size]
    with torch.device("meta"):
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**to_dict(config)))
    assert count_parameters(gpt2.shapes(config)) == sum(p.numel() for p in theirs.parameters())


def test_the_defaults_are_those_of_transformers():
    ours, theirs = to_dict(gpt2.Config()), transformers.GPT2Config().to_dict()
    assert {name: theirs[name] for name in ours} == ours


@pytest.mark.parametrize("tied", [True, False])
def test_init_has_the_distribution_of_transformers(tied):
    """Constants are equal.  A standard deviation from n numbers errs by 1 / sqrt(2n), so the ratio of two by 1 / sqrt(n), and
    the difference of two means by std sqrt(2/n): five times that is allowed.
    """
    changes = {"n_embd": 64, "n_layer": 3, "vocab_size": 300, "initializer_range": 0.05, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**TINY, **changes}))
    model = tinyplm.create("gpt2", gpt2.Config(**{**TINY, **changes}), key=1)
    ours = hub.gradients_by_hub_name(model, model.params)
    expected = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
    assert set(ours) == set(expected)
    for name, b in expected.items():
        a, n, std = ours[name], b.size, b.std()
        assert a.shape == b.shape and a.dtype == b.dtype
        if std == 0:
            assert np.array_equal(a, b), name
        else:
            assert abs(a.std() / std - 1) < 5 / n**0.5 and abs(a.mean() - b.mean()) < 5 * std * (2 / n) ** 0.5, name


# ------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize("tied", [True, False])
def test_greedy_generation_gives_the_ids_of_transformers(tmp_path, tied):
    """transformers decodes with its key/value cache, we with full passes; the prompt and its continuation fill the context."""
    theirs, ours = pair(tmp_path, n_positions=40, tie_word_embeddings=tied)
    seen = set()
    for seed in range(4):
        prompt = np.random.default_rng(seed).integers(0, 41, 4 + seed)
        n = 40 - len(prompt)
        expected = theirs.generate(torch.from_numpy(prompt)[None], attention_mask=torch.ones(1, len(prompt)), do_sample=False,
                                   max_new_tokens=n, pad_token_id=0)[0, len(prompt) :].tolist()  # fmt: skip
        assert generate(ours, prompt, temperature=0, max_new_tokens=n) == [expected]
        seen |= set(expected)
    assert len(seen) >= 8, "a text of a few tokens only would prove little"


def test_greedy_generation_stops_where_transformers_stops(tmp_path):
    """Our text ends before the stop token, theirs with it."""
    theirs, ours = pair(tmp_path, n_positions=40)
    prompt = [1, 2, 3]
    free = generate(ours, prompt, temperature=0, max_new_tokens=20)[0]
    stop = next(token for i, token in enumerate(free) if i >= 4 and token not in free[:i])
    expected = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, 3), do_sample=False, max_new_tokens=20,
                               eos_token_id=stop, pad_token_id=0)[0, 3:].tolist()  # fmt: skip
    ours_stopped = generate(ours, prompt, temperature=0, max_new_tokens=20, stop_id=stop)[0]
    assert ours_stopped + [stop] == expected and len(expected) < 20


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0.7, None, None), (1.0, 5, None), (1.0, None, 0.8), (1.3, 9, 0.6),
                                                             (0.5, 1, None), (1.0, None, 0.01)])  # fmt: skip
def test_the_sampling_distribution_is_that_of_transformers(temperature, top_k, top_p):
    """transformers' warpers in its order: temperature, then top-k, then top-p of what is left."""
    logits = np.random.default_rng(0).normal(0, 2, (6, 41))
    warpers = [transformers.TemperatureLogitsWarper(temperature)]
    warpers += [] if top_k is None else [transformers.TopKLogitsWarper(top_k)]
    warpers += [] if top_p is None else [transformers.TopPLogitsWarper(top_p)]
    scores = transformers.LogitsProcessorList(warpers)(torch.zeros(6, 1, dtype=torch.long), torch.from_numpy(logits))
    expected = scores.softmax(-1).numpy()
    ours = token_distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert np.array_equal(ours > 0, expected > 0)
    assert_same("distribution", ours, expected, 1e-12)

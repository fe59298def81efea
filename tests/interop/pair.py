# ruff: noqa: E402 - imports follow importorskip
"""A tiny transformers model with random weights, the same model loaded by us, and their comparison, for every family.

Comparisons run in float64 with a tolerance of 1e-9 (largest difference over largest value).  Reordering the same float64 sums,
some thousand terms through two layers, changes results by 1e-13 or less.  The smallest real mistake worth finding, one float32
step somewhere or a slightly different epsilon, shows as 1e-8 or more.  1e-9 lies between, with margin on both sides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


import tinyplm
from tests.laws import relative_error
from tinyplm.families import (
    bloom,
    gemma,
    gemma2,
    gemma3_text,
    glm,
    glm4,
    gpt2,
    llama,
    mistral,
    olmo2,
    openai_gpt,
    phi3,
    qwen2,
    qwen3,
)
from tinyplm.hub import folders as hub

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-9

# ------------------------------------------------------------------------------------------------------------ families


@dataclasses.dataclass(frozen=True)
class Family:
    """What the tests need to know about a causal family: our module, transformers' classes, and a tiny config by hub names."""

    module: ModuleType
    config: type  # transformers' classes
    lm: type
    body: type
    tiny: dict[str, Any]
    context: str  # the config's name for the longest sequence
    odd: dict[str, Any]  # changes that make width 30 with 3 heads
    tables: tuple[str, ...]  # hub names of the embedding tables, the token table first
    spots: tuple[str, ...]  # hub names of parameters that get difficult values: a vector, a matrix that we transpose ...
    paths: tuple[str, ...]  # and their paths, or paths of parts of them, in our tree


_LLAMA_SHAPED = {
    "vocab_size": 41, "max_position_embeddings": 12, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "attention_dropout": 0.1, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip

# Dropout rates stay at 0.1: eval() on one side and key=None on the other must switch it off.
FAMILIES = {
    "gpt2": Family(
        gpt2, transformers.GPT2Config, transformers.GPT2LMHeadModel, transformers.GPT2Model,
        {"vocab_size": 41, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": None,
         "eos_token_id": None},
        context="n_positions",
        odd={"n_embd": 30, "n_head": 3},
        tables=("transformer.wte.weight", "transformer.wpe.weight"),
        spots=("transformer.h.1.mlp.c_fc.bias", "transformer.h.0.attn.c_attn.bias"),
        paths=("body.layers.1.mlp.b1", "body.layers.0.attention.bv"),
    ),
    "llama": Family(
        llama, transformers.LlamaConfig, transformers.LlamaForCausalLM, transformers.LlamaModel,
        _LLAMA_SHAPED,
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.mlp.Wdown"),
    ),
    # The windows are shorter than the length-7 sequences of `compare`.
    "mistral": Family(
        mistral, transformers.MistralConfig, transformers.MistralForCausalLM, transformers.MistralModel,
        {**_LLAMA_SHAPED, "sliding_window": 3},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.self_attn.o_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.attention.Wo"),
    ),
    "qwen2": Family(
        qwen2, transformers.Qwen2Config, transformers.Qwen2ForCausalLM, transformers.Qwen2Model,
        {**_LLAMA_SHAPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.bq", "body.layers.1.mlp.Wdown"),
    ),
    "qwen3": Family(
        qwen3, transformers.Qwen3Config, transformers.Qwen3ForCausalLM, transformers.Qwen3Model,
        {**_LLAMA_SHAPED, "head_dim": 10, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.q_norm", "body.layers.1.mlp.Wdown"),
    ),
    "gemma": Family(
        gemma, transformers.GemmaConfig, transformers.GemmaForCausalLM, transformers.GemmaModel,
        {**_LLAMA_SHAPED, "head_dim": 10, "pad_token_id": None},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.mlp.Wdown"),
    ),
    "gemma2": Family(
        gemma2, transformers.Gemma2Config, transformers.Gemma2ForCausalLM, transformers.Gemma2Model,
        {**_LLAMA_SHAPED, "head_dim": 10, "pad_token_id": None, "sliding_window": 3, "query_pre_attn_scalar": 7,
         "attn_logit_softcapping": 1.5, "final_logit_softcapping": 1.0},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.pre_feedforward_layernorm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.norm2.before.gamma", "body.layers.1.mlp.Wdown"),
    ),
    "gemma3_text": Family(
        gemma3_text, transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, transformers.Gemma3TextModel,
        {**_LLAMA_SHAPED, "head_dim": 10, "pad_token_id": None, "sliding_window": 3, "query_pre_attn_scalar": 7,
         "layer_types": ["sliding_attention", "full_attention"],
         "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 10.0}}},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.k_norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.k_norm", "body.layers.1.mlp.Wdown"),
    ),
    "olmo2": Family(
        olmo2, transformers.Olmo2Config, transformers.Olmo2ForCausalLM, transformers.Olmo2Model,
        {**_LLAMA_SHAPED, "pad_token_id": None},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.k_norm.weight", "model.layers.1.mlp.down_proj.weight"),
        paths=("body.layers.0.attention.k_norm", "body.layers.1.mlp.Wdown"),
    ),
    "phi3": Family(
        phi3, transformers.Phi3Config, transformers.Phi3ForCausalLM, transformers.Phi3Model,
        {**_LLAMA_SHAPED, "pad_token_id": None, "sliding_window": 3, "resid_pdrop": 0.1, "embd_pdrop": 0.1},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.norm.weight", "model.layers.1.self_attn.qkv_proj.weight"),
        paths=("body.norm.gamma", "body.layers.1.attention.Wv"),
    ),
    "glm": Family(
        glm, transformers.GlmConfig, transformers.GlmForCausalLM, transformers.GlmModel,
        {**_LLAMA_SHAPED, "pad_token_id": None, "head_dim": 8},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.gate_up_proj.weight"),
        paths=("body.layers.0.attention.bq", "body.layers.1.mlp.Wup"),
    ),
    "glm4": Family(
        glm4, transformers.Glm4Config, transformers.Glm4ForCausalLM, transformers.Glm4Model,
        {**_LLAMA_SHAPED, "pad_token_id": None, "head_dim": 8},
        context="max_position_embeddings",
        odd={"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1},
        tables=("model.embed_tokens.weight",),
        spots=("model.layers.0.post_self_attn_layernorm.weight", "model.layers.1.mlp.gate_up_proj.weight"),
        paths=("body.layers.0.norm1.after.gamma", "body.layers.1.mlp.Wup"),
    ),
    # Three heads: ALiBi's slopes for a number that is no power of two.
    "bloom": Family(
        bloom, transformers.BloomConfig, transformers.BloomForCausalLM, transformers.BloomModel,
        {"vocab_size": 41, "hidden_size": 30, "n_layer": 2, "n_head": 3, "hidden_dropout": 0.1, "attention_dropout": 0.1,
         "bos_token_id": None, "eos_token_id": None},
        context="seq_length",
        odd={"hidden_size": 20, "n_head": 5},
        tables=("transformer.word_embeddings.weight",),
        spots=("transformer.h.1.mlp.dense_h_to_4h.bias", "transformer.h.0.self_attention.query_key_value.weight"),
        paths=("body.layers.1.mlp.b1", "body.layers.0.attention.Wk"),
    ),
    "openai-gpt": Family(
        openai_gpt, transformers.OpenAIGPTConfig, transformers.OpenAIGPTLMHeadModel, transformers.OpenAIGPTModel,
        {"vocab_size": 41, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4},
        context="n_positions",
        odd={"n_embd": 30, "n_head": 3},
        tables=("transformer.tokens_embed.weight", "transformer.positions_embed.weight"),
        spots=("transformer.h.1.mlp.c_fc.bias", "transformer.h.0.attn.c_attn.bias"),
        paths=("body.layers.1.mlp.b1", "body.layers.0.attention.bv"),
    ),
}  # fmt: skip


def _rope(kind, positions=12, width=16, **settings):
    """A LLaMA config with heads wide enough (8 frequencies) that scaling treats some frequencies differently from others."""
    return {"head_dim": width, "max_position_embeddings": positions,
            "rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **settings}}  # fmt: skip


_STRETCH = {"factor": 4.0, "original_max_position_embeddings": 64}
_LISTS = {"original_max_position_embeddings": 12, "short_factor": [1, 1, 1, 1.1, 1.3, 1.5, 1.5, 2], "long_factor": [*range(1, 9)]}
# Each has room for 48 tokens.  With base 100, the frequencies make between 10 and 0.2 turns in 64 positions.  beta_fast ..
# beta_slow and low_freq_factor .. high_freq_factor lie in that range, so several frequencies fall on the ramp between them.
ROPES = {
    "default": _rope("default", 48),
    "another base": _rope("default", 48, rope_theta=50.0),
    "linear": _rope("linear", factor=4.0),
    "dynamic": _rope("dynamic", factor=4.0),
    "dynamic, 1.5": _rope("dynamic", 36, factor=1.5),
    "yarn": _rope("yarn", 256, **_STRETCH, beta_fast=8.0, beta_slow=0.5),
    "yarn, the default betas": _rope("yarn", 256, **_STRETCH),
    "yarn, attention_factor": _rope("yarn", 256, **_STRETCH, attention_factor=0.7),
    "yarn, mscale": _rope("yarn", 256, **_STRETCH, mscale=0.707, mscale_all_dim=1.3),
    "yarn, mscale alone": _rope("yarn", 256, **_STRETCH, mscale=0.707),
    "yarn, not truncated": _rope("yarn", 256, **_STRETCH, truncate=False, beta_fast=6.0, beta_slow=0.7),
    "yarn, one place": _rope("yarn", 256, **_STRETCH, beta_fast=20.0, beta_slow=12.0),  # low == high == 0
    "yarn, all fast": _rope("yarn", 256, **_STRETCH, beta_fast=40.0, beta_slow=20.0),  # high < 0
    "yarn, none fast": _rope("yarn", 256, **_STRETCH, beta_fast=0.05, beta_slow=0.04),  # low > 7
    "yarn within its context": _rope("yarn", factor=4.0),  # original_max_position_embeddings = max_position_embeddings
    "longrope": _rope("longrope", 48, **_LISTS),  # other factors beyond 12 positions
    "longrope, factor": _rope("longrope", 48, **_LISTS, factor=3.0),
    "longrope, attention_factor": _rope("longrope", 48, **_LISTS, attention_factor=0.7),
    "llama3": _rope("llama3", 256, **_STRETCH, low_freq_factor=1.0, high_freq_factor=4.0),
    "llama3, other factors": _rope("llama3", 256, **_STRETCH, low_freq_factor=0.3, high_freq_factor=9.0),
}


# -------------------------------------------------------------------------------------------------------------- models


@contextlib.contextmanager
def float64():
    """Gives transformers float64 where it asks for float32: in RMSNorm, softmax, RoPE's tables, its loss and generate.

    RoPE's frequencies are computed when a model is built, so the model must be both built and run inside.  The default dtype is
    changed as well: it is the dtype of a float times an integer tensor, as in dynamic RoPE scaling.
    BLOOM's own GELU has constants of eight digits, which are off by more than the tolerance: torch's takes its place.
    """
    gelu = transformers.models.bloom.modeling_bloom.BloomGelu
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype(), gelu.forward
    gelu.forward = lambda self, x: torch.nn.functional.gelu(x, approximate="tanh")
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])
        gelu.forward = saved[4]


def their_config(family, **changes):
    return FAMILIES[family].config(**{**FAMILIES[family].tiny, **changes}, attn_implementation="eager")


def peer(family, kind="lm", seed=0, **changes):
    """transformers' tiny model ("lm", or its bare "body") in float64 with every parameter random, including biases and norms."""
    torch.manual_seed(seed)
    with float64():
        model = getattr(FAMILIES[family], kind)(their_config(family, **changes)).double().eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.from_numpy(rng.normal(0, 0.3, p.shape)))
    return model


def pair(family, folder, **changes):
    """transformers' model, and ours loaded from the folder it writes."""
    theirs = peer(family, **changes)
    theirs.save_pretrained(folder)
    ours = tinyplm.load(folder)
    assert ours.dtype == np.float64
    return theirs, ours


def in_float64(theirs):
    """The same model rebuilt in float64 with its own parameters (float32 and narrower values are exact in float64)."""
    with float64():
        model = type(theirs)(theirs.config).double().eval()
    model.load_state_dict({name: t.double() for name, t in theirs.state_dict().items()})
    return model


def their_logits(theirs, ids):
    """Logits of a model of any dtype, as it computes them."""
    with torch.no_grad():
        return theirs(torch.from_numpy(ids)).logits.double().numpy()


def exact_logits(theirs, ids):
    """Logits computed in float64 throughout, whatever the model's dtype."""
    with float64():
        return their_logits(in_float64(theirs), ids)


# ----------------------------------------------------------------------------------------------------------- comparing


def padding(side, B, T):
    """(attention_mask, position_ids): sample b has b padded tokens (at most T - 1); left-padded, positions count real tokens."""
    if side == "none":
        return None, None
    padded = np.minimum(np.arange(B), T - 1)[:, None]
    mask = (np.arange(T) < T - padded) if side == "right" else (np.arange(T) >= padded)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0) if side == "left" else None
    return mask.astype(np.int64), positions


def as_torch(**arrays):
    return {name: torch.from_numpy(a) for name, a in arrays.items() if a is not None}


def for_them(theirs, **arrays):
    """As torch, without position_ids for a model that has none: BLOOM's."""
    known = inspect.signature(theirs.forward).parameters
    return {name: a for name, a in as_torch(**arrays).items() if name != "position_ids" or name in known}


def named_gradients(model):
    """{hub name: gradient} of transformers' parameters, which are then cleared; a shared tensor appears once.

    Zeros where torch has None: a parameter that did not affect the outputs.
    """
    out = {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy().copy() for name, p in model.named_parameters()}
    model.zero_grad()
    return out


def assert_same(name, ours, theirs, tolerance=TOLERANCE):
    assert np.isfinite(np.asarray(theirs)).all()
    error = relative_error(ours, theirs)
    assert error < tolerance, f"{name} differs by {error:.1e}"


def assert_same_gradients(ours, theirs):
    assert set(ours) == set(theirs)
    for name in theirs:
        assert np.any(theirs[name]), f"{name}: a zero gradient proves nothing"
        assert_same(f"the gradient of {name}", ours[name], theirs[name])


def sees_something(mask, ours):
    """(B, T): the positions that can attend to a real token in every layer."""
    T = mask.shape[1]
    window = ours.family.pieces(ours.config).window
    shortest = min(window(i) or T for i in range(len(ours.params["body"]["layers"])))
    t, s = np.arange(T)[:, None], np.arange(T)
    return (mask[:, None] & (s <= t) & (s > t - shortest)).any(axis=2)


def compare(theirs, ours, *, B=3, T=7, side="none", positions=None, seed=1):
    """Logits, hidden states, the loss, and the gradients of outputs and loss with respect to every parameter.

    Only rows that can attend to something are compared: for the others we return zeros and transformers an average over
    everything.  Such rows cannot leak: nothing attends to them (the softmax weight of a masked key is exactly 0, in value and
    gradient), and their cotangent is set to zero.
    positions (B, T) come with a mask of ones: without one transformers would read jumps as the starts of packed samples.
    """
    rng = np.random.default_rng(seed)
    V = ours.config.vocab_size
    ids = rng.integers(0, V, (B, T))
    mask, positions = padding(side, B, T) if positions is None else (np.ones((B, T), dtype=np.int64), positions)
    rows = np.ones((B, T), dtype=bool) if mask is None else sees_something(mask, ours)
    kwargs = {"attention_mask": mask, "position_ids": positions}
    with float64():
        output = theirs(torch.from_numpy(ids), **for_them(theirs, **kwargs), output_hidden_states=True)
    outputs, backward = ours(ids, **kwargs)
    logits = output.logits
    assert_same("logits", outputs["logits"][rows], logits.detach().numpy()[rows])
    assert_same("hidden", outputs["hidden"][rows], output.hidden_states[-1].detach().numpy()[rows])

    cotangent = rng.normal(size=logits.shape) * rows[..., None]
    logits.backward(torch.from_numpy(cotangent), retain_graph=True)
    assert_same_gradients(hub.gradients_by_hub_name(ours, backward({"logits": cotangent})), named_gradients(theirs))

    targets = np.where(rows if mask is None else mask == 1, rng.integers(0, V, (B, T)), -100)
    if T > 2:
        targets[0, 1] = -100
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.from_numpy(targets).reshape(-1))
    expected.backward()
    loss, loss_back = ours.loss(input_ids=ids, targets={"logits": targets}, chunk=5, **kwargs)
    assert_same("loss", loss, expected.detach().numpy())
    assert_same_gradients(hub.gradients_by_hub_name(ours, loss_back(1.0)), named_gradients(theirs))


# --------------------------------------------------------------------------------------------------------------- files

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
FILE_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


def assert_bit_equal(a, b):
    """Asserts that two {name: torch tensor} have the same names, dtypes, shapes and bits (so -0 and 0 differ)."""
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        bits = BITS[a[name].element_size()]
        assert torch.equal(a[name].contiguous().view(bits), b[name].contiguous().view(bits)), name


def tensors_of(theirs):
    """The tensors in a file of this transformers model; a tied head appears once."""
    tied = theirs.config.tie_word_embeddings
    return {name: t.detach() for name, t in theirs.state_dict().items() if not (tied and name == "lm_head.weight")}


def our_tensors(ours):
    """Our parameters under hub names as torch tensors."""
    named = hub.gradients_by_hub_name(ours, ours.params)  # works for any tree, not only gradients
    return {name: torch.from_numpy(a.copy()) for name, a in named.items()}

# ruff: noqa: E402 - imports follow importorskip
"""A tiny transformers model with random weights, the same model loaded by us, and their comparison, for every family.

Comparisons run in float64 with a tolerance of 1e-9 (largest difference over largest value).  Reordering the same float64 sums,
some thousand terms through two layers, changes results by 1e-13 or less.  The smallest real mistake worth finding, one float32
step somewhere or a slightly different epsilon, shows as 1e-8 or more.  1e-9 lies between, with margin on both sides.
"""

from __future__ import annotations

import contextlib
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import core_model_loading

import tinyplm
from tests.interop.families import FAMILIES
from tests.laws import relative_error
from tinyplm.hub import folders as hub
from tinyplm.models.names import names_of, to_hub

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-9
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}  # the others know no float64

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


def random_model(architecture, config, seed=0, **options):
    """transformers' model in float64 with every trained parameter random, including biases and norms, and the logits' bias."""
    torch.manual_seed(seed)
    with float64():
        model = architecture(config, **options).double().eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.from_numpy(rng.normal(0, 0.3, p.shape)))
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.copy_(torch.from_numpy(rng.normal(0, 0.3, b.shape)))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(torch.from_numpy(rng.normal(size=model.final_logits_bias.shape)))
    return model


def with_ours(theirs, folder):
    """transformers' model, and ours loaded from the folder it writes."""
    theirs.save_pretrained(folder)
    ours = tinyplm.load(folder)
    assert ours.dtype == np.float64
    return theirs, ours


def their_config(family, **changes):
    return FAMILIES[family].config(**{**FAMILIES[family].tiny, **changes}, **EAGER)


def peer(family, kind="lm", seed=0, **changes):
    """transformers' tiny model ("lm", or its bare "body")."""
    return random_model(getattr(FAMILIES[family], kind), their_config(family, **changes), seed)


def pair(family, folder, **changes):
    return with_ours(peer(family, **changes), folder)


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
    out = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return {name: a.numpy() for name, a in as_in_files(model, out).items()}


def as_in_files(model, tensors):
    """Tensors by the names of a file's: experts, which transformers joins, one by one."""
    return core_model_loading.revert_weight_conversion(model, tensors)


def assert_same(name, ours, theirs, tolerance=TOLERANCE):
    assert np.isfinite(np.asarray(theirs)).all()
    error = relative_error(ours, theirs)
    assert error < tolerance, f"{name} differs by {error:.1e}"


def assert_same_gradients(ours, theirs):
    assert set(ours) == set(theirs)
    for name in theirs:
        # an expert that no token chose has none
        assert np.any(theirs[name]) or ".experts." in name, f"{name}: a zero gradient proves nothing"
        assert_same(f"the gradient of {name}", ours[name], theirs[name])


def sees_something(mask, ours):
    """(B, T): the positions that can attend to a real token in every layer."""
    T = mask.shape[1]
    window = ours.family.pieces(ours.config).window
    shortest = min(window(i) or T for i in range(len(ours.params["body"]["layers"])))
    t, s = np.arange(T)[:, None], np.arange(T)
    return (mask[:, None] & (s <= t) & (s > t - shortest)).any(axis=2)


def assert_same_routing(ours, outputs, theirs, ids, kwargs, rows):
    """The routers' logits and the balance loss of real tokens, where there are experts."""
    if "router_logits" not in outputs:
        return
    with float64(), torch.no_grad():
        output = theirs(torch.from_numpy(ids), **for_them(theirs, **kwargs), output_router_logits=True)
    for i, logits in enumerate(output.router_logits):
        expected = logits.numpy().reshape(*ids.shape, -1)
        assert_same(f"router {i}", outputs["router_logits"][:, :, i][rows], expected[rows])
    if getattr(output, "aux_loss", None) is not None:
        targets = {"logits": np.full(ids.shape, -100)}
        loss, _ = ours.loss(input_ids=ids, targets=targets, total={"logits": 1}, balance=1.0, **kwargs)
        assert_same("the balance loss", loss, output.aux_loss.numpy())


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
    assert_same_routing(ours, outputs, theirs, ids, kwargs, rows)

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
    tensors = as_in_files(theirs, {name: t.detach() for name, t in theirs.state_dict().items()})
    return {name: t for name, t in tensors.items() if not (tied and name == "lm_head.weight")}


def our_tensors(ours):
    """Our parameters under hub names as torch tensors."""
    named = to_hub({**ours.params, "buffers": ours.buffers}, names_of(ours.family, ours.config))
    return {name: torch.from_numpy(a.copy()) for name, a in named.items()}

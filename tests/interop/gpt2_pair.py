# ruff: noqa: E402 - imports follow importorskip
"""A tiny GPT-2 of transformers with random weights, the same model loaded by us, and what compares them.

Comparisons are in float64 and ask for 1e-9 (largest difference over largest value).  Two orders of the same float64 sums, some
thousand terms through two layers, differ by 1e-13 or less, while the smallest real mistake worth finding, one float32 step
somewhere or a slightly different epsilon, shows as 1e-8 or more: 1e-9 lies between, with room on both sides.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


import tinyplm
from tests.laws import relative_error
from tinyplm import hub
from tinyplm.models import causal_lm, gpt2

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-9
# Dropout rates stay at 0.1, GPT-2's own: eval() on one side and key=None on the other must switch it off.
TINY = {"vocab_size": 41, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": None, "eos_token_id": None}


def peer(kind="GPT2LMHeadModel", seed=0, **changes):
    """transformers' tiny model in float64 with every parameter random, also biases and norm weights."""
    config = transformers.GPT2Config(**{**TINY, **changes}, attn_implementation="eager")
    model = getattr(transformers, kind)(config).double().eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.from_numpy(rng.normal(0, 0.3, p.shape)))
    return model


def pair(folder, **changes):
    """transformers' model, and ours loaded from the folder that it writes."""
    theirs = peer(**changes)
    theirs.save_pretrained(folder)
    ours = tinyplm.load(folder)
    assert ours.dtype == np.float64
    return theirs, ours


def padding(side, B, T):
    """(attention_mask, position_ids): sample b has b padded places (at most T - 1); left-padded, positions count real tokens."""
    if side == "none":
        return None, None
    padded = np.minimum(np.arange(B), T - 1)[:, None]
    mask = (np.arange(T) < T - padded) if side == "right" else (np.arange(T) >= padded)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0) if side == "left" else None
    return mask.astype(np.int64), positions


def as_torch(**arrays):
    return {name: torch.from_numpy(a) for name, a in arrays.items() if a is not None}


def named_gradients(model):
    """{hub name: gradient} of transformers' parameters, which are then cleared; a shared tensor stands in it once."""
    out = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
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


def compare(theirs, ours, *, B=3, T=7, side="none", seed=1):
    """Logits, hidden states, the loss, and both their gradients by every parameter.

    Only rows that may attend to something are compared: where there is nothing, we give zeros and transformers an average over
    everything.  Such rows cannot leak: nobody attends to them (the softmax weight of a masked key is exactly 0, in value and
    gradient), and their cotangent is set to zero.
    """
    rng = np.random.default_rng(seed)
    V = ours.config.vocab_size
    ids = rng.integers(0, V, (B, T))
    mask, positions = padding(side, B, T)
    rows = np.ones((B, T), dtype=bool) if mask is None else mask.cumsum(axis=1) > 0
    kwargs = {"attention_mask": mask, "position_ids": positions}
    output = theirs(torch.from_numpy(ids), **as_torch(**kwargs), output_hidden_states=True)
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
    # transformers' own loss helper goes through float32, so the cross-entropy is taken from its logits here
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.from_numpy(targets).reshape(-1))
    expected.backward()
    loss, loss_back = causal_lm.loss(gpt2, ours.params, config=ours.config, input_ids=ids, targets=targets, chunk=5, **kwargs)
    assert_same("loss", loss, expected.detach().numpy())
    assert_same_gradients(hub.gradients_by_hub_name(ours, loss_back(1.0)), named_gradients(theirs))

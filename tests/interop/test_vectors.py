# ruff: noqa: E402 - imports follow importorskip
"""PyTorch's own kernels are within the tolerances of the golden vectors, in every dtype."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tinyplm.checks import vectors
from tinyplm.checks.vectors.draws import DTYPES


def softmax(x, *, mask):
    return torch.nan_to_num((x if mask is None else x.masked_fill(~mask, float("-inf"))).softmax(-1))


def attention(q, k, v, bias=None, *, mask, scale):
    k, v = (a.repeat_interleave(q.shape[1] // k.shape[1], 1) for a in (k, v))
    A = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return softmax(A if bias is None else A + bias, mask=mask) @ v


def cross_entropy(logits, *, targets, weights, total, smoothing):
    t = targets.reshape(-1)
    nll = F.cross_entropy(logits.reshape(len(t), -1), t, reduction="none", label_smoothing=smoothing)
    w = torch.where(t != -100, torch.ones_like(nll) if weights is None else weights.reshape(-1), 0)
    return (w * nll).sum() / (total or w.sum() or 1)


KERNELS = {
    "rmsnorm": lambda x, gamma, *, eps: F.rms_norm(x, gamma.shape, gamma, eps),
    "layernorm": lambda x, gamma, beta=None, *, eps: F.layer_norm(x, gamma.shape, gamma, beta, eps),
    "linear": lambda x, W, b=None: F.linear(x, W.T, b),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "log_sigmoid": F.logsigmoid,
    "softmax": softmax,
    "log_softmax": lambda x: x.log_softmax(-1),
    "attention": attention,
    "cross_entropy": cross_entropy,
    "l2_normalise": lambda x, *, eps: F.normalize(x, dim=-1, eps=eps),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return vectors.write(tmp_path_factory.mktemp("vectors") / "golden", components=list(KERNELS))


def tensor(a, dtype):
    """A tensor in a dtype of torch; what is no array as it is."""
    if not isinstance(a, np.ndarray):
        return a
    a = torch.from_numpy(np.array(a))
    return a.to(getattr(torch, dtype)) if a.is_floating_point() else a


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_within_half_of_the_tolerances(folder, name, dtype):
    found = {}
    for case, v in vectors.read(folder, name, dtype=dtype).items():
        args = {n: tensor(a, dtype) for n, a in v.arguments.items()}
        given = [a if a is None else a.requires_grad_() for a in args.values()]
        y = KERNELS[name](*given, **{n: tensor(a, dtype) for n, a in v.keywords.items()})
        y.backward(tensor(v.cotangents["output"], dtype).to(y.dtype))
        results = {"output": y.detach()} | {f"gradient.{n}": a.grad for n, a in args.items() if a is not None}
        found |= {f"{case}/{array}": a.double().numpy() for array, a in results.items()}
        for array, a in results.items():
            allowed = v.record["arrays"][array]["tolerance"][dtype]
            assert np.abs(a.double().numpy() - v.results[array]).max() <= allowed / 2, f"{case}/{array}"
    assert vectors.check_against(folder, name, found, dtype=dtype) == []

# ruff: noqa: E402 - imports follow importorskip
"""check of torch functions, modules and subclasses of autograd.Function: right ones pass, planted mistakes are seen."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tinyplm.checks import Torch, check, check_test

ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu}


def failed(result) -> dict[str, str]:
    return {row.law: row.note for row in result.rows if not row.passed}


def rms_norm(x, gamma, eps):
    return F.rms_norm(x, gamma.shape, gamma, eps)


def layer_norm(x, gamma, beta, eps):
    return F.layer_norm(x, gamma.shape, gamma, beta, eps)


def attention(q, k, v, bias, *, mask, scale):
    group = q.shape[1] // k.shape[1]
    k, v = (a.repeat_interleave(group, 1) for a in (k, v))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias
    if mask is None:
        return torch.softmax(scores, -1) @ v
    return (torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), -1) * mask) @ v


def gated_mlp(p, x, *, activation):
    def linear(x, n):
        return F.linear(x, p[f"W{n}"].T, p.get(f"b{n}"))

    return linear(activation(linear(x, "gate")) * linear(x, "up"), "down")


FUNCTIONS = [
    ("rmsnorm", rms_norm, {}),
    ("layernorm", layer_norm, {}),
    ("attention", attention, {}),
    ("gated_mlp", gated_mlp, {"keywords": {"activation": lambda f: ACTIVATIONS[f.__name__]}}),
    ("log_softmax", lambda x: F.log_softmax(x, -1), {}),
    ("linear", F.linear, {"arguments": ("x", "W.T", "b")}),
]


@pytest.mark.parametrize(("like", "f", "settings"), FUNCTIONS, ids=[like for like, *_ in FUNCTIONS])
def test_functions_of_torch_pass_in_every_dtype(like, f, settings):
    result = check(f, like, kind="torch", dtypes=("float64", "float32", "float16", "bfloat16"), cases=4, **settings)
    assert result.passed, str(result)


def test_torchs_own_functions_are_recognised():
    assert check(F.silu, "silu", cases=2).passed
    assert check(torch.tanh, "tanh", cases=2).passed
    assert list(failed(check(F.silu, "gelu", cases=2)))[:2] == ["value", "gradient of x"]


# ---------------------------------------------------------------------------------------------------- autograd.Function


class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, eps):
        r = torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, gamma, r)
        return x * r * gamma

    @staticmethod
    def backward(ctx, dy):
        x, gamma, r = ctx.saved_tensors
        g, xhat = dy * gamma, x * r
        return r * (g - xhat * (g * xhat).mean(-1, keepdim=True)), (dy * xhat).reshape(-1, x.shape[-1]).sum(0), None


class WithSetup(torch.autograd.Function):
    """forward without ctx, and other names."""

    @staticmethod
    def forward(inp, weight, eps):
        return inp * torch.rsqrt((inp * inp).mean(-1, keepdim=True) + eps) * weight

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, gamma, eps = inputs
        ctx.save_for_backward(x, gamma, torch.rsqrt((x * x).mean(-1, keepdim=True) + eps))

    backward = RMSNorm.backward


class MissingTerm(RMSNorm):
    @staticmethod
    def backward(ctx, dy):
        x, gamma, r = ctx.saved_tensors
        return r * dy * gamma, RMSNorm.backward(ctx, dy)[1], None


class WrongGamma(RMSNorm):
    @staticmethod
    def backward(ctx, dy):
        return RMSNorm.backward(ctx, dy)[0], dy.reshape(-1, dy.shape[-1]).sum(0), None


class LosesGamma(RMSNorm):
    @staticmethod
    def backward(ctx, dy):
        return RMSNorm.backward(ctx, dy)[0], None, None


class WritesIntoX(RMSNorm):
    @staticmethod
    def forward(ctx, x, gamma, eps):
        y = RMSNorm.forward(ctx, x.clone(), gamma, eps)
        x.data.mul_(2)
        return y


class WritesIntoDy(RMSNorm):
    @staticmethod
    def backward(ctx, dy):
        grads = RMSNorm.backward(ctx, dy.clone())
        dy.mul_(2)
        return grads


class InFloat32(RMSNorm):
    @staticmethod
    def forward(ctx, x, gamma, eps):
        return RMSNorm.forward(ctx, x, gamma, eps).float()


class TooFew(RMSNorm):
    @staticmethod
    def backward(ctx, dy):
        return RMSNorm.backward(ctx, dy)[:2]


class NaiveSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mask=None):
        e = torch.exp(x) if mask is None else torch.exp(x) * mask
        total = e.sum(-1, keepdim=True)
        p = e / torch.where(total > 0, total, 1)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, dp):
        (p,) = ctx.saved_tensors
        return p * (dp - (dp * p).sum(-1, keepdim=True)), None


class LeakySoftmax(NaiveSoftmax):
    @staticmethod
    def forward(ctx, x, mask=None):
        p = torch.softmax(x if mask is None else x - 100 * ~mask, -1)
        ctx.save_for_backward(p)
        return p


@pytest.mark.parametrize("f", [RMSNorm, WithSetup])
def test_right_functions_pass(f):
    assert check(f, "rmsnorm").passed
    check_test(f, like="rmsnorm", cases=1)()


@pytest.mark.parametrize(("f", "like", "law", "note"), [
    (MissingTerm, "rmsnorm", "gradient of x", "case"),
    (WrongGamma, "rmsnorm", "gradient of gamma", "case"),
    (LosesGamma, "rmsnorm", "gradient of gamma", "there is none"),
    (WritesIntoX, "rmsnorm", "inputs untouched", "x changes"),
    (WritesIntoDy, "rmsnorm", "dy untouched", "case"),
    (InFloat32, "rmsnorm", "dtypes", "value is float32, expected float64"),
    (NaiveSoftmax, "softmax", "finite for large values", "value of arguments times 10000"),
    (LeakySoftmax, "softmax", "padding without influence", "the value changes"),
    (LeakySoftmax, "softmax", "rows with nothing to attend to", "value"),
])  # fmt: skip
def test_mistakes_are_seen(f, like, law, note):
    assert note in failed(check(f, like))[law]


def test_an_error_of_torch_is_one_line():
    with pytest.raises(ValueError, match=r"TooFew: expected no error, got RuntimeError: .*number of gradients") as error:
        check(TooFew, "rmsnorm")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="expected a tensor, got a float"):
        check(Torch(lambda x, gamma, eps: 1.0), "rmsnorm")


def test_a_gradient_that_is_cut_off_is_seen():
    found = failed(check(lambda x, gamma, eps: rms_norm(x.detach(), gamma, eps), "rmsnorm", kind="torch", cases=2))
    assert found["gradient of x"].startswith("there is none")
    found = failed(check(lambda x, gamma, eps: rms_norm(x, gamma, eps).detach(), "rmsnorm", kind="torch", cases=2))
    assert found["gradient of gamma"].startswith("there is none")


def test_bfloat16_arrives_as_bfloat16():
    seen = set()

    def f(x, gamma, eps):
        seen.add(x.dtype)
        return rms_norm(x, gamma, eps)

    assert check(f, "rmsnorm", kind="torch", dtypes="bfloat16", cases=2).passed and seen == {torch.bfloat16}


def test_a_written_input_is_seen_where_no_memory_is_shared():
    result = check(WritesIntoX, "rmsnorm", dtypes="bfloat16", cases=2)
    assert "x changes" in failed(result)["inputs untouched"]


# -------------------------------------------------------------------------------------------------------------- modules


def test_modules_with_their_parameters():
    given = {"arguments": {"weight": "gamma"}, "fixed": {"eps": 1e-5}, "cases": [{"x": (2, 3, 8), "gamma": (8,)}]}
    assert check(torch.nn.RMSNorm(8, eps=1e-5), "rmsnorm", **given).passed
    assert "value" in failed(check(torch.nn.RMSNorm(8, eps=1e-3), "rmsnorm", **given))
    linear = torch.nn.Linear(4, 6)
    cases = [{"x": (2, 4), "W": (4, 6), "b": (6,)}]
    names = {"input": "x", "weight": "W.T", "bias": "b"}
    before = linear.weight.detach().numpy().copy()
    assert check(linear, "linear", arguments=names, cases=cases).passed
    assert np.array_equal(before, linear.weight.detach().numpy()) and linear.weight.grad is None
    with pytest.raises(ValueError, match="arguments: expected one of ours .* for each parameter, got none for bias|2 gradients"):
        check(linear, "rmsnorm", cases=[{"x": (2, 4), "gamma": (4,)}])


def test_the_example(run):
    done = run("check_a_torch_layer.py", "--cases", "4")
    assert done.code == 0 and done.err == "", done
    assert "every right layer passes, and the wrong one is found" in done.out and done.out.count("FAILED") >= 2

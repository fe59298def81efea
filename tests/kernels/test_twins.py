"""Every kernel equals its plain form: values, gradients, dtypes, on every device."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tinyplm.kernels
from tests import laws
from tests.components import COMPONENTS
from tests.laws import Case, Sizes
from tests.strategies import sizes
from tinyplm.backend import array_module, to_host
from tinyplm.core import tree_map
from tinyplm.kernels import activation, attention, block_attention, cross_entropy, disentangled, distillation, experts
from tinyplm.kernels import log_probs as log_probs_kernel
from tinyplm.kernels import mlp as mlp_kernel
from tinyplm.kernels import norm as norm_kernel
from tinyplm.layers import activation as plain_activation
from tinyplm.layers import attention as plain_attention
from tinyplm.layers import disentangled as plain_disentangled
from tinyplm.layers import experts as plain_experts
from tinyplm.layers import mlp as plain_mlp
from tinyplm.layers import norm as plain_norm
from tinyplm.layers import sinks as plain_sinks
from tinyplm.layers.mask import Visible
from tinyplm.losses import cross_entropy as plain_cross_entropy
from tinyplm.losses import distillation as plain_distillation
from tinyplm.losses import log_probs as plain_log_probs


class Twin(NamedTuple):
    kernel: Callable
    plain: Callable
    component: str  # the component whose cases are drawn
    options: Callable[[Sizes], dict[str, Any]] = lambda s: {}  # options that only the kernel has


def _chunk(s: Sizes) -> dict[str, Any]:
    return {"chunk": 1 + s.seed % 4}


def _expert(s: Sizes) -> dict[str, Any]:
    """One that takes `gradients`."""
    return {"expert": partial(mlp_kernel.gated_mlp, activation=plain_activation.silu)}


def _visible(kernel: Callable) -> Callable:
    """The kernel with its mask wrapped as the `allowed` of a `Visible`; without a mask, `allowed` is None."""

    def described(q, k, v, bias=None, *, mask=None, **kwargs):
        visible = Visible(q.shape[2], k.shape[2], allowed=mask, xp=array_module(q))
        return kernel(q, k, v, bias, mask=visible, **kwargs)

    return described


TWINS = {
    "gelu": Twin(activation.gelu, plain_activation.gelu, "gelu"),
    "gelu_tanh": Twin(activation.gelu_tanh, plain_activation.gelu_tanh, "gelu_tanh"),
    "unit_rmsnorm": Twin(norm_kernel.unit_rmsnorm, plain_norm.unit_rmsnorm, "unit_rmsnorm"),
    "mlp": Twin(mlp_kernel.mlp, plain_mlp.mlp, "mlp"),
    "gated_mlp": Twin(mlp_kernel.gated_mlp, plain_mlp.gated_mlp, "gated_mlp"),
    "clamped_gated_mlp": Twin(mlp_kernel.clamped_gated_mlp, plain_mlp.clamped_gated_mlp, "clamped_gated_mlp"),
    "attention": Twin(_visible(attention.attention), plain_attention.attention, "attention"),
    "block_attention": Twin(
        block_attention.block_attention,
        plain_attention.attention,
        "attention_dropout",
        lambda s: {"block": 1 + s.seed % 5},
    ),
    "attention, capped": Twin(_visible(attention.attention), plain_attention.attention, "capped_attention"),
    "attention, alibi": Twin(_visible(attention.attention), plain_attention.attention, "alibi_attention"),
    "block_attention, capped": Twin(
        block_attention.block_attention,
        plain_attention.attention,
        "capped_attention",
        lambda s: {"block": 1 + s.seed % 5},
    ),
    "block_attention, alibi": Twin(
        block_attention.block_attention,
        plain_attention.attention,
        "alibi_attention",
        lambda s: {"block": 1 + s.seed % 5},
    ),
    "experts": Twin(experts.experts, plain_experts.experts, "experts", _expert),
    "sink_attention": Twin(_visible(attention.sink_attention), plain_sinks.sink_attention, "sink_attention"),
    "sink_block_attention": Twin(
        block_attention.sink_block_attention,
        plain_sinks.sink_attention,
        "sink_attention_dropout",
        lambda s: {"block": 1 + s.seed % 5},
    ),
    "relative_scores": Twin(disentangled.relative_scores, plain_disentangled.relative_scores, "relative_scores"),
    "vocabulary_cross_entropy": Twin(
        cross_entropy.vocabulary_cross_entropy,
        plain_cross_entropy.vocabulary_cross_entropy,
        "vocabulary_cross_entropy",
        _chunk,
    ),
    "vocabulary_log_probs": Twin(
        log_probs_kernel.vocabulary_log_probs,
        plain_log_probs.vocabulary_log_probs,
        "vocabulary_log_probs",
        _chunk,
    ),
    "vocabulary_distillation": Twin(
        distillation.vocabulary_distillation,
        plain_distillation.vocabulary_distillation,
        "vocabulary_distillation",
        _chunk,
    ),
}
# helpers; attention including its parts; the mixture: test_experts.py
NO_TWINS = {"by_blocks", "normal_cdf", "self_attention", "cross_attention", "latent_attention", "moe_and_logits"}


def in_dtype(dtype: str, value: Any) -> Any:
    """A tree or a keyword value, with its float64 arrays converted to another dtype."""
    if isinstance(value, (dict, list)):
        return tree_map(lambda a: in_dtype(dtype, a), value)
    return value.astype(dtype) if getattr(value, "dtype", None) == np.float64 else value


def twin_case(twin: Twin, s: Sizes, dtype: str) -> tuple[Case, dict[str, Any]]:
    """A case of the component without the output weights its law uses, and those weights separately."""
    made = COMPONENTS[twin.component].make(s)
    kwargs = {name: in_dtype(dtype, value) for name, value in made.kwargs.items()}
    cotangents = {name: kwargs.pop(name) for name in ("a", "c") if name in kwargs}
    return Case([in_dtype(dtype, a) for a in made.args], kwargs), cotangents


def results(f: Callable, case: Case, device: str, dy: Any) -> tuple[Any, list[Any]]:
    y, backward = laws.call(f, case, device)
    return to_host(y), laws.gradients(backward, laws.on_device(dy, device), len(case.args))


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(s=sizes())
def test_a_kernel_equals_its_plain_form(name, dtype, device, s):
    """Errors are relative to the largest value and, for gradients, to the largest of all gradients."""
    twin = TWINS[name]
    case, cotangents = twin_case(twin, s, dtype)
    rng = np.random.default_rng(s.seed + 1)
    y, _ = laws.call(twin.plain, case, device)
    if isinstance(y, dict):
        dy = dict(zip(y, cotangents.values(), strict=True))
    else:
        dy = laws.random_like(y, rng)
    expected, expected_gradients = results(twin.plain, case, device, dy)
    with_options = dataclasses.replace(case, kwargs={**case.kwargs, **twin.options(s)})
    found, gradients = results(twin.kernel, with_options, device, dy)

    near = tolerance(dtype, s)
    size = largest(expected)
    for a, b in zip(laws.leaves(found), laws.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.max(np.abs(a - b), initial=0.0) <= near * size
    size = largest(expected_gradients)
    for a, b in zip(laws.leaves(gradients), laws.leaves(expected_gradients), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.max(np.abs(a - b), initial=0.0) <= near * size


def tolerance(dtype: str, s: Sizes) -> float:
    """For sums over the sizes of a case and 40 elementwise operations, including an activation's.

    In float16 both compute in float32, but products, their sums and the results are rounded to float16.
    """
    terms = (40, s.B * s.T, s.S, s.D, s.F, s.V, s.E)
    if dtype == "float16":
        return laws.rounding(4, dtype="float16") + laws.rounding(*terms, dtype="float32")
    return laws.rounding(*terms, dtype=dtype)


def largest(tree: Any) -> float:
    """The largest absolute value in a tree, but at least 1e-3, below which everything would be rounding error."""
    return max([1e-3, *(float(np.max(np.abs(a), initial=0.0)) for a in laws.leaves(tree))])


@pytest.mark.parametrize("name", TWINS)
def test_a_kernel_takes_what_its_plain_form_takes(name):
    """The same parameters, in the same order, with the same defaults; a kernel may have additional ones."""
    twin = TWINS[name]
    kernel = getattr(attention, name.split(",")[0], twin.kernel)  # not the one with its mask wrapped
    ours, plain = (inspect.signature(f).parameters for f in (kernel, twin.plain))
    assert [(p.name, p.default, p.kind) for p in ours.values()][: len(plain)] == [
        (p.name, p.default, p.kind) for p in plain.values()
    ]
    more = [ours[n] for n in ours if n not in plain]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in more)


def kernels() -> dict[str, Callable]:
    """{name: function} of the components defined in kernels/: the functions annotated to return a Backward."""
    found = {}
    for module in pkgutil.iter_modules(tinyplm.kernels.__path__):
        module = import_module(f"tinyplm.kernels.{module.name}")
        for name, f in inspect.getmembers(module, inspect.isfunction):
            returns_backward = "Backward" in str(inspect.signature(f).return_annotation)
            if f.__module__ == module.__name__ and returns_backward and not name.startswith("_"):
                found[name] = f
    return found


def test_no_kernel_is_without_a_twin():
    assert kernels().keys() - NO_TWINS == {name.split(",")[0] for name in TWINS}


@pytest.mark.parametrize("name", TWINS)
def test_a_wrong_kernel_is_seen(name):
    """A 1% error in any argument's gradient exceeds every tolerance."""
    twin = TWINS[name]
    s = Sizes(B=2, T=3, S=4, D=5, K=2, G=2, E=3, F=4, V=6, seed=1, flags=(True, True, True))
    case, cotangents = twin_case(twin, s, "float32")
    y, _ = laws.call(twin.plain, case, "cpu")
    dy = dict(zip(y, cotangents.values())) if isinstance(y, dict) else laws.random_like(y, s.rng())
    _, gradients = results(twin.plain, case, "cpu", dy)
    near = tolerance("float32", s) * largest(gradients)
    assert any(np.max(np.abs(g)) * 0.01 > near for g in laws.leaves(gradients))

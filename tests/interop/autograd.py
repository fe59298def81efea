"""A layer or loss against the same function in torch, in float64: the value, and every gradient by torch's autograd.

1e-10 (largest difference over largest value): reordering one layer's sums, of at most some hundred terms, changes them by 1e-14,
and a float32 step or another epsilon shows as 1e-8.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import gradients, relative_error

torch = pytest.importorskip("torch")

torch.set_num_threads(1)

TOLERANCE = 1e-10


def compare(ours, theirs, *args, seed=0, zero_gradients=()):
    """ours(*args) -> y, backward against theirs(*tensors) and autograd, with a random cotangent.

    args: float64 arrays, dicts of them, or None.  zero_gradients: the arguments (index, or index and name) whose exact gradient
    is or may be zero, and rounding noise on both sides: compared by absolute difference.  Any other zero gradient would prove
    nothing, and fails.
    """

    def leaf(a):
        return torch.from_numpy(a.copy()).requires_grad_()

    def over(f, arg):
        return {name: f(a) for name, a in arg.items()} if isinstance(arg, dict) else None if arg is None else f(arg)

    tensors = [over(leaf, arg) for arg in args]
    y, backward = ours(*args)
    expected = theirs(*tensors)
    assert np.shape(y) == tuple(expected.shape)
    cotangent = np.random.default_rng([seed, 1]).normal(size=np.shape(y))
    expected.backward(torch.from_numpy(np.asarray(cotangent)))
    assert_same("value", y, expected.detach().numpy())
    for i, (g, tensor) in enumerate(zip(gradients(backward, cotangent, len(args)), tensors, strict=True)):
        if tensor is None:
            assert g is None
            continue
        theirs_by_name = over(lambda t: t.grad.numpy(), tensor)
        pairs = [((i, n), g[n], theirs_by_name[n]) for n in tensor] if isinstance(tensor, dict) else [(i, g, theirs_by_name)]
        for place, a, b in pairs:
            if place in zero_gradients:
                assert a.shape == b.shape and np.max(np.abs(a - b)) < 1e-12, f"the gradient of argument {place}"
            else:
                assert np.any(b), f"argument {place}: a zero gradient proves nothing"
                assert_same(f"the gradient of argument {place}", a, b)


def assert_same(name, ours, theirs):
    assert np.isfinite(theirs).all()
    error = relative_error(ours, theirs)
    assert error < TOLERANCE, f"{name} differs by {error:.1e}"


def rng_for(*numbers):
    return np.random.default_rng([7, *numbers])


def without_last(result):
    """A component called without its last, optional argument: that gradient is None and is dropped."""
    y, back = result

    def backward(dy):
        *grads, last = back(dy)
        assert last is None
        return tuple(grads)

    return y, backward

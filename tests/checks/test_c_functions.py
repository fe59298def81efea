"""C functions by ctypes: right ones pass, planted mistakes are seen, and descriptions are checked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.scripts import EXAMPLES
from tinyplm.checks import CFunction, check

COMPILER = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")

SHAPES = {"shapes": "x (N..., D), gamma (D)", "keeps": "r (N...)"}
FORWARD = "void {}(float *y, float *r, const float *x, const float *gamma, int N, int D, float eps)"
BACKWARD = "void {}(float *dx, float *dgamma, const float *dy, const float *r, const float *x, const float *gamma, int N, int D)"
MISTAKES = """
#include <stddef.h>
#define REAL float
#include "kernels.c"

void writes_into_x(float *y, float *r, float *x, const float *gamma, int N, int D, float eps) {
    rmsnorm(y, r, x, gamma, N, D, eps);
    x[0] += 1;
}
void writes_into_dy(float *dx, float *dgamma, float *dy, const float *r, const float *x, const float *gamma, int N, int D) {
    rmsnorm_backward(dx, dgamma, dy, r, x, gamma, N, D);
    dy[0] = 0;
}
void leaves_the_last_row(float *dx, float *dgamma, const float *dy, const float *r, const float *x, const float *gamma, int N,
                         int D) {
    rmsnorm_backward(dx, dgamma, dy, r, x, gamma, N - 1, D);
}
void adds(float *dx, float *dgamma, const float *dy, const float *r, const float *x, const float *gamma, int N, int D) {
    static float first[100000];
    rmsnorm_backward(first, dgamma, dy, r, x, gamma, N, D);
    for (int i = 0; i < N * D; i++) dx[i] += first[i];
}
static float last[100000];
void global_r(float *y, float *r, const float *x, const float *gamma, int N, int D, float eps) {
    rmsnorm(y, r, x, gamma, N, D, eps);
    for (int n = 0; n < N; n++) last[n] = r[n];
}
void from_global_r(float *dx, float *dgamma, const float *dy, const float *r, const float *x, const float *gamma, int N, int D) {
    rmsnorm_backward(dx, dgamma, dy, last, x, gamma, N, D);
}
void added_mask(float *p, const float *x, const uint8_t *mask, int N, int S) {
    static float scores[100000];
    for (int i = 0; i < N * S; i++) scores[i] = x[i] - (!mask || mask[i] ? 0 : 1000);
    softmax(p, scores, 0, N, S);
}
void naive(float *p, const float *x, const uint8_t *mask, int N, int S) {
    for (int n = 0; n < N; n++) {
        float sum = 0;
        for (int s = n * S; s < (n + 1) * S; s++) sum += p[s] = !mask || mask[s] ? expf(x[s]) : 0;
        for (int s = n * S; s < (n + 1) * S; s++) p[s] /= sum > 0 ? sum : 1;
    }
}
void gather(double *y, const double *table, const int64_t *ids, size_t B, size_t T, size_t D) {
    for (size_t n = 0; n < B * T; n++)
        for (size_t d = 0; d < D; d++) y[n * D + d] = table[ids[n] * D + d];
}
void gather_backward(double *dtable, const double dy[], const int64_t ids[], size_t B, size_t T, size_t D) {
    for (size_t n = 0; n < B * T; n++)
        for (size_t d = 0; d < D; d++) dtable[ids[n] * D + d] += dy[n * D + d];
}
void no_dgamma(float *dx, const float *dy, const float *x, int N, int D) {
    for (int i = 0; i < N * D; i++) dx[i] = dy[i];
}
void named(float *out, const float *inp, const float *weight, int rows, int width, float epsilon) {
    static float r[100000];
    rmsnorm(out, r, inp, weight, rows, width, epsilon);
}
void named_backward(float *dinp, float *dweight, const float *dout, const float *inp, const float *weight, int rows, int width,
                    float epsilon) {
    static float y[100000], r[100000];
    rmsnorm(y, r, inp, weight, rows, width, epsilon);
    rmsnorm_backward(dinp, dweight, dout, r, inp, weight, rows, width);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    (folder / "mistakes.c").write_text(MISTAKES)
    command = [
        COMPILER,
        "-O1",
        "-shared",
        "-fPIC",
        f"-I{EXAMPLES}",
        "-o",
        str(folder / "all.so"),
        str(folder / "mistakes.c"),
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "all.so"


def rmsnorm(library: Path, forward: str = "rmsnorm", backward: str = "rmsnorm_backward", **more) -> CFunction:
    return CFunction(library, FORWARD.format(forward), BACKWARD.format(backward), **{**SHAPES, **more})


def softmax(library: Path, forward: str) -> CFunction:
    return CFunction(library, f"void {forward}(float *p, const float *x, const uint8_t *mask, int N, int S)",
                     "void softmax_backward(float *dx, const float *dp, const float *p, int N, int S)",
                     shapes="x (N..., S), mask (N..., S)", value="p")  # fmt: skip


def failed(result) -> dict[str, str]:
    return {row.law: row.note for row in result.rows if not row.passed}


def test_right_kernels_pass(library):
    for kernel, like in ((rmsnorm(library), "rmsnorm"), (softmax(library, "softmax"), "softmax")):
        result = check(kernel, like)
        assert result.passed and {row.dtype for row in result.rows} == {"float32"}, str(result)


def test_other_types_ids_and_gradients_that_are_added(library):
    gather = CFunction(
        library,
        "void gather(double *y, const double *table, const int64_t *ids, size_t B, size_t T, size_t D)",
        "void gather_backward(double *dtable, const double dy[], const int64_t ids[], size_t B, size_t T, size_t D);",
        shapes="table (V, D), y (B, T, D), ids (B, T)",
        accumulates=True,
    )
    assert check(gather, "embedding").passed


def test_other_names(library):
    kernel = CFunction(
        library,
        "void named(float *out, const float *inp, const float *weight, int rows, int width, float epsilon)",
        "void named_backward(float *dinp, float *dweight, const float *dout, const float *inp, const float *weight, int rows, "
        "int width, float epsilon)",
        shapes="inp (rows..., width), weight (width)",
        value="out",
    )
    names = {"arguments": {"inp": "x", "weight": "gamma"}, "keywords": {"eps": "epsilon"}}
    assert check(kernel, "rmsnorm", **names).passed


@pytest.mark.parametrize(("functions", "law", "note"), [
    (("rmsnorm", "rmsnorm_backward_wrong"), "gradient of x", "case"),
    (("writes_into_x", "rmsnorm_backward"), "inputs untouched", "x changes"),
    (("rmsnorm", "writes_into_dy"), "dy untouched", "case"),
    (("rmsnorm", "leaves_the_last_row"), "gradient of x", "not finite"),
    (("rmsnorm", "adds"), "gradient of x", "not finite"),
    (("global_r", "from_global_r"), "repeatable", "case"),
])  # fmt: skip
def test_mistakes_are_seen(library, functions, law, note):
    assert note in failed(check(rmsnorm(library, *functions), "rmsnorm"))[law]


def test_gradients_that_are_added_are_described(library):
    assert check(rmsnorm(library, "rmsnorm", "adds", accumulates=True), "rmsnorm").passed


def test_mistakes_of_softmaxes_are_seen(library):
    assert "padding without influence" in failed(check(softmax(library, "added_mask"), "softmax"))
    assert list(failed(check(softmax(library, "naive"), "softmax"))) == ["finite for large values"]


def test_a_backward_without_a_gradient(library):
    text = "void no_dgamma(float *dx, const float *dy, const float *x, int N, int D)"
    kernel = CFunction(library, FORWARD.format("rmsnorm"), text, **SHAPES)
    assert "there is none" in failed(check(kernel, "rmsnorm", cases=1))["gradient of gamma"]


def test_a_file_in_the_working_folder_is_found(library, monkeypatch):
    """Without "./" the loader would look for it among the system's libraries."""
    monkeypatch.chdir(Path(library).parent)
    assert (
        CFunction(Path(library).name, FORWARD.format("rmsnorm"), BACKWARD.format("rmsnorm_backward"), **SHAPES).name == "rmsnorm"
    )


@pytest.mark.parametrize(("change", "message"), [
    ({"library": "none.so"}, "library: expected a shared library, got .*none.so"),
    ({"library": 3}, "library: expected a shared library"),
    ({"forward": FORWARD.format("nothing")}, "library: expected one with this function, got .*nothing"),
    ({"forward": "rmsnorm"}, r"forward: expected a prototype such as 'void f\(float \*y, .*\)', got 'rmsnorm'"),
    ({"forward": "void rmsnorm(half *y)"}, "forward: expected a type and a name, the type one of float, double, .*, got 'half"),
    ({"forward": "void rmsnorm(float *, int)"}, "forward: expected a type and a name"),
    ({"forward": "void rmsnorm(const float *x, int N)"}, "forward: expected an array y of float or double"),
    ({"backward": 3}, "backward: expected a prototype such as"),
    ({"shapes": "x N D"}, r"shapes: expected shapes such as 'x \(N..., D\), gamma \(D\)', got 'x N D'"),
    ({"shapes": "x (N..., M..., D)"}, "shapes: expected sizes that are names or numbers, at most one with ..."),
    ({"shapes": "x (N-1, D)"}, "shapes: expected shapes such as"),
    ({"value": 3}, "value: expected a non-empty string"),
])  # fmt: skip
def test_a_wrong_description_is_refused(library, change, message):
    right = {"library": library, "forward": FORWARD.format("rmsnorm"), "backward": BACKWARD.format("rmsnorm_backward"), **SHAPES}
    CFunction(**right)
    with pytest.raises(ValueError, match=message) as error:
        CFunction(**{**right, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"shapes": "x (N, D), gamma (D)"}, r"shapes: expected x \(N, D\), got shape"),
    ({"shapes": "x (N..., D), gamma (N...)"}, r"shapes: expected gamma \(N...\), got shape"),
    ({"shapes": "x (N..., D)"}, "shapes: expected the shape of gamma"),
    ({"shapes": "x (N..., D), gamma (D), y (M, D)"}, "shapes: expected sizes of the arguments, got M"),
    ({"shapes": "x (N..., D), gamma (D), y (D, N...)"}, "value"),
    ({"keeps": ""}, "arguments: expected one of ours .* for each parameter, got none for r"),
    ({"backward": BACKWARD.format("rmsnorm_backward").replace("int D", "double *D")}, "D: expected an array, got"),
    ({"forward": FORWARD.format("rmsnorm").replace("int D", "float *D")}, "rmsnorm: D: expected an array, got"),
])  # fmt: skip
def test_a_description_that_does_not_fit_is_refused(library, change, message):
    right = {"library": library, "forward": FORWARD.format("rmsnorm"), "backward": BACKWARD.format("rmsnorm_backward"), **SHAPES}
    kernel = CFunction(**{**right, **change})
    if message == "value":
        assert message in failed(check(kernel, "rmsnorm", cases=2))
        return
    with pytest.raises(ValueError, match=message) as error:
        check(kernel, "rmsnorm", cases=2)
    assert "\n" not in str(error.value)


def test_another_dtype_is_refused(library):
    with pytest.raises(ValueError, match="rmsnorm: dtypes: expected float32, as in its prototype, got float64"):
        check(rmsnorm(library), "rmsnorm", dtypes="float64")


def test_none_for_a_number(library):
    text = FORWARD.format("rmsnorm")
    kernel = CFunction(library, text, BACKWARD.format("rmsnorm_backward"), **SHAPES)
    with pytest.raises(ValueError, match="rmsnorm: eps: expected a number, got None"):
        check(kernel, "rmsnorm", cases=2, keywords=lambda kw: {"eps": None})


def test_arrays_arrive_in_c_order(library):
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4)))
    assert check(rmsnorm(library), "rmsnorm", cases=[{"x": x, "gamma": (4,)}]).passed

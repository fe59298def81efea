"""No source file of tinyplm uses a name or keyword that CuPy lacks, and the check finds files that do."""

from __future__ import annotations

import pathlib

import pytest

from .static_check import HOST_NUMPY, check_folder, check_source

PACKAGE = pathlib.Path(__file__).parents[2] / "tinyplm"


def test_tinyplm():
    assert check_folder(PACKAGE) == []


@pytest.mark.parametrize("file", HOST_NUMPY)
def test_exception_is_needed(file, monkeypatch):
    """An obsolete exception in HOST_NUMPY would hide the next mistake."""
    assert (PACKAGE / file).exists()
    monkeypatch.delitem(HOST_NUMPY, file)
    assert check_source((PACKAGE / file).read_text(), file)


BAD = {
    "a name that CuPy lacks": "xp.vecdot(x, y)",
    "a name that nobody has": "xp.softmax(x)",
    "a name that is not called": "f = xp.emath",
    "a name that only CuPy has": "xp.asnumpy(x)",
    "a module that device code may not use": "xp.random.normal()",
    "errstate": "with xp.errstate(all='ignore'):\n    pass",
    "a name of linalg that CuPy lacks": "xp.linalg.vecdot(x, y)",
    "a keyword of linalg": "xp.linalg.pinv(x, hermitian=True)",
    "where= of a ufunc": "xp.exp(x, where=mask)",
    "where= of a reduction": "xp.sum(x, where=mask)",
    "out= of einsum": "xp.einsum('ij->i', x, out=y)",
    "einsum with starred operands": "xp.einsum('ij,jk', *operands, order='C')",
    "stable= of sort": "xp.sort(x, stable=True)",
    "kind of sort": "xp.argsort(x, kind='heapsort')",
    "too many arguments": "xp.tril(x, 1, 2)",
    "too few arguments": "xp.take_along_axis(x, ids)",
    "a position that differs": "xp.argmax(x, 0, out)",
    "a method that the ufunc lacks": "xp.maximum.reduce(x)",
    "a method of a ufunc not supported": "xp.multiply.at(x, ids, y)",
    "a keyword of a ufunc's method": "xp.add.reduce(x, where=mask)",
    "the array module by another name": "m = array_module(x)\nm.vecdot(x, y)",
    "the array module at once": "array_module(x).exp(x, where=mask)",
    "where= of a method": "x.sum(axis=0, where=mask)",
    "initial= of a method": "(x + y).max(initial=0)",
    "kind of the method sort": "x.sort(kind='heapsort')",
    "a keyword of a method of an expression": "x[0].mean(-1).std(correction=1)",
    "a method that cupy.ndarray lacks": "x.setflags(write=False)",
    "in a nested function": "def f(x):\n    return lambda dy: xp.matmul(dy, x, where=dy)",
    "import of numpy": "import numpy as np",
    "import from numpy": "from numpy import exp",
    "use of numpy": "import numpy as np\ny = np.exp(x)",
    "import of cupy": "import cupy",
    "import of cupyx": "from cupyx import scatter_add",
}

GOOD = {
    "functions": "xp.exp(x, out=y)\nxp.sum(x, axis=-1, keepdims=True)\nxp.where(m, x, 0)\nxp.linalg.norm(x)",
    "constants and types": "xp.float32, xp.inf, xp.newaxis, xp.finfo(x.dtype).max, xp.ndarray, xp.bool_",
    "ufunc methods": "xp.add.at(x, ids, y)\nxp.add.reduce(x, axis=0)\nxp.maximum.at(x, ids, y)",
    "methods": "x.sum(axis=0, keepdims=True).astype('f', copy=False).reshape(2, -1).transpose(0, 1)",
    "stable sort": "xp.sort(x, kind='stable')\nx.sort(kind=kind)",
    "other objects": "names.sort(key=len, reverse=True)\nd.get('a', 0)\ntext.partition('.')\nd.copy()",
    "starred": "xp.concatenate(*args, **kwargs)\nx.reshape(*shape)",
    "imports": "import math\nfrom ..backend import array_module",
}


@pytest.mark.parametrize("name", BAD)
def test_planted_mistake_is_reported(name):
    problems = check_source("x = 1\n" + BAD[name] + "\n", "layers/planted.py")
    assert [p for p in problems if p.path == "layers/planted.py" and p.line >= 2]


@pytest.mark.parametrize("name", GOOD)
def test_legitimate_source_is_not_reported(name):
    assert check_source(GOOD[name], "layers/planted.py") == []


def test_host_code_may_use_numpy():
    source = "import numpy as np\nx = np.sum(np.ones(3), where=m)\nx.setflags(write=False)\nx.max(initial=0)\n"
    assert check_source(source, "data/corpus.py") == []
    assert check_source(source, "layers/linear.py") != []
    assert check_source("import cupy", "backend.py") == []
    assert check_source("xp.vecdot(x, y)", "data/corpus.py") != []


def test_report_names_the_place():
    (problem,) = check_source("\n\nxp.vecdot(x, y)\n", "layers/a.py")
    assert str(problem).startswith("layers/a.py:3: ") and "vecdot" in str(problem)

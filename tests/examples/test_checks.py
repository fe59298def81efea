"""The examples that check other people's code: the C kernel, and the torch layer where there is no torch."""

from __future__ import annotations

import shutil
import sys

import pytest


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
def test_the_c_kernels(run):
    done = run("check_a_c_kernel.py", "--cases", "3")
    assert done.code == 0 and done.err == "", done
    tables = done.out.split("\n\n")
    assert [table.strip().split("\n")[0] for table in tables[:-1]] == [
        f"{name}, {real}" for real in ("float", "double") for name in ("rmsnorm", "softmax", "attention", "a wrong rmsnorm")
    ]
    assert [("FAILED" in table) for table in tables[:-1]] == 2 * [False, False, False, True]
    assert tables[-1].strip() == "every right kernel passes, and the wrong one is found"


def test_without_a_compiler(run, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    done = run("check_a_c_kernel.py")
    assert done.code == 1 and done.err == "error: a C compiler: expected one of cc, gcc, clang, got none\n"


def test_without_torch(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = run("check_a_torch_layer.py")
    assert done.code == 1 and done.err == "error: PyTorch: expected it to be installed, got none: pip install torch\n"

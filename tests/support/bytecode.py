"""Compiled modules for one run of the tests where Python shall write none (PYTHONDONTWRITEBYTECODE).

Otherwise each process compiles everything anew: pytest the tests with their rewritten assertions, three times what collecting
them takes, and every process that a test starts the library, half of its time.  Here they go to a folder that lives as long as
the run.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

import pytest

FOLDER = "bytecode_folder"  # in what the main process tells a worker
kept = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    if not sys.dont_write_bytecode:
        return  # __pycache__ does all this
    folder = getattr(config, "workerinput", {}).get(FOLDER)
    if folder is None:
        folder = config.stash[kept] = tempfile.mkdtemp(prefix="tinyplm-bytecode-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        if config.getoption("numprocesses", None):
            return  # it only starts workers
    sys.pycache_prefix, sys.dont_write_bytecode = folder, False
    os.environ["PYTHONPYCACHEPREFIX"] = folder
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """pytest-xdist is about to start a worker."""
    if kept in node.config.stash:
        node.workerinput[FOLDER] = node.config.stash[kept]

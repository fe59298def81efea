"""Copies of a log for other programs: TensorBoard's event files, runs of Weights & Biases.

A writer gets the numbers of each record of log.jsonl (see training.log.scalars).  When a run is
resumed, Log passes it the records that were kept, so a curve has each step once, without the steps
after the last checkpoint that a killed run had logged.  The packages are imported only when used.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..arguments import check_choice, listed, mismatch
from ..files import replaced


class Writer(Protocol):
    """What Log expects.

    Made by Kind.open(folder, new): the folder of log.jsonl, and whether the log begins anew.
    """

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in folder/tensorboard, always written anew: `tensorboard --logdir folder`."""

    def __init__(self, folder: Path, new: bool) -> None:
        from tensorboardX import SummaryWriter

        target = folder / "tensorboard"
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(target))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, whose id is kept in folder/wandb-id.

    Settings come from wandb's own environment variables.  With WANDB_MODE=offline nothing is sent,
    and each part of a resumed run has a folder of its own under folder/wandb; the newest one is
    complete, and the one for `wandb sync`.  Online, a resumed run continues under its id; steps
    that the server already has are not sent again, since they are the same.
    """

    def __init__(self, folder: Path, new: bool) -> None:
        import wandb

        file = folder / "wandb-id"
        if new or not file.exists():
            with replaced(file) as temporary:
                temporary.write_text(uuid.uuid4().hex[:16] + "\n", encoding="utf-8")
        name = file.read_text(encoding="utf-8").strip()
        options = {"dir": str(folder), "id": name, "resume": "allow", "name": folder.resolve().name}
        try:
            self._run = wandb.init(**options, settings=wandb.Settings(console="off"))
        except wandb.Error as error:
            reason = str(error).partition("\n")[0]
            raise mismatch("writer wandb", "a run that starts", f"the error {reason}") from error
        self._first = self._run.step  # the steps before it are on the server

    def write(self, step: int, values: dict[str, float]) -> None:
        if step >= self._first:
            self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Kind(NamedTuple):
    """A writer, and the package that it imports."""

    package: str
    open: Callable[[Path, bool], Writer]


WRITERS = {"tensorboard": Kind("tensorboardX", TensorBoard), "wandb": Kind("wandb", WandB)}


def check_writers(writers: Any) -> list[str]:
    """The names of writers as a list; ValueError unless they and their packages exist."""
    names = listed("writers", writers, "several names of writers")
    for name in names:
        check_choice("writers", name, tuple(WRITERS))
        package = WRITERS[name].package
        try:
            importlib.import_module(package)
        except ImportError as error:
            expected = f"the package {package} (pip install {package})"
            raise mismatch(f"writer {name}", expected, "none that can be imported") from error
    return names

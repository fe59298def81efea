"""SIGINT (Ctrl-C) and SIGTERM as a request to stop, which a run honours after saving."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Interrupt:
    """`signal` is the number of the signal received; None before."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name


@contextmanager
def interruptible(notice: str = "") -> Iterator[Interrupt]:
    """Within the block, the first SIGINT or SIGTERM is recorded and `notice` written to stderr.

    The caller polls Interrupt.signal and stops.  After the first signal, and after the block, the
    previous handlers are restored, so a second signal acts as usual: KeyboardInterrupt for SIGINT,
    termination for SIGTERM.  An ignored signal stays ignored.  Only the main thread can handle
    signals: in other threads this does nothing.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {
        n: handler for n, handler in handlers.items() if handler not in (None, signal.SIG_IGN)
    }

    def note(number: int, frame: object) -> None:
        interrupt.signal = number
        restore()
        if notice:
            with suppress(OSError):  # a closed stderr must not end the run
                # print is not safe in a handler
                os.write(2, f"\n{signal.Signals(number).name}: {notice}\n".encode())

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in before:
            signal.signal(number, note)
        yield interrupt
    finally:
        restore()

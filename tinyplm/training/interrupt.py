"""SIGINT (control-C) and SIGTERM: a wish to stop that a run can honour when it has saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Interrupt:
    """`signal` is the number of the signal that came, None so far."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name


@contextmanager
def interruptible(notice: str = "") -> Iterator[Interrupt]:
    """Inside, the first SIGINT or SIGTERM is only noted, and `notice` written to stderr; the caller looks and stops.

    With that the handlers that were there before are back, so a second signal does what it always does: KeyboardInterrupt for
    SIGINT, the end of the process for SIGTERM.  They are back after the block as well.  A signal that was ignored stays ignored.
    Only the main thread can handle signals: in another one this does nothing.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def note(number: int, frame: object) -> None:
        interrupt.signal = number
        restore()
        if notice:
            with suppress(OSError):  # a closed stderr is no reason to lose a run
                os.write(2, f"\n{signal.Signals(number).name}: {notice}\n".encode())  # print is not safe in a handler

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in before:
            signal.signal(number, note)
        yield interrupt
    finally:
        restore()

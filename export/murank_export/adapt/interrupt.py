"""Ctrl-C between two steps, never in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupt:
    """Whether Ctrl-C was pressed."""

    asked = False

    def anywhere(self, machine: Any) -> bool:
        """Whether it was pressed in any process of `machine` (an Accelerator)."""
        if machine.num_processes == 1:
            return self.asked
        import torch

        asked = torch.tensor(float(self.asked), device=machine.device)
        return float(machine.reduce(asked, "sum")) > 0


@contextlib.contextmanager
def caught_interrupt() -> Iterator[Interrupt]:
    """Note the first Ctrl-C; a second one interrupts at once. Of the main thread only."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT)

    def note(_number: int, _frame: FrameType | None) -> None:
        interrupt.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)

"""Simulated blocks whose threads take turns, each up to the next barrier.

Numba's simulator starts threads for each block, lets them fight for the interpreter and polls them.
These are started once, and are stricter: every second block runs them in reverse, so that a barrier
that is missing is missed each time; a thread that ends while others wait is an error, as it can be
on a GPU. One of them runs at a time, so all of them stay on one core, where handing over is cheap.
"""

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

kernel: Any = importlib.import_module("numba.cuda.simulator.kernel")
devicearray: Any = importlib.import_module("numba.cuda.simulator.cudadrv.devicearray")


class Thread(threading.Thread):
    """Does the work of one place of a block after another; where it is, kernels ask of it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.go = threading.Lock()  # released: it runs to the next barrier, or to its end
        self.then = self.go  # what it releases there
        self.work: Callable[[], None] | None = None  # None: at its end
        self.failed: Exception | None = None
        self.given_up = False
        self.go.acquire()
        self.start()

    def place(self, block: Any, thread: Any, work: Callable[[], None]) -> None:
        """Take a place in a block; nothing runs yet."""
        self.blockIdx, self.threadIdx = kernel.Dim3(*block), kernel.Dim3(*thread)
        self.work, self.failed, self.given_up = work, None, False

    def run(self) -> None:
        while True:
            self.go.acquire()
            try:
                if self.work is not None:
                    self.work()
            except Exception as error:  # noqa: BLE001 - raised again by the block
                self.failed = error
            self.work = None
            self.then.release()

    def syncthreads(self) -> None:
        """What a kernel's barrier calls, in this thread."""
        self.then.release()
        self.go.acquire()
        if self.given_up:
            raise RuntimeError("a thread waits at a barrier where another of its block has ended")


class Block(kernel.BlockManager):  # type: ignore[misc]
    """Stands for the simulator's; threads are kept for the next block."""

    _kept: list[Thread] = []  # noqa: RUF012 - of all blocks
    globals: dict[str, Any] = {}  # noqa: RUF012 - where the running kernel sees the simulator

    def run(self, grid_point: Any, *arguments: Any) -> None:
        Block.globals = self._f.__globals__
        arguments = tuple(bare(argument) for argument in arguments)
        places = list(np.ndindex(*self._block_dim))
        self._kept.extend(Thread() for _ in range(len(places) - len(self._kept)))
        threads = self._kept[: len(places)]
        for thread, place in zip(threads, places, strict=True):
            thread.place(grid_point, place, lambda: self._f(*arguments))
        if sum(grid_point) % 2:
            threads.reverse()
        while run_one_after_another(threads):
            pass
        waiting = [thread for thread in threads if thread.work is not None]
        for thread in waiting:
            thread.given_up = True
        run_one_after_another(waiting)
        for thread in sorted(threads, key=lambda thread: thread.given_up):  # the cause first
            if thread.failed is not None:
                raise thread.failed


def bare(argument: Any) -> Any:
    """Return the array in the simulator's two wrappers, which cost more than the work of kernels.

    They would let `array.field` stand for `array["field"]`, which no kernel here has.
    """
    wrapped = isinstance(argument, devicearray.FakeWithinKernelCUDAArray)
    return argument._item._ary if wrapped else argument


def run_one_after_another(threads: list[Thread]) -> bool:
    """Each to its next barrier; whether all of them came to one."""
    following = threading.Lock()
    following.acquire()
    end = following
    for thread in reversed(threads):
        thread.then, following = following, thread.go
    following.release()
    end.acquire()
    return all(thread.work is not None for thread in threads)


def call(function: Any, *arguments: Any) -> Any:
    """Run a kernel, or a function of one, without looking for the module `cuda` at each call."""
    known = function.fn.__globals__
    if function._device and (known is Block.globals or "cuda" not in known):
        return function.fn(*arguments)
    return _call(function, *arguments)


_call = kernel.FakeCUDAKernel.__call__


@contextmanager
def in_turn() -> Iterator[None]:
    """Let the simulator use these."""
    before, cores = kernel.BlockManager, os.sched_getaffinity(0)
    kernel.BlockManager, kernel.FakeCUDAKernel.__call__ = Block, call
    os.sched_setaffinity(0, {min(cores)})
    yield
    kernel.BlockManager, kernel.FakeCUDAKernel.__call__ = before, _call
    os.sched_setaffinity(0, cores)

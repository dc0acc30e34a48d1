"""Simulated blocks whose threads take turns, each up to the next barrier.

Numba's simulator starts threads for each block, lets them fight for the interpreter and polls them.
Here a thread is a generator of its kernel, which yields at each barrier: a twentieth of the time.
And stricter: every second block runs its threads in reverse, so that a barrier that is missing is
missed each time; a thread that ends while others wait is an error, as it can be on a GPU.
"""

import ast
import functools
import importlib
import inspect
import textwrap
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

kernel: Any = importlib.import_module("numba.cuda.simulator.kernel")
devicearray: Any = importlib.import_module("numba.cuda.simulator.cudadrv.devicearray")
Steps = Generator[None, None, None]
ENDED = object()


class Block(kernel.BlockManager):  # type: ignore[misc]
    """Stands for the simulator's."""

    globals: dict[str, Any] = {}  # noqa: RUF012 - where the running kernel sees the simulator

    def run(self, grid_point: Any, *arguments: Any) -> None:
        Block.globals = self._f.__globals__
        steps, here = steps_of(self._f), threading.current_thread()
        arguments = tuple(bare(argument) for argument in arguments)
        places = [kernel.Dim3(*place) for place in np.ndindex(*self._block_dim)]
        if sum(grid_point) % 2:
            places.reverse()
        here.blockIdx = kernel.Dim3(*grid_point)  # type: ignore[attr-defined] # kernels ask it
        threads = [(place, steps(*arguments)) for place in places]
        while threads:
            waiting = []
            for place, thread in threads:
                here.threadIdx = place  # type: ignore[attr-defined]
                if next(thread, ENDED) is not ENDED:
                    waiting.append((place, thread))
            if 0 < len(waiting) < len(threads):
                raise RuntimeError("a thread waits at a barrier where another has ended")
            threads = waiting


@functools.cache
def steps_of(function: Callable[..., Any]) -> Callable[..., Steps]:
    """Return the function as a generator function that yields where it had a barrier."""
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    barriers = Barriers(function.__globals__)
    (made,) = barriers.visit(ast.increment_lineno(tree, first - 1)).body
    made.decorator_list = []
    made.returns = None
    made.body.append(ast.parse("if False:\n    yield").body[0])  # where there is no barrier, too
    named = ast.parse(f"def near({', '.join(barriers.called)}):\n    return {function.__name__}")
    named.body[0].body.insert(0, made)  # type: ignore[attr-defined]
    code = compile(ast.fix_missing_locations(named), str(inspect.getsourcefile(function)), "exec")
    found: dict[str, Any] = {}
    exec(code, function.__globals__, found)  # noqa: S102 - a kernel's own source
    steps: Callable[..., Steps] = found["near"](**barriers.called)
    return steps


class Barriers(ast.NodeTransformer):
    """Lets a function yield at barriers, and at those of the device functions that it calls."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.called: dict[str, Callable[..., Steps]] = {}

    def visit_Call(self, call: ast.Call) -> ast.AST:
        self.generic_visit(call)
        name = ast.unparse(call.func)
        if name == "cuda.syncthreads":
            return ast.Yield()
        function = self.names.get(name)
        if not isinstance(function, kernel.FakeCUDAKernel) or not has_barrier(function.fn):
            return call
        self.called[name] = steps_of(function.fn)
        return ast.YieldFrom(call)


def has_barrier(function: Callable[..., Any]) -> bool:
    """Whether it calls one itself."""
    return "syncthreads" in function.__code__.co_names


def bare(argument: Any) -> Any:
    """Return the array in the simulator's two wrappers, which cost more than the work of kernels.

    They would let `array.field` stand for `array["field"]`, which no kernel here has.
    """
    wrapped = isinstance(argument, devicearray.FakeWithinKernelCUDAArray)
    return argument._item._ary if wrapped else argument


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
    before = kernel.BlockManager
    kernel.BlockManager, kernel.FakeCUDAKernel.__call__ = Block, call
    yield
    kernel.BlockManager, kernel.FakeCUDAKernel.__call__ = before, _call

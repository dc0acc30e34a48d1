# mypy: disable-error-code="misc"
"""Numba's decorator, and its cache on disk where that can be had.

A cache may have no place, be read-only (filled when an image was built) or be damaged (power cut):
kernels are then compiled in each process, which is said once.
"""

import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numba import config, njit
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numpy.typing import NDArray

from murank_kernels.loops.compiling import compiling_begins, compiling_ends

Function = TypeVar("Function", bound=Callable[..., Any])
_caches: list[Any] = []  # of every kernel that has one
_warned = False


@overload
def compiled(function: Function, /) -> Function: ...
@overload
def compiled(*, fastmath: set[str]) -> Callable[[Function], Function]: ...
def compiled(function: Any = None, /, **options: Any) -> Any:
    """Compile a function at its first call; decorates with or without options of `numba.njit`."""
    if function is None:
        return partial(_compiled, **options)
    return _compiled(function)


def _compiled(function: Any, **options: Any) -> Any:
    dispatcher = njit(nogil=True, **options)(function)
    try:
        dispatcher._cache = _KernelCache(function)
        _caches.append(dispatcher._cache)
    except (RuntimeError, OSError) as error:  # no folder that could be written to
        _warn_once(error)
    return dispatcher


def cache_folders() -> list[Path]:
    """Where compiled kernels are kept; empty: nowhere."""
    return sorted({Path(cache.cache_path) for cache in _caches})


class _Memory:
    """Shows an array's memory as one that may be written to."""

    def __init__(self, array: NDArray[Any]) -> None:
        shown = array.__array_interface__
        self.__array_interface__ = {**shown, "data": (shown["data"][0], False)}
        self._array = array  # lives as long as what is made of this


def to_read(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array, without a copy, for kernels that only read it.

    To Numba a read-only array is of another type, and kernels would be compiled for it anew.
    """
    return array if array.flags.writeable else np.asarray(_Memory(array))


class _ReadOnlyLocator:
    """Finds a cache that is there and cannot be written to, which Numba passes over."""

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        """Return the locator of Numba's whose folder holds kernels, if one does."""
        given, *usual = CompileResultCacheImpl._locator_classes[:3]  # and in the tree, of the user
        for kind in (given, *usual) if config.CACHE_DIR else usual:
            locator = kind(function, file)
            if any(Path(locator.get_cache_path()).glob("*.nbi")):
                return locator
        return None


class _Places(CompileResultCacheImpl):
    _locator_classes = [*CompileResultCacheImpl._locator_classes, _ReadOnlyLocator]  # noqa: RUF012


class _KernelCache(FunctionCache):
    """Numba's cache of a function, whose troubles cost time and nothing else."""

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file gives rise to
            _warn_once(error)
            with contextlib.suppress(Exception):
                self.flush()  # begins anew: a damaged index would refuse what is compiled now
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001 - the same
            _warn_once(error)


class _Compiling(event.Listener):
    """Hears when Numba compiles, which it does not where a kernel is in its cache."""

    def on_start(self, _event: Any) -> None:
        compiling_begins()

    def on_end(self, _event: Any) -> None:
        compiling_ends()


event.register("numba:compile", _Compiling())


def _warn_once(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "kernels are compiled anew in each process, as no cache of them can be used "
            f"({repr(str(error))[1:-1]}); set NUMBA_CACHE_DIR to a folder that can be written to",
            RuntimeWarning,
            stacklevel=3,
        )

"""Compiled kernels, kept for processes that cannot keep their own."""

import warnings
from pathlib import Path

from murank._exceptions import MachineError


def compile_kernels() -> list[Path]:
    """Compile every kernel and return the folders that keep them.

    Raises
    ------
    MachineError
        They cannot be kept.
    """
    with warnings.catch_warnings(record=True) as troubles:
        warnings.simplefilter("always")
        from murank_kernels._compile_all import compile_all
        from murank_kernels.loops.compiled import cache_folders

        compile_all()
    refused = [one for one in troubles if issubclass(one.category, RuntimeWarning)]
    if refused:
        raise MachineError(str(refused[0].message))
    return cache_folders()

"""Graphs that are traced once for all exports of a session which trace the same module."""

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class TracedOnce:
    """`export_vision` or `export_decoder`, with its files kept.

    A graph is made of a module and the sizes of its inputs alone: where both are the same, to the
    last bit of the weights, the files are copied. Layout, prompt, tau, encoder: none is in them.
    """

    def __init__(self, trace: Callable[..., None], store: Path) -> None:
        self.trace, self.store = trace, store

    def __call__(self, module: nn.Module, file: Path, *sizes: Any, **more: Any) -> None:
        """Write `file` and the weights beside it."""
        kept = self.store / digest(module, sizes, more)
        if not kept.exists():
            self.trace(module, file, *sizes, **more)
            kept.mkdir()
            for written in file.parent.glob(f"{file.name}*"):
                shutil.copyfile(written, kept / written.name)
        for saved in kept.iterdir():
            shutil.copyfile(saved, file.with_name(saved.name))


def digest(module: nn.Module, *sizes: Any) -> str:
    """Return what tells a module from another: structure, settings, weights."""
    pickled = io.BytesIO()
    torch.save(module, pickled)
    return hashlib.sha256(pickled.getvalue() + repr(sizes).encode()).hexdigest()

"""The folder of a training: what it is, how far it came, what came out.

adapter/        the best adapter so far, a PEFT folder
log.jsonl       a line a step, and a line a validation
checkpoint/     latest.pt: all that it takes to go on; one file, so that it is whole or absent
training.json   what is trained on what; the result once there is one
"""

import contextlib
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from murank import InputError, OutputError
from murank.files.atomic import (
    Writer,
    abandoned,
    check_writable,
    made_folder,
    readable_errors,
    sole_writer,
    sweep,
    write_files,
)
from murank_export.sources.loading import read_json

TRAINING, LOG, ADAPTER, CHECKPOINT, LATEST = (
    "training.json", "log.jsonl", "adapter", "checkpoint", "latest.pt",
)  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """A training between two steps. Nothing else is random or remembered."""

    step: int  # steps done
    seconds: float  # spent so far
    evaluations: list[dict[str, Any]]  # the first: before training
    best: dict[str, Any] | None  # the evaluation of what is in adapter/
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


class RunFolder:
    """Reads and writes the folder of a training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Callable[[], object] | None = None

    def look(self, deciding: Mapping[str, Any], *, overwrite: bool) -> Saved | None:
        """Return the checkpoint to go on from, or None to begin; nothing is written.

        Raises
        ------
        OutputError
            The folder is in use: by something else, or by a training that is finished.
        InputError
            An unfinished training is of other settings, or its checkpoint is damaged.
        """
        check_writable(self.path)
        if not self.path.exists() or not self._names():
            return None
        if not (self.path / TRAINING).is_file():
            raise OutputError(f"{self.path} is no folder of a training; pass another name")
        before = read_json(self.path / TRAINING)
        if before.get("result") is not None:
            if not overwrite:
                raise OutputError(
                    f"{self.path} holds a finished training; pass --overwrite or another name"
                )
            return None
        changed = _changes(before.get("deciding"), deciding)
        if changed and not overwrite:
            raise InputError(
                f"{self.path} holds an unfinished training of other settings: {changed}; run it "
                "as it was to go on, or pass --overwrite or another name"
            )
        if changed:
            return None
        try:
            return self._load()
        except InputError:
            if overwrite:
                return None
            raise

    def begin(self, record: Mapping[str, Any], saved: Saved | None) -> None:
        """Make the folder that of this training: empty, or as it was at the checkpoint.

        Raises
        ------
        OutputError
            Another process trains in it.
        """
        self._take()
        for folder in (self.path, self.path / ADAPTER, self.path / CHECKPOINT):
            sweep(folder)
        if saved is None:
            # First: it belongs to the training.json that is there, and to no other.
            self._remove(CHECKPOINT, LATEST)
            self.write("", {TRAINING: _json(record)})  # a finished one is finished no more
            self._remove(ADAPTER, "adapter_*")
        kept = self._log_until(-1 if saved is None else saved.step)
        self.write("", {TRAINING: _json(record), LOG: lambda file: file.write(kept)})

    def release(self) -> None:
        """Let others train in the folder; nothing happens if `begin` was not reached."""
        if self._lock is not None:
            self._lock()

    def _names(self) -> set[str]:
        """What is in the folder, but for what killed processes have left."""
        return {path.name for path in self.path.iterdir()} - set(abandoned(self.path))

    def _remove(self, folder: str, pattern: str) -> None:
        """Remove files of a folder of this one, and make that durable."""
        names = [file.name for file in (self.path / folder).glob(pattern)]
        if names:
            write_files(self.path / folder, {}, remove=names)

    def _take(self) -> None:
        """Keep others out until `release`, or as long as this object lives."""
        with readable_errors(self.path), made_folder(self.path):  # parents are its owner's, too
            pass
        stack = contextlib.ExitStack()
        stack.enter_context(sole_writer(self.path))
        self._lock = weakref.finalize(self, stack.close)

    def write(self, folder: str, files: Mapping[str, Writer]) -> None:
        """Write files of a folder of this one."""
        write_files(self.path / folder, files)

    def save(self, saved: Saved) -> None:
        """Replace the checkpoint."""
        self.write(CHECKPOINT, {LATEST: lambda file: torch.save(vars(saved), file)})

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the result; from here on the training is finished."""
        self.write("", {TRAINING: _json(record)})

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        with readable_errors(self.path), (self.path / LOG).open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def _load(self) -> Saved | None:
        file = self.path / CHECKPOINT / LATEST
        if not file.exists():
            return None
        try:
            return Saved(**torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:
            # Damaged bytes are opcodes to torch's reader, which raises whatever those come to.
            raise InputError(f"{file} is damaged; pass --overwrite to begin again") from error

    def _log_until(self, step: int) -> bytes:
        file = self.path / LOG
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return b"".join(line for line in lines if _step_of(line) <= step)


def _changes(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return "it does not say which"
    now = json.loads(json.dumps(now))
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in names)


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")  # cut off when the process was killed


def _json(record: Mapping[str, Any]) -> Writer:
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    return lambda file: file.write(text.encode())

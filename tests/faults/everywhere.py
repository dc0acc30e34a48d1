"""A command that is stopped at every step by which it changes files."""

import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from faults.shim import CAN_FAIL, KILLED, Ended, Shim, Step, in_child

from murank import MurankError

Contents = dict[str, Any]  # path -> what is in the file
ALL = os.environ.get("FAULTS") == "all"  # every step of slow commands, too
FOLDER = "a folder"
REFUSED = "refused"  # by a reader, in a sentence
TRIED: dict[str, Counter[str]] = {}  # test -> where it was stopped
_ASIDE = re.compile(r"(^|/)\.murank-([0-9a-f]{16}|old)-")


@dataclass(frozen=True)
class Command:
    """What is run, and where."""

    root: Path  # of all that it changes
    run: Callable[[], int]  # exit code
    redo: Callable[[], int] | None = None  # where the next run finds a finished one, and says so
    seal: str | None = None  # where it is, the files beside it belong together
    kept: str = r"(?!)"  # pattern of what an unfinished run may leave, for the next
    changing: Sequence[str] = ()  # keys of JSON that differ between two runs
    growing: str = r"(?!)"  # pattern of what each run adds to by names of its own: not compared
    varying: str = r"(?!)"  # pattern of files that differ in content between two runs
    is_durable: bool = True  # what has taken its place may not be lost, and nothing may be missing
    most: int = 5  # steps to try, unless FAULTS=all
    failing: Sequence[str] = CAN_FAIL
    read: Callable[[], object] | None = None  # what those find who use what was written
    between: Sequence[object] = ()  # what they may find beside what was and what will be there


def coded(run: Callable[[], object]) -> Callable[[], int]:
    """Let a function end as the command line does."""

    def coded_run() -> int:
        try:
            run()
        except MurankError as error:
            print(f"murank: error: {error}", file=sys.stderr)
            return error.exit_code
        return 0

    return coded_run


def check_every_step(command: Command, spare: Path) -> None:
    """Stop the command at each of its steps, look at what is there, and run it again."""
    before, read = _contents(command), _read(command)
    if command.root.exists():
        shutil.copytree(command.root, spare, symlinks=True)
    command.run()  # imports and compiles what it takes before the first fork
    _restore(command.root, spare)
    whole = in_child(command.run, Shim(command.root))
    assert whole.code == 0, whole.err
    after = _contents(command)
    allowed = (REFUSED, read, _read(command), *command.between)
    assert command.read is None or allowed[2] != REFUSED
    assert whole.steps, "it writes nothing"
    assert not _asides(after)
    if command.is_durable:
        assert_durable(whole.steps)
    tried = TRIED.setdefault(_test(), Counter())
    for number, kill in _stops(whole.steps, command):
        _restore(command.root, spare)
        ended = in_child(command.run, Shim(command.root, number, kill=kill))
        where = f"{'killed' if kill else 'failed'} at {number}: {whole.steps[number]}\n{ended.err}"
        _check_end(command, ended, after, kill, where)
        _check_files(command, before, after, kill, where)
        assert _read(command) in allowed, where
        if kill or ALL:  # what is there after a failure is less than after a kill
            _check_next(command, after, where)
        tried[f"{'kill before' if kill else 'fail'} {whole.steps[number].kind}"] += 1


def assert_durable(steps: Sequence[Step]) -> None:
    """Nothing takes its place before it is on the disk, and then its folder is synced."""
    for number, step in enumerate(steps):
        if step.kind not in ("rename", "exchange") or not _ASIDE.search(step.path):
            continue
        if _ASIDE.search(step.to):
            continue  # out of the way
        dirty = _unsynced(steps[:number], step.path)
        assert not dirty, f"{step} before {dirty} was synced"
        parent = str(Path(step.to).parent)
        assert any(one.kind == "fsync" and one.path == parent for one in steps[number:]), step


def _unsynced(steps: Sequence[Step], path: str) -> set[str]:
    dirty = set()
    for step in steps:
        if step.path != path and not step.path.startswith(f"{path}/"):
            continue
        if step.kind in ("create", "write", "mkdir"):
            dirty.add(step.path)
        elif step.kind == "fsync":
            dirty.discard(step.path)
        elif step.kind in ("remove", "rmdir"):
            dirty = {one for one in dirty if one != step.path}
    return dirty


def _stops(steps: Sequence[Step], command: Command) -> Iterator[tuple[int, bool]]:
    stops = [(n, False) for n, step in enumerate(steps) if step.kind in command.failing]
    stops += [(n, True) for n in range(len(steps))]
    stride = 1 if ALL else max(1, -(-len(stops) // command.most))
    first = crc32(_test().encode()) % stride  # two tests of a verb try other steps
    yield from stops[first:-1:stride]
    yield stops[-1]


def _test() -> str:
    return os.environ["PYTEST_CURRENT_TEST"].split("::")[-1]


def _read(command: Command) -> object:
    try:
        return None if command.read is None else command.read()
    except MurankError:
        return REFUSED


def _check_end(command: Command, ended: Ended, after: Contents, kill: bool, where: str) -> None:
    found = _contents(command)
    if kill:
        assert ended.code == KILLED, where
        return
    if ended.code == 0:  # it could do without
        assert found == after or not command.is_durable, where
        assert all(after.get(path) == value for path, value in found.items()), where
    else:
        assert ended.code == 2, where
        assert ended.err.splitlines()[-1].startswith("murank: error: "), where
        assert "Traceback" not in ended.err, where
    assert not _asides(found), where


def _check_files(
    command: Command, before: Contents, after: Contents, kill: bool, where: str
) -> None:
    found = {
        path: value for path, value in _contents(command).items()
        if not _ASIDE.search(path) and not re.search(command.kept, path)
        and not (kill and value == FOLDER)
    }  # fmt: skip
    for path, value in found.items():
        assert value in (before.get(path), after.get(path)), f"{path}: {where}"
    if command.seal is None or command.seal not in found:
        return
    assert _group(command, found) in (_group(command, before), _group(command, after)), where


def _group(command: Command, found: Contents) -> Contents:
    beside = f"{Path(command.seal or '').parent}/".removeprefix("./")
    return {
        path: value for path, value in _files(found).items()
        if path.startswith(beside) and not re.search(command.kept, path)
    }  # fmt: skip


def _check_next(command: Command, after: Contents, where: str) -> None:
    """The next run does what an undisturbed one does, or says that it has been done."""
    again = in_child(command.run, Shim(command.root))
    if again.code == 2 and command.redo is not None:
        assert "--overwrite" in again.err, where
        again = in_child(command.redo, Shim(command.root))
    found = _contents(command)
    assert again.code == 0, f"{where}{again.err}"
    assert _files(found) == _files(after), where


def _files(found: Contents) -> Contents:
    return {path: value for path, value in found.items() if value != FOLDER}


def _asides(found: Contents) -> list[str]:
    return [path for path in found if _ASIDE.search(path)]


def _restore(root: Path, spare: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    if spare.exists():
        shutil.copytree(spare, root, symlinks=True)


def _contents(command: Command) -> Contents:
    return {
        name: _content(path, command)
        for path in sorted(command.root.rglob("*"))
        if not re.search(command.growing, name := path.relative_to(command.root).as_posix())
    }


def _content(path: Path, command: Command) -> Any:
    if path.is_dir():
        return FOLDER
    if re.search(command.varying, path.as_posix()):
        return "a file"
    raw, changing = path.read_bytes(), command.changing
    if not changing or path.suffix not in (".json", ".jsonl"):
        return raw
    try:
        lines = [raw] if path.suffix == ".json" else raw.splitlines()
        return [_without(json.loads(line), changing) for line in lines]
    except ValueError:
        return raw


def _without(data: Any, keys: Sequence[str]) -> Any:
    if isinstance(data, dict):
        return {key: _without(item, keys) for key, item in data.items() if key not in keys}
    return [_without(item, keys) for item in data] if isinstance(data, list) else data

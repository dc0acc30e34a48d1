"""Runs cases in a forked child, which is told apart from a hang, a crash and a flood of memory."""

import gc
import json
import os
import random
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutate import BYTES
from fuzz.target import Target

from murank import MurankError

SECONDS = 10  # of CPU time, and three times that of the clock: generous, since machines differ
MIB = 600  # of memory, beyond what the process had
_ROOM = 4 << 30  # bytes of addresses beyond that: what asks for more gets a MemoryError
_BATCH = 1000  # cases of one child
_LONGEST = 4096  # characters of a message: it is one sentence


@dataclass(frozen=True)
class Failure:
    """A case that ended as none may."""

    target: str
    seed: int
    why: str
    data: bytes


def case(target: Target, seed: int) -> bytes:
    """Return the content of the file of a case, which its seed determines; 0 changes nothing."""
    if seed == 0:
        return target.seeds[0]
    chance = random.Random(f"{target.name} {seed}")  # noqa: S311 - not for secrets
    data = chance.choice(target.seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, at names that are there twice
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            data = _changed(target, data, chance)
    return data


def _changed(target: Target, data: bytes, chance: random.Random) -> bytes:
    try:
        return chance.choice(target.mutations)(data, chance)
    except Exception:  # noqa: BLE001 - json, zipfile, zlib and struct have kinds of their own
        return chance.choice(BYTES)(data, chance)  # it has that structure no more


def run(target: Target, seeds: Iterable[int], folder: Path) -> tuple[Counter[str], list[Failure]]:
    """Run cases; return how often they ended in what way, and those that failed."""
    outcomes: Counter[str] = Counter()
    failures, left = [], list(seeds)
    target.warm()
    while left:
        ended = _in_child(target, left[:_BATCH], folder)
        left = left[len(ended) :]
        for seed, outcome, why in ended:
            outcomes[outcome] += 1
            if why:
                failures.append(Failure(target.name, seed, why, case(target, seed)))
    return outcomes, failures


def _in_child(target: Target, seeds: list[int], folder: Path) -> list[tuple[int, str, str]]:
    """Return seed, outcome and what is wrong, of all or of the first ones."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(target, seeds, folder, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        told = [json.loads(line) for line in lines]
    os.waitpid(child, 0)
    ended = [(seed, outcome, why) for seed, outcome, why in told if outcome != "started"]
    started = {seed for seed, outcome, _ in told if outcome == "started"}
    why = f"the process died, or was stopped after {3 * SECONDS} s"
    lost = started - {seed for seed, _, _ in ended}
    return [*ended, *((seed, "died", why) for seed in lost)]


def _work(target: Target, batch: list[int], folder: Path, writing: int) -> None:
    """Run cases until one takes too much, and end."""
    gc.freeze()  # else the collector would touch, and so copy, all of the parent's memory
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, hard))
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Reading .*created on Python 2")  # of NumPy, and true
    before = _peak_mib()

    def tell(seed: int, outcome: str, why: str = "") -> None:
        os.write(writing, (json.dumps([seed, outcome, why]) + "\n").encode())

    try:
        for seed in batch:
            tell(seed, "started")
            signal.alarm(3 * SECONDS)
            outcome, why = _one(target, seed, folder)
            signal.alarm(0)
            if _peak_mib() - before > MIB:
                tell(seed, "memory", f"{outcome}, with {_peak_mib() - before} MiB more memory")
                break  # the peak does not come down again
            tell(seed, outcome, why)
    finally:
        os._exit(0)


def _one(target: Target, seed: int, folder: Path) -> tuple[str, str]:
    """Return the outcome, and what is wrong with it, if anything is."""
    place = folder / f"{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    target.prepare(place)
    file = place / target.file
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(case(target, seed))
    start = time.process_time()
    outcome, why = "answer", ""
    try:
        target.read(file)
    except MurankError as error:
        outcome, why = type(error).__name__, _fault_of(str(error))
    except BaseException:  # noqa: BLE001 - this is what is looked for
        outcome, why = "traceback", traceback.format_exc()[-3000:]
    spent = time.process_time() - start
    if spent > SECONDS:
        return "time", f"{outcome} after {spent:.1f} s of CPU time"
    return outcome, why


def _fault_of(message: str) -> str:
    """Return what is wrong with a message that is shown to the user."""
    if not message or len(message) > _LONGEST:
        return f"a message of {len(message)} characters: {message[:300]!r}"
    if not message.isprintable():
        return f"a message that the terminal acts on: {message[:300]!r}"
    return ""


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

"""Who does a job's work: this process, several of this machine, or Ray."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from murank._exceptions import InputError
from murank.backends.providers import may_take_gpu
from murank.crew import Crew, Here, Make, Processes, RayActors
from murank.jobs.engine_work import EngineWork, work_elsewhere
from murank.jobs.lazy_engine import LazyEngine
from murank.machine.hardware import visible_gpus
from murank_kernels.machine.cores import usable_cores

_MOST = 256


@dataclass(frozen=True)
class Workers:
    """Who was asked for. Neither: this process."""

    processes: int | None = None
    ray: str | None = None  # address of a cluster; "": a new one on this machine

    @classmethod
    def parse(cls, text: str) -> "Workers":
        """Read N, ray or ray:HOST:PORT. Raises InputError for what is none of them."""
        if re.fullmatch(r"[1-9][0-9]{0,3}", text) and int(text) <= _MOST:
            return cls(processes=int(text))
        if text == "ray":
            return cls(ray="")
        if re.fullmatch(r"ray:[^:\s/]+:[0-9]{1,5}", text):
            return cls(ray=text.removeprefix("ray:"))
        raise InputError(f"must be a number up to {_MOST}, ray, or ray:HOST:PORT; got {text!r}")


@contextmanager
def crew_of(workers: Workers, engine: LazyEngine) -> Iterator[Crew]:
    """Yield who works; nobody is started before there is something to do."""
    crew = _crew(workers, engine)
    try:
        yield crew
    finally:
        crew.close()


def _crew(workers: Workers, engine: LazyEngine) -> Crew:
    if workers.ray is not None:
        threads = engine.options.get("threads") or 1
        on_gpus = may_take_gpu(engine.options.get("providers", "auto"))
        # What feeds a GPU decodes with more CPUs than Ray is told of.
        make = work_elsewhere(engine, threads=threads, cores=None if on_gpus else threads)
        return RayActors(make, workers.ray, cpus=threads, on_gpus=on_gpus)
    if workers.processes is None:
        return Here(lambda: EngineWork(engine))
    share = _threads(workers.processes)
    threads = engine.options.get("threads") or share
    make = work_elsewhere(engine, threads=threads, cores=share)
    return processes(make, workers.processes, threads)


def processes(make: Make, count: int, threads: int | None = None) -> Processes:
    """Return so many processes for any work, each with its share of the cores."""
    share = threads or _threads(count)
    return Processes(make, count, [_environment(i, share) for i in range(count)])


def _threads(count: int) -> int:
    return max(1, usable_cores() // count)


def _environment(number: int, threads: int) -> Mapping[str, Any]:
    """Return the variables of one process: its share of the cores, and a GPU of its own."""
    variables = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
    gpus = visible_gpus()
    if len(gpus) > 1:
        variables["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return variables

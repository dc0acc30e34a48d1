"""The examination: machine, packages, and one real run on each backend."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from murank.doctor import advice as _advice
from murank.doctor.child import ask
from murank.doctor.engine_trial import EngineTry, check_first, try_engine
from murank.doctor.machine_report import MachineReport, this_machine
from murank.doctor.pace import what_is_timed
from murank.doctor.packages import conflicts, installed
from murank.machine.telemetry import is_off

State = Literal["works", "fails", "absent"]  # absent: nothing is there that could fail
Progress = Callable[[str], None]
_NEEDED = ("kernels-cpu", "onnxruntime-cpu")


@dataclass(frozen=True)
class Trial:
    """One backend."""

    name: str  # of the probe
    title: str
    state: State
    said: str
    remedy: str | None  # None: nothing is to be done


@dataclass(frozen=True)
class Examination:
    """What was found."""

    machine: MachineReport
    packages: dict[str, str | None]
    conflicts: list[str]
    trials: tuple[Trial, ...]
    engine: tuple[EngineTry, ...] | None  # None: none was given
    timed: str | None = None  # what the engine's query_ms are of
    telemetry_off: bool = True  # of onnxruntime

    @property
    def cpu_works(self) -> bool:
        """Whether what everybody needs works."""
        return all(one.state == "works" for one in self.trials if one.name in _NEEDED)

    @property
    def engine_runs(self) -> bool:
        """Whether the engine, if one was given, runs in any way."""
        return self.engine is None or any(one.runs for one in self.engine)


def examine(
    engine: Path | None = None, plans: Path | None = None, *, progress: Progress = lambda _: None
) -> Examination:
    """Examine this machine, and whether an engine can run on it.

    Parameters
    ----------
    engine
        Its folder; its golden images are replayed where it can run, and it is timed for five
        seconds. None: no engine.
    plans
        Where TensorRT plans are kept; None: in the user's cache folder.
    progress
        Told what is being tried.

    Raises
    ------
    InputError
        The folder is no whole engine.
    """
    manifest = None if engine is None else check_first(engine)
    progress("machine")
    machine, packages = this_machine(), installed()
    trials = []
    for job in _jobs(machine, packages):
        if job.missing is None:
            progress(job.title)
        trials.append(job.trial())
    tries, timed = None, None
    if engine is not None and manifest is not None:
        works = {one.name for one in trials if one.state == "works"}
        tries = try_engine(engine, manifest, machine, works, progress, plans)
        timed = what_is_timed(manifest)
    return Examination(
        machine, packages, conflicts(packages), tuple(trials), tries, timed, telemetry_off=is_off()
    )


@dataclass(frozen=True)
class _ToTry:
    """A trial to be made."""

    name: str
    title: str
    missing: str | None  # why it need not be tried; None: try it
    remedy: str

    def trial(self) -> Trial:
        if self.missing is not None:
            return Trial(self.name, self.title, "absent", self.missing, self.remedy)
        answer = ask(self.name)
        if answer.works:
            return Trial(self.name, self.title, "works", answer.said, None)
        return Trial(self.name, self.title, "fails", answer.said, self.remedy)


def _jobs(machine: MachineReport, packages: dict[str, str | None]) -> list[_ToTry]:
    no_onnxruntime = None
    if not (packages["onnxruntime"] or packages["onnxruntime-gpu"]):
        no_onnxruntime = "onnxruntime is not installed"
    cpu = [
        _ToTry("kernels-cpu", "kernels on the CPU", None, "reinstall murank, numpy and numba"),
        _ToTry(
            "onnxruntime-cpu", "onnxruntime on the CPU", no_onnxruntime,
            _advice.for_onnxruntime(machine, packages),
        ),
    ]  # fmt: skip
    openvino = _ToTry(
        "openvino", "OpenVINO on the CPU", _lacking(packages, ["openvino"]),
        _advice.for_openvino(packages),
    )  # fmt: skip
    return [*cpu, *_gpu_jobs(machine, packages), openvino]


def _gpu_jobs(machine: MachineReport, packages: dict[str, str | None]) -> list[_ToTry]:
    cuda = _advice.for_cuda_provider(machine, packages)
    jobs = [
        ("onnxruntime-cuda", "onnxruntime on the GPU", ["onnxruntime-gpu"], cuda),
        (
            "onnxruntime-tensorrt", "onnxruntime with TensorRT", ["onnxruntime-gpu"],
            _advice.for_tensorrt(machine, packages),
        ),
        (
            "kernels-cuda", "kernels on the GPU", ["numba-cuda", "cupy"],
            _advice.for_cuda_kernels(machine, packages),
        ),
        (
            "tensorrt", "TensorRT plans", [_any_tensorrt(packages), "pycuda"],
            _advice.for_tensorrt(machine, packages),
        ),
    ]  # fmt: skip
    if machine.why_no_gpu is not None:
        remedy = _advice.for_no_gpu(machine)
        return [_ToTry(name, title, machine.why_no_gpu, remedy) for name, title, _, _ in jobs]
    return [
        _ToTry(name, title, _lacking(packages, needed), remedy)
        for name, title, needed, remedy in jobs
    ]


def _any_tensorrt(packages: dict[str, str | None]) -> str:
    return (
        "tensorrt-rtx" if packages["tensorrt"] is None and packages["tensorrt-rtx"] else "tensorrt"
    )


def _lacking(packages: dict[str, str | None], needed: list[str]) -> str | None:
    lacking = [name for name in needed if packages[name] is None]
    return f"{' and '.join(lacking)} not installed" if lacking else None

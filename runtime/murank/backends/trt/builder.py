"""One ONNX graph to one plan."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError
from murank.backends.trt.api import TensorRT, first_error, make_logger
from murank.backends.trt.build_settings import BuildSettings
from murank.backends.trt.plan_target import PlanMachine, capability_name
from murank.backends.trt.profiles import Profile, Shape

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class MadePlan:
    """What TensorRT made."""

    content: Any  # bytes, or what looks like them
    timing_cache: bytes  # empty: none


def make_plan(
    machine: PlanMachine,
    file: Path,
    profiles: tuple[Profile, ...],
    settings: BuildSettings,
    *,
    timing_cache: bytes,
    progress: Progress,
    called: Path | None = None,
) -> MadePlan:
    """Parse a graph and build its plan, with types as they stand in the graph.

    `called` is the name of the file for messages.

    Raises
    ------
    InputError
        TensorRT does not know what the graph holds.
    MachineError
        The plan cannot be built here: too little memory, above all.
    """
    with nullcontext() if machine.gpu is None else machine.gpu.active():
        job = _GraphBuild(machine, file if called is None else called, progress)
        network = job.parse(file)
        config = job.configure(settings)
        for profile in profiles:
            job.add_profile(config, network, profile)
        return job.build(config, network, timing_cache)


class _GraphBuild:
    """The objects of one build; TensorRT wants them all alive until its end."""

    def __init__(self, machine: PlanMachine, file: Path, progress: Progress) -> None:
        self._machine, self._file = machine, file
        self._trt = machine.api.module
        self._logger = make_logger(machine.api)
        self._builder = self._trt.Builder(self._logger)
        self._parser: Any = None
        self._monitor = make_monitor(machine.api, progress)

    def parse(self, source: Path) -> Any:
        trt = self._trt
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        # Where there is no such flag, there are no other networks.
        network = self._builder.create_network(0 if flag is None else 1 << int(flag))
        self._parser = trt.OnnxParser(network, self._logger)
        if not self._parser.parse_from_file(str(source)):
            errors = [self._parser.get_error(i).desc() for i in range(self._parser.num_errors)]
            text = " ".join((errors or [first_error(self._logger)])[0].split())[:300]
            raise InputError(
                f"{self._file}: {self._machine.api.title} cannot read this graph ({text}); run it "
                "with providers='cuda', or export it with this murank again"
            )
        return network

    def configure(self, settings: BuildSettings) -> Any:
        trt, config = self._trt, self._builder.create_builder_config()
        if settings.workspace_mb is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb << 20)
        set_flag = config.set_flag if settings.tf32 else config.clear_flag
        set_flag(trt.BuilderFlag.TF32)  # set, unless it is cleared
        if self._machine.api.is_rtx:
            name = capability_name(self._machine.target.compute_capability)
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.__members__[name], 0)
        config.progress_monitor = self._monitor
        return config

    def add_profile(self, config: Any, network: Any, profile: Profile) -> None:
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        lengths = {one.name: tuple(one.shape) for one in inputs}
        if lengths.keys() != set(profile.shapes):
            differs = ", ".join(sorted(lengths.keys() ^ set(profile.shapes)))
            raise InputError(
                f"{self._file}: its inputs are not those of the manifest ({differs}); export the "
                "engine again"
            )
        made = self._builder.create_optimization_profile()
        for name, shapes in profile.shapes.items():
            asked = (shapes.least, shapes.usual, shapes.most)
            made.set_shape(name, *(_fitted(one, lengths[name]) for one in asked))
        if config.add_optimization_profile(made) < 0:
            raise self._failed(f"profile {profile.name} does not fit")

    def build(self, config: Any, network: Any, timing_cache: bytes) -> MadePlan:
        has_cache = self._machine.api.has_timing_cache
        cache = _set_timings(config, timing_cache) if has_cache else None
        self._logger.errors.clear()
        content = self._builder.build_serialized_network(network, config)
        if self._monitor.stopped is not None:
            raise self._monitor.stopped
        if content is None:
            raise self._failed("no plan could be built")
        # TensorRT wants the cache alive until now.
        return MadePlan(content, b"" if cache is None else bytes(memoryview(cache.serialize())))

    def _failed(self, what: str) -> MachineError:
        return MachineError(
            f"{self._file}: {what} by {self._machine.api.title} for "
            f"{self._machine.target.device}: {first_error(self._logger)}; if memory is short, pass "
            "a smaller candidates= or workspace_mb=, and stop what else uses the GPU"
        )


def _fitted(asked: Shape, lengths: Shape) -> Shape:
    """Return a shape with the lengths that a graph has fixed, such as one image a run."""
    pairs = zip(asked, lengths, strict=True)
    return tuple(fixed if fixed > 0 else length for length, fixed in pairs)


def _set_timings(config: Any, timing_cache: bytes) -> Any:
    """Let the build use and extend what earlier ones measured; return the cache."""
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        # Of another version or device: begin anew.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def make_monitor(api: TensorRT, progress: Progress) -> Any:
    """Return TensorRT's progress monitor, which calls `progress` and stops when that raises.

    An exception must not go through TensorRT's own frames: it is kept in `stopped`.
    """

    class Monitor(api.module.IProgressMonitor):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            api.module.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            del parent
            self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            try:
                total = self._steps.get(name, 0)
                progress(name, min(step + 1, total), total)
            except BaseException as error:  # noqa: BLE001 (Ctrl-C arrives here as well)
                self.stopped = error
            return self.stopped is None

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

    return Monitor()

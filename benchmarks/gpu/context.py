"""What a section is told, and what sections tell each other."""

import importlib.util
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gpu.rows import CannotRun

from murank.folder.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Context:
    """One run of the script, as a section sees it."""

    device: str  # "cuda"; "cpu" tries the script itself, on tiny inputs
    quick: bool  # fewer runs, no MSMT17 size
    run: Path  # folder of this run: rates and times
    work: Path  # folder of checkpoint and engine, kept between runs if asked for
    config: Path | None  # folder of the architecture; None: a made one
    precisions: tuple[Precision, ...] = ("fp16",)  # of the engines that are made and scored with

    @property
    def on_gpu(self) -> bool:
        """Whether this is no trial."""
        return self.device == "cuda"

    @property
    def model(self) -> str:
        """Name of the architecture that is scored with."""
        if self.config is not None:
            return self.config.resolve().name
        return "mid" if self.on_gpu else "tiny"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)


def read_context(line: str) -> Context:
    """Return what `to_json` wrote."""
    found = json.loads(line)
    for name in ("run", "work", "config"):
        found[name] = None if found[name] is None else Path(found[name])
    found["precisions"] = tuple(found["precisions"])
    return Context(**found)


@dataclass(frozen=True)
class Rates:
    """What the hardware does at its best, as measured; empty where it was not."""

    products: dict[str, float] = field(default_factory=dict)  # FLOP/s by dtype
    copy: float | None = None  # bytes read and written a second

    def product_seconds(self, flop: float, dtype: str) -> float | None:
        """Seconds that so many operations take in matrix products; None: no rate is known."""
        rate = self.products.get(dtype)
        return None if not rate else flop / rate

    def rerank_seconds(self, num_rows: int, dim: int) -> float | None:
        """Least time of an exact neighbour search over [N,D] float32 that keeps no N x N matrix.

        Half of the product of the features with themselves, and its distances written and read
        once; None: no rate is known.
        """
        product = self.product_seconds(float(num_rows) ** 2 * dim, "float32")
        if product is None or not self.copy:
            return None
        return product + 4.0 * num_rows**2 / self.copy


def write_rates(context: Context, rates: Rates) -> None:
    """Leave them for the sections that come after."""
    (context.run / "rates.json").write_text(json.dumps(asdict(rates)))


def read_rates(context: Context) -> Rates:
    """Return what was measured in this run."""
    file = context.run / "rates.json"
    return Rates(**json.loads(file.read_text())) if file.exists() else Rates()


def write_times(context: Context, times: dict[str, float]) -> None:
    """Leave the baselines' seconds a query for the sections that come after."""
    (context.run / "times.json").write_text(json.dumps(times))


def read_times(context: Context) -> dict[str, float]:
    """Return the baselines' seconds a query in this run."""
    file = context.run / "times.json"
    found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return found


def need(*modules: str) -> None:
    """Raise CannotRun if one of these is not installed. Nothing is imported."""
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if lacking:
        raise CannotRun(f"{' and '.join(lacking)} not installed")


def need_driver() -> None:
    """Raise CannotRun where there is no NVIDIA driver or GPU."""
    from murank import MachineError
    from murank.doctor.gpus import gpus

    try:
        found = gpus()["gpus"]
    except MachineError as error:
        raise CannotRun(str(error)) from error
    if not found:
        raise CannotRun("NVIDIA's driver knows no GPU")


def need_kernels(context: Context) -> None:
    """Raise CannotRun unless device="cuda" of the kernels can be used, where it is asked for."""
    if not context.on_gpu:
        return
    from murank_kernels import DeviceUnavailableError
    from murank_kernels.cuda.require import usable_cupy

    need_driver()
    try:
        usable_cupy()
    except DeviceUnavailableError as error:
        raise CannotRun(str(error)) from error


def need_torch(context: Context) -> None:
    """Raise CannotRun unless PyTorch is here, with CUDA where that is asked for."""
    if context.on_gpu:
        need_driver()
    need("torch", "transformers")
    import torch

    if context.on_gpu and not torch.cuda.is_available():
        raise CannotRun(f"this PyTorch ({torch.__version__}) finds no CUDA")

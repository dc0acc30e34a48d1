"""The export job: checkpoints in, engine folder out, whole or not at all."""

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import InputError, OutputError, __version__
from murank.engine.integrity import hash_files
from murank.engine.manifest import (
    MANIFEST,
    AdapterSource,
    EncoderPart,
    Manifest,
    MllmSource,
    ScorerPart,
    Source,
    Sources,
    manifest_bytes,
)
from murank.prompt import Layout, PromptTemplate, default_template, load_template
from murank_export._hashing import checkpoint_sha256, file_sha256
from murank_export.encoder import EncoderSettings, export_encoder
from murank_export.golden import golden_images
from murank_export.graphs.layers import Precision
from murank_export.mllm.adapter import Adapter, check_prompt, read_adapter

GOLDEN, PARITY = "golden.safetensors", "parity.json"
ENCODER = "onnx/encoder.onnx"
_ENCODER_IMAGES = 4
Report = Callable[[str], None]


@dataclass(frozen=True)
class ExportSettings:
    """What to export, and how."""

    output: Path
    mllm: Path | None = None
    adapter: Path | None = None  # PEFT folder, or MUSE .pth
    lora_alpha: float | None = None  # for a .pth
    lora_rank: int | None = None
    prompt: Path | None = None  # template file; None: murank's own
    layout: Layout = "paper"
    image_size: tuple[int, int] | None = None  # height, width of the MLLM's images
    precision: Precision = "fp32"
    tau: float = 1.0
    max_pairs: int = 32
    parity_pairs: int = 8
    encoder: Path | None = None  # .onnx file or Hugging Face folder
    encoder_settings: EncoderSettings = field(default_factory=EncoderSettings)
    force: bool = False  # an adapter of another prompt
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """An engine folder that was written."""

    folder: Path
    manifest: Manifest
    parity: dict[str, Any]
    seconds: dict[str, float]  # of each step


@dataclass
class Steps:
    """Tells and times the steps."""

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self.report(f"{name} ...")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def export_engine(settings: ExportSettings, report: Report = lambda _text: None) -> Exported:
    """Write an engine folder.

    Raises
    ------
    InputError
        A source cannot be used, or the adapter was trained with another prompt.
    OutputError
        The output folder is in use, or cannot be written.
    """
    template = _check(settings)
    adapter = None if settings.adapter is None else read_adapter(settings.adapter)
    if adapter is not None:
        check_prompt(adapter, settings.layout, template.sha256, force=settings.force)
    steps = Steps(report)
    with _staged(settings.output, overwrite=settings.overwrite) as stage:
        (stage / "onnx").mkdir()
        golden: dict[str, NDArray[Any]] = {}
        parity: dict[str, Any] = {}
        encoder = _encoder(settings, stage, golden, steps)
        scorer: ScorerPart | None = None
        if settings.mllm is not None:
            from murank_export.scorer import export_scorer

            scorer, parity["scorer"] = export_scorer(
                settings, settings.mllm, adapter, template, stage, golden, steps
            )
        with steps.step("hash and write manifest"):
            manifest = _finish(stage, settings, adapter, encoder, scorer, golden, parity)
    return Exported(settings.output, manifest, parity, steps.seconds)


def _check(settings: ExportSettings) -> PromptTemplate:
    if settings.mllm is None and settings.encoder is None:
        raise InputError("nothing to export: pass --mllm, --encoder, or both")
    if settings.mllm is None and (settings.adapter is not None or settings.prompt is not None):
        raise InputError("--adapter and --prompt need --mllm")
    for path in (settings.mllm, settings.adapter, settings.encoder):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if not settings.tau > 0:
        raise InputError(f"tau must be above 0, got {settings.tau}")
    return default_template() if settings.prompt is None else load_template(settings.prompt)


def _encoder(
    settings: ExportSettings, stage: Path, golden: dict[str, NDArray[Any]], steps: Steps
) -> EncoderPart | None:
    if settings.encoder is None:
        return None
    from murank.engine.encoder import Encoder
    from murank.engine.session import SessionSettings

    with steps.step("encoder: export and check"):
        made = export_encoder(settings.encoder, stage / ENCODER, settings.encoder_settings)
        part = EncoderPart(
            graph=ENCODER, dim=made.dim, preprocessing=made.preprocessing, mean=made.mean,
            std=made.std,
        )  # fmt: skip
        size = (made.preprocessing.height, made.preprocessing.width)
        images = golden_images(_ENCODER_IMAGES, *size)
        features = Encoder(stage, part, SessionSettings("cpu")).features(images)
        golden |= {"encoder_images": images, "encoder_features": features}
    return part


def _finish(
    stage: Path,
    settings: ExportSettings,
    adapter: Adapter | None,
    encoder: EncoderPart | None,
    scorer: ScorerPart | None,
    golden: dict[str, NDArray[Any]],
    parity: dict[str, Any],
) -> Manifest:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in golden.items()}, stage / GOLDEN)
    if parity:
        (stage / PARITY).write_text(json.dumps(parity, indent=2, allow_nan=False) + "\n")
    names = sorted(
        file.relative_to(stage).as_posix() for file in stage.rglob("*") if file.is_file()
    )
    manifest = Manifest(
        murank_version=__version__,
        precision=settings.precision,
        sources=_sources(settings, adapter),
        encoder=encoder,
        scorer=scorer,
        calibration=None,
        golden=GOLDEN,
        parity=PARITY if parity else None,
        files=hash_files(stage, names),
    )
    (stage / MANIFEST).write_bytes(manifest_bytes(manifest))
    return manifest


def _sources(settings: ExportSettings, adapter: Adapter | None) -> Sources:
    mllm = encoder = lora = None
    if settings.mllm is not None:
        model_type = json.loads((settings.mllm / "config.json").read_text("utf-8"))["model_type"]
        mllm = MllmSource(
            name=_name(settings.mllm), model_type=model_type,
            sha256=checkpoint_sha256(settings.mllm),
        )  # fmt: skip
    if adapter is not None:
        lora = AdapterSource(name=_name(adapter.path), kind=adapter.kind, sha256=adapter.sha256)
    if settings.encoder is not None:
        is_file = settings.encoder.is_file()
        digest = file_sha256 if is_file else checkpoint_sha256
        encoder = Source(name=_name(settings.encoder), sha256=digest(settings.encoder))
    return Sources(mllm=mllm, adapter=lora, encoder=encoder)


def _name(path: Path) -> str:
    """Return the last part only: an engine tells nothing of the build machine's folders."""
    return path.absolute().name


@contextlib.contextmanager
def _staged(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder beside `output` that takes its place once all went well."""
    if output.exists():
        if not overwrite:
            raise OutputError(f"{output} exists; pass --overwrite or another name")
        if not (output / MANIFEST).is_file():
            raise OutputError(f"{output} is no engine folder, so it is not overwritten")
    stage = output.absolute().parent / f".{output.name}-{secrets.token_hex(8)}"
    try:
        stage.mkdir(mode=0o700, parents=True)
        yield stage
        sync_tree(stage)
        if output.exists():
            old = stage.with_name(f"{stage.name}-old")
            output.rename(old)
            stage.rename(output)
            shutil.rmtree(old)
        else:
            stage.rename(output)
        sync_tree(output.absolute().parent, deep=False)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sync_tree(folder: Path, *, deep: bool = True) -> None:
    """Make what was written there durable."""
    import os

    for path in [*(folder.rglob("*") if deep else ()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

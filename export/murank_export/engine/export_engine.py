"""The export job: checkpoints in, engine folder out, whole or not at all."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import InputError, __version__
from murank.files.json_object import write_json
from murank.files.plain import check_utf8
from murank.folder.integrity import hash_files
from murank.folder.manifest import (
    MOST_PAIRS,
    AdapterSource,
    EncoderPart,
    Manifest,
    MllmSource,
    ScorerPart,
    Source,
    Sources,
    manifest_bytes,
)
from murank.folder.manifest_fields import LARGEST_TAU, MANIFEST
from murank.prompt import PromptTemplate, default_template, load_template
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.engine.export_settings import ExportSettings
from murank_export.engine.golden_images import golden_images
from murank_export.engine.staging import staged
from murank_export.engine.steps import NOTE, Report, Steps
from murank_export.mllm.adapter import Adapter, check_prompt, read_adapter
from murank_export.mllm.bases import check_base
from murank_export.sources.hashing import checkpoint_sha256, file_sha256

GOLDEN, PARITY = "golden.safetensors", "parity.json"
ENCODER = "onnx/encoder.onnx"
_ENCODER_IMAGES = 4


@dataclass(frozen=True)
class Exported:
    """An engine folder that was written."""

    folder: Path
    manifest: Manifest
    parity: dict[str, Any]
    seconds: dict[str, float]  # of each step


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
        _check_adapter(settings, adapter, template, report)
    steps = Steps(report)
    with staged(settings.output, overwrite=settings.overwrite) as stage:
        (stage / "onnx").mkdir()
        encoder, golden = _encoder(settings, stage, steps)
        scorer: ScorerPart | None = None
        parity: dict[str, Any] = {}
        if settings.mllm is not None:
            from murank_export.engine.export_scorer import export_scorer

            made = export_scorer(settings, adapter, template, stage, steps)
            scorer, parity["scorer"] = made.part, made.parity
            golden |= made.golden
        with steps.step("hash and write manifest"):
            manifest = _finish(stage, settings, adapter, encoder, scorer, golden, parity)
    return Exported(settings.output, manifest, parity, steps.seconds)


def _check(settings: ExportSettings) -> PromptTemplate:
    if settings.mllm is None and settings.encoder is None:
        raise InputError("nothing to export: pass --mllm, --encoder, or both")
    needs_mllm = (settings.adapter, settings.prompt, settings.image_size)
    if settings.mllm is None and needs_mllm != (None, None, None):
        raise InputError("--adapter, --prompt and --image-size need --mllm")
    if settings.adapter is None and (settings.lora_alpha, settings.lora_rank) != (None, None):
        raise InputError("--lora-alpha and --lora-rank need --adapter")
    if settings.encoder is None and settings.encoder_settings != EncoderSettings():
        raise InputError("--encoder-size and its like need --encoder")
    check_utf8(settings.mllm, settings.adapter, settings.encoder, settings.output)
    for path in (settings.mllm, settings.adapter, settings.encoder):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    for name, value in (("tau", settings.tau), ("LoRA's alpha", settings.lora_alpha)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be above 0 and finite, got {value}")
    if not 1 / LARGEST_TAU <= settings.tau <= LARGEST_TAU:
        raise InputError(f"tau must be in 1e-6..1e6, got {settings.tau}")
    if settings.max_pairs > MOST_PAIRS:
        raise InputError(f"max_pairs must be at most {MOST_PAIRS}, got {settings.max_pairs}")
    if settings.mllm is None:
        plain = ExportSettings(settings.output)
        for name in ("precision", "layout", "tau", "max_pairs", "parity_pairs"):
            if getattr(settings, name) != getattr(plain, name):
                raise InputError(f"{name} is about the MLLM: it needs --mllm")
    return default_template() if settings.prompt is None else load_template(settings.prompt)


def _check_adapter(
    settings: ExportSettings, adapter: Adapter, template: PromptTemplate, report: Report
) -> None:
    """Raise InputError where an adapter is of another prompt or model; tell what it leaves open."""
    if adapter.kind == "peft" and (settings.lora_alpha, settings.lora_rank) != (None, None):
        raise InputError(f"{adapter.path} states its own alpha and rank; do not pass them")
    check_prompt(adapter, settings.layout, template.sha256, force=settings.force)
    if adapter.template_sha256 is None and settings.prompt is None and not settings.force:
        raise InputError(
            f"{adapter.path} does not say which prompt it was trained with: pass that file "
            "with --prompt, or --force for murank's own"
        )
    if adapter.layout is None:
        report(f"{NOTE}{adapter.path} does not say which layout it was trained with")
    if settings.mllm is not None:
        note = check_base(adapter.path, adapter.base, settings.mllm, force=settings.force)
        if note is not None:
            report(f"{NOTE}{note}")


def _encoder(
    settings: ExportSettings, stage: Path, steps: Steps
) -> tuple[EncoderPart | None, dict[str, NDArray[Any]]]:
    """Export the encoder, if there is one; return its part and what it was measured by."""
    if settings.encoder is None:
        return None, {}
    from murank.backends.onnx.session import SessionSettings
    from murank.engine.encoder import Encoder, NoFeatureError
    from murank.engine.golden import resized
    from murank.engine.neighbours import encoder_fault
    from murank.folder.contents import EngineFiles
    from murank_export.encoders.encoder_graph import export_encoder

    with steps.step("encoder: export and check"):
        made = export_encoder(
            settings.encoder, stage / ENCODER, settings.encoder_settings,
            lambda text: steps.report(f"{NOTE}{text}"),
        )  # fmt: skip
        part = EncoderPart(
            graph=ENCODER, dim=made.dim, preprocessing=made.preprocessing, mean=made.mean,
            std=made.std,
        )  # fmt: skip
        images = golden_images(_ENCODER_IMAGES)
        try:
            encoder = Encoder(EngineFiles(stage), part, SessionSettings("cpu"))
            pixels = resized(images, made.preprocessing)
            features = encoder.features(pixels)
            fault = encoder_fault(encoder, pixels, made.rows)
        except NoFeatureError as error:
            raise InputError(f"{settings.encoder} gives NaN or infinite features") from error
        if fault is not None:
            raise InputError(f"{settings.encoder} {fault}")
    golden: dict[str, NDArray[Any]] = {"encoder_images": images, "encoder_features": features}
    return part, golden | {"encoder_rows": np.array(made.rows)}


def _finish(
    stage: Path,
    settings: ExportSettings,
    adapter: Adapter | None,
    encoder: EncoderPart | None,
    scorer: ScorerPart | None,
    golden: dict[str, NDArray[Any]],
    parity: dict[str, Any],
) -> Manifest:
    from safetensors.numpy import save

    # By way of Python, which tells a full disk as an OSError.
    (stage / GOLDEN).write_bytes(
        save({name: np.ascontiguousarray(array) for name, array in golden.items()})
    )
    if parity:
        (stage / PARITY).write_bytes(write_json(parity))
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

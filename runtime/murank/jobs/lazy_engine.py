"""An engine that is loaded when it is first needed: reused stages need its manifest alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from murank._exceptions import InputError
from murank.images import DEFAULT_LIMITS, DecodeLimits

if TYPE_CHECKING:
    from murank.engine.engine import Engine, Part
    from murank.folder.manifest import EncoderPart, Manifest, ScorerPart


@dataclass(frozen=True)
class LazyEngine:
    """An engine folder."""

    folder: Path
    parts: Collection["Part"]  # that the job may need
    options: Mapping[str, Any] = field(default_factory=dict)  # more of Engine.from_pretrained

    @cached_property
    def _read(self) -> "tuple[Manifest, str]":
        from murank.folder.manifest import read_manifest_once

        return read_manifest_once(self.folder)

    @property
    def manifest(self) -> "Manifest":
        """What the folder says it holds. Raises InputError if it is no engine."""
        return self._read[0]

    @property
    def sha256(self) -> str:
        """Of the manifest, which holds those of all files."""
        return self._read[1]

    @cached_property
    def answers_sha256(self) -> str:
        """Of all that mu depends on; also before and after `murank evaluate --store`."""
        from murank.folder.manifest import manifest_sha256

        return manifest_sha256(self.manifest.answering)

    @cached_property
    def exported_sha256(self) -> str:
        """Of the engine as it was exported: its features are the same ever since."""
        from murank.folder.manifest import manifest_sha256

        return manifest_sha256(self.manifest.exported)

    @cached_property
    def encoder_sha256(self) -> str | None:
        """Of all that features depend on. Raises InputError if the encoder's graph is damaged."""
        from murank.folder.contents import EngineFiles
        from murank.folder.graph_hash import encoder_sha256

        return encoder_sha256(EngineFiles(self.folder, self.manifest))

    @property
    def encoder(self) -> "EncoderPart":
        """What embeds an image. Raises InputError if there is none."""
        if self.manifest.encoder is None:
            raise InputError(
                f"{self.folder} has no encoder; pass --features F.npz instead of images"
            )
        from murank.folder.reading import reading

        return reading(self.manifest.encoder, self.bits, self.limits)

    @property
    def scorer(self) -> "ScorerPart":
        """What scores a pair. Raises InputError if there is none."""
        if self.manifest.scorer is None:
            raise InputError(
                f"{self.folder} has no scorer of image pairs, so it gives no mu; pass --no-mu, or "
                "an engine that was exported with an MLLM"
            )
        from murank.folder.reading import reading

        return reading(self.manifest.scorer, self.bits, self.limits)

    @property
    def bits(self) -> int | None:
        """Of 16-bit grey images, as asked for."""
        bits: int | None = self.options.get("bits")
        return bits

    @property
    def limits(self) -> DecodeLimits:
        """What decoding an image may cost."""
        limits: DecodeLimits = self.options.get("decode_limits", DEFAULT_LIMITS)
        return limits

    @property
    def products(self) -> str:
        """What the MLLM's products are to be made in."""
        products: str = self.options.get("products", "float32")
        return products

    @property
    def read_as(self) -> list[Any]:
        """What decides how files are read, JSON-ready: other pixels, or other images left out."""
        return [self.bits, self.limits.to_json()]

    @property
    def is_loaded(self) -> bool:
        """Whether it was needed yet."""
        return "loaded" in self.__dict__

    @cached_property
    def loaded(self) -> "Engine":
        """The engine itself. Raises InputError or MachineError if it cannot run here."""
        from murank.engine.engine import Engine

        engine = Engine.from_pretrained(self.folder, parts=self.parts, **self.options)
        if engine.sha256 != self.sha256:
            raise InputError(f"{self.folder} has changed during the run; start again")
        return engine

    def providers(self, *graphs: str) -> dict[str, list[str]]:
        """Return what runs these graphs."""
        used = self.loaded.providers
        return {graph: list(used[graph]) for graph in graphs}

    def check(self) -> None:
        """Raise InputError unless the engine has the parts; loads nothing."""
        for part in self.parts:
            getattr(self, part)

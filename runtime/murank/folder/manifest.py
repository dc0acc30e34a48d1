"""manifest.json: what an engine folder holds, and what it was made of."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.files.damage import damaged
from murank.files.json_object import parse_json, read_bounded, write_json
from murank.files.plain import readable_errors
from murank.files.records import Record
from murank.folder.manifest_fields import (
    MANIFEST,
    SCHEMA_VERSION,
    Count,
    Dim,
    FileName,
    Graph,
    Mean,
    Name,
    SchemaVersion,
    Sha256,
    Share,
    Size,
    SomeTokens,
    Std,
    Temperature,
    Tensors,
    TokenId,
    Tokens,
    at_most,
)
from murank.folder.precision import ARITHMETIC, Arithmetic, Precision
from murank.images.preprocess import Preprocessing
from murank.prompt.layout import Layout
from murank.prompt.template import PromptTemplate

# No model of the field comes near these.
_MOST_FILES = 4096
_LARGEST_FILE = 1 << 43  # bytes: 8 TiB
_MOST_LAYERS, _MOST_HEADS, _MOST_LEVELS = 512, 1024, 64
MOST_PAIRS = 4096  # in one run: as long as the graphs' free axes were traced
_MOST_VALUES = 1 << 32  # of one image's vision tokens, or of a query's K/V


@dataclass(frozen=True)
class FileEntry(Record):
    """What a file must be."""

    sha256: Sha256
    size: Annotated[Count, at_most(_LARGEST_FILE)]  # bytes


@dataclass(frozen=True)
class Source(Record):
    """A checkpoint that went in."""

    name: Name
    sha256: Sha256


@dataclass(frozen=True)
class MllmSource(Record):
    """The MLLM that went in."""

    name: Name
    model_type: Name
    sha256: Sha256


@dataclass(frozen=True)
class AdapterSource(Record):
    """The LoRA that was merged into the MLLM."""

    name: Name
    kind: Literal["peft", "muse"]
    sha256: Sha256


@dataclass(frozen=True)
class Sources(Record):
    """Where the weights come from."""

    mllm: MllmSource | None
    adapter: AdapterSource | None
    encoder: Source | None


@dataclass(frozen=True)
class EncoderPart(Record):
    """Image to feature."""

    graph: Graph
    dim: Dim  # of a feature
    preprocessing: Preprocessing
    mean: Mean  # applied inside the graph, as std is
    std: Std


@dataclass(frozen=True)
class AnswerIds(Record):
    """Token ids of the two answers."""

    no: TokenId
    yes: TokenId


@dataclass(frozen=True)
class Shapes(Record):
    """Sizes of the scorer's tensors; the tokens of a pair stand in three runs."""

    layers: Annotated[Size, at_most(_MOST_LAYERS)]
    kv_heads: Annotated[Size, at_most(_MOST_HEADS)]
    head_dim: Dim
    hidden: Dim
    levels: Annotated[Size, at_most(_MOST_LEVELS)]  # vectors of `hidden` for one vision token
    vision_tokens: Tokens  # an image
    static_tokens: SomeTokens  # before the query image: once per model
    prefill_tokens: Tokens  # from the query image to the candidate image: once per query
    suffix_tokens: Tokens  # from the candidate image on: per pair

    def __post_init__(self) -> None:
        for key in ("prefill_tokens", "suffix_tokens"):
            if getattr(self, key) < self.vision_tokens:
                raise InputError(f"scorer.shapes.{key} is below vision_tokens, which it holds")
        for key in ("kv_values", "vision_values"):
            if getattr(self, key) > _MOST_VALUES:
                raise InputError(f"scorer.shapes give {key} above {_MOST_VALUES}")

    @property
    def kv_values(self) -> int:
        """Keys and values that all candidates of a query share."""
        tokens = self.static_tokens + self.prefill_tokens
        return 2 * self.layers * self.kv_heads * self.head_dim * tokens

    @property
    def vision_values(self) -> int:
        """Values of one image's vision tokens."""
        return self.levels * self.vision_tokens * self.hidden


@dataclass(frozen=True)
class ScorerPart(Record):
    """Pair of images to mu-distance."""

    vision: Graph
    decoder: Graph
    prompt: Tensors
    preprocessing: Preprocessing
    mean: Mean  # applied inside the vision graph, as std is
    std: Std
    layout: Layout
    template: Mapping[str, Any]  # as `PromptTemplate.from_json` takes it
    template_sha256: Sha256
    answer_ids: AnswerIds
    tau: Temperature  # temperature of the answer's logits
    max_pairs: Annotated[Size, at_most(MOST_PAIRS)]  # in one run of the decoder
    shapes: Shapes

    def __post_init__(self) -> None:
        template = PromptTemplate.from_json(self.template, "scorer.template")
        if template.sha256 != self.template_sha256:
            raise InputError("scorer.template_sha256 is not the hash of scorer.template")


@dataclass(frozen=True, kw_only=True)
class Calibration(Record):
    """What labelled pairs said of the scorer; see murank.calibration."""

    precision: Precision  # of the engine that was asked
    temperature: Temperature  # the scorer's tau since
    exported_tau: Temperature  # its tau before
    threshold: Share  # a pair is a match where mu, at that temperature, is at most this
    target: Literal["fmr", "fnmr", "eer"]  # what the threshold was chosen by
    target_value: Share | None  # the rate not to exceed
    prior: Share  # weight of the same-person pairs in the temperature
    fmr: Share  # false match rate at the threshold, of different_pairs
    fnmr: Share  # false non-match rate, of same_pairs
    same_pairs: Size
    different_pairs: Size
    pairs_sha256: Sha256  # of the file of pairs
    murank_version: Name

    def __post_init__(self) -> None:
        if (self.target_value is None) != (self.target == "eer"):
            raise InputError("calibration.target_value must be a number, or null for eer")


@dataclass(frozen=True, kw_only=True)
class MuDefaults(Record):
    """What labelled queries proposed for a method: how much mu counts, of how many candidates."""

    alpha: Share  # 0: the MLLM is left out
    candidates: Count  # of a query; 0 where alpha is
    gain: float  # in mAP of held out people, over the method without mu, with its 95 % interval
    low: float
    high: float
    queries: Size
    people: Size
    alignment: Literal["pairs", "mean", "off"]  # of the features it was proposed on
    engine_sha256: Sha256  # of this engine without proposals, which is what gave mu
    murank_version: Name

    def __post_init__(self) -> None:
        if (self.alpha == 0) != (self.candidates == 0):
            raise InputError("mu_defaults: alpha and candidates must be 0 together")


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """All that manifest.json says; what its parts name is among its files."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    murank_version: Name
    precision: Precision
    sources: Sources
    encoder: EncoderPart | None
    scorer: ScorerPart | None
    calibration: Calibration | None
    golden: Tensors | None
    parity: FileName | None
    files: Mapping[FileName, FileEntry]  # all of the folder but manifest.json
    mu_defaults: Mapping[Name, MuDefaults] = field(
        default_factory=dict
    )  # by method; in no file: {}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        members = super().to_json()
        if not self.mu_defaults:  # as engines were before there were any
            del members["mu_defaults"]
        return members

    @classmethod
    def from_json(cls, data: Any, where: str = "") -> "Manifest":
        """Read what `to_json` returns. Raises InputError."""
        return super().from_json(
            {"mu_defaults": {}, **data} if isinstance(data, dict) else data, where
        )

    def __post_init__(self) -> None:
        if self.encoder is None and self.scorer is None:
            raise InputError("neither an encoder nor a scorer is there")
        if len(self.files) > _MOST_FILES:
            raise InputError(f"files are {len(self.files)}, above {_MOST_FILES}")
        for key, name in self.named.items():
            if name not in self.files:
                raise InputError(f"{key} names {name}, which is not in files")
        if self.calibration is not None:
            self._check_calibration(self.calibration)
        if self.mu_defaults and self.scorer is None:
            raise InputError("mu_defaults are there, but no scorer")

    def _check_calibration(self, calibration: Calibration) -> None:
        if self.scorer is None:
            raise InputError("calibration is there, but no scorer")
        if calibration.precision != self.precision:
            raise InputError(
                f"calibration is of {calibration.precision}, the engine is {self.precision}"
            )
        if calibration.temperature != self.scorer.tau:
            raise InputError("scorer.tau is not calibration.temperature")

    @property
    def exported_scorer(self) -> ScorerPart | None:
        """The scorer as it was before calibration."""
        if self.scorer is None or self.calibration is None:
            return self.scorer
        return replace(self.scorer, tau=self.calibration.exported_tau)

    @property
    def answering(self) -> "Manifest":
        """All that answers depend on: what is proposed chooses what is asked, not the answer."""
        return replace(self, mu_defaults={})

    @property
    def exported(self) -> "Manifest":
        """As it was before calibration and proposals; features depend on no more."""
        return replace(self, scorer=self.exported_scorer, calibration=None, mu_defaults={})

    @property
    def named(self) -> dict[str, str]:
        """Files that the parts name, by key."""
        names: dict[str, str | None] = {"golden": self.golden, "parity": self.parity}
        if self.encoder is not None:
            names["encoder.graph"] = self.encoder.graph
        if self.scorer is not None:
            for key in ("vision", "decoder", "prompt"):
                names[f"scorer.{key}"] = getattr(self.scorer, key)
        return {key: name for key, name in names.items() if name is not None}

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(entry.size for entry in self.files.values())

    @property
    def arithmetic(self) -> Arithmetic:
        """What follows from the precision."""
        return ARITHMETIC[self.precision]


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read manifest.json of an engine folder; nothing else of the folder is looked at.

    Raises
    ------
    InputError
        There is none, it is no regular file, above 4 MiB, not strict JSON, of a newer murank, or a
        key is missing, unknown or of another type.
    """
    return read_manifest_once(folder)[0]


def read_manifest_once(folder: str | os.PathLike[str]) -> tuple[Manifest, str]:
    """Return the manifest of an engine folder and its sha256, of the same bytes.

    Raises what `read_manifest` does.
    """
    path = Path(folder) / MANIFEST
    raw = _raw(path)
    data = parse_json(raw, path)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path} was made by a newer murank (schema_version {shown(version)}, this one reads "
            f"{SCHEMA_VERSION}); upgrade murank"
        )
    try:
        return Manifest.from_json(data), hashlib.sha256(raw).hexdigest()
    except InputError as error:
        raise damaged(path, str(error)) from error


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return manifest.json; InputError if `read_manifest` would not take it."""
    raw = write_json(manifest.to_json())
    Manifest.from_json(parse_json(raw, Path(MANIFEST)))
    return raw


def manifest_sha256(manifest: Manifest) -> str:
    """Return the sha256 that an engine with this manifest has."""
    return hashlib.sha256(manifest_bytes(manifest)).hexdigest()


def engine_sha256(folder: str | os.PathLike[str]) -> str:
    """Return the sha256 of manifest.json, which holds those of all other files."""
    return hashlib.sha256(_raw(Path(folder) / MANIFEST)).hexdigest()


def _raw(path: Path) -> bytes:
    folder = path.parent
    with readable_errors(folder):
        if not folder.exists():
            raise InputError(f"{folder}: no such folder; name the folder of an engine")
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; name the folder of an engine")
        if not path.exists():
            raise InputError(f"{folder} has no {MANIFEST}, so it is not the folder of an engine")
    return read_bounded(path)

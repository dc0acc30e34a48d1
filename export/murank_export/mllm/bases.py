"""Which model an adapter was trained on, as far as its folder says, and whether it is another.

Names of folders are anybody's: only what both sides say, in the families' own words, is compared.
Sizes that differ in fact do not fit, which is told where the adapter is applied.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from murank import InputError
from murank_export.sources.loading import read_json

_FAMILY = re.compile(r"qwen[-_. ]?(2[-_.]*5|2|3[-_.]*5|3)[-_. ]?vl", re.IGNORECASE)
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_PLAIN = re.compile(rf"{_FAMILY.pattern}[-_. ]?\d+(\.\d+)?b", re.IGNORECASE)
_KINDS = ("instruct", "thinking", "reranker", "embedding")


@dataclass(frozen=True)
class Base:
    """What a name says of a model; None: nothing."""

    name: str = ""
    family: str | None = None  # model_type
    size: str | None = None  # "2B"
    kind: str | None = None  # "instruct", ..., or "base" where the name says no more

    @classmethod
    def of_name(cls, path: str) -> "Base":
        """Read the last part of a path or of a hub's name, or a hub's cache."""
        parts = [part for part in PureWindowsPath(path).parts if part not in ("/", "\\")]
        if len(parts) > 2 and parts[-2] == "snapshots":  # .../models--Qwen--NAME/snapshots/COMMIT
            parts = parts[:-2]
        name = parts[-1].rpartition("--")[2] if parts else ""
        family, size = _FAMILY.search(name), _SIZE.search(name)
        if family is None:
            return cls(name)
        kinds = [kind for kind in _KINDS if kind in name.lower()]
        if _PLAIN.fullmatch(name):
            kinds = ["base"]
        version = re.sub(r"[-_.]+", "_", family[1]).replace("25", "2_5")
        return cls(
            name,
            f"qwen{version}_vl",
            size[1] + "B" if size else None,
            kinds[-1] if kinds else None,
        )


def base_of(config: dict[str, Any]) -> Base:
    """Return what an adapter's config says it was trained on."""
    path = config.get("base_model_name_or_path")
    said = Base.of_name(path) if isinstance(path, str) else Base()
    mapping = config.get("auto_mapping")
    kind = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return replace(said, family=Base.of_name(str(kind)).family or said.family)


def check_base(adapter: Path, base: Base, mllm: Path, *, force: bool) -> str | None:
    """Return a note if an adapter was trained on another model than `mllm`, or None.

    Raises
    ------
    InputError
        It is one of another family or size, and that is not forced.
    """
    own, config = Base.of_name(str(mllm.absolute())), read_json(mllm / "config.json")
    if own.size is None and isinstance(config.get("_name_or_path"), str):
        own = Base.of_name(config["_name_or_path"])
    said = f"{adapter} was trained on {base.name or base.family}"
    family = config.get("model_type")
    if isinstance(family, str) and base.family not in (None, family):
        other = f"{said}, of the family {base.family}, and --mllm {mllm} is of {family}"
    elif own.size and base.size and _number(own.size) != _number(base.size):
        other = f"{said}, of {base.size}, and --mllm {mllm} is of {own.size}"
    elif base.size and base.kind and own.kind and base.kind != own.kind:
        return f"{said}, of kind {base.kind}, and --mllm {mllm} is of kind {own.kind}"
    else:
        return None
    if not force:
        raise InputError(f"{other}: pass that model with --mllm, or --force where the shapes fit")
    return other


def _number(size: str) -> float:
    return float(size[:-1])

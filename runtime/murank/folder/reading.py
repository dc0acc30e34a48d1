"""How files become the pixels that a part takes: settings of a user, none of the manifest's."""

from dataclasses import replace
from typing import TypeVar

from murank.folder.manifest import EncoderPart, ScorerPart
from murank.images import DecodeLimits

Part = TypeVar("Part", EncoderPart, ScorerPart)


def reading(part: Part, bits: int | None, limits: DecodeLimits) -> Part:
    """Return the part with a preprocessing that reads files so."""
    return replace(part, preprocessing=replace(part.preprocessing, bits=bits, limits=limits))

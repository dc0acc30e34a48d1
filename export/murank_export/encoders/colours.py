"""How an encoder wants its colours: order, mean and std; by the user, its own graph or custom."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto

from murank import InputError
from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.encoders.own_normalisation import KNOWN, OwnNormalisation, own_normalisation
from murank_export.encoders.source_graph import SourceGraph
from murank_export.sources.normalisations import Triple

IMAGENET_MEAN, IMAGENET_STD = KNOWN["ImageNet's"]
_ONES: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels as 0..1
_BYTES: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # as 0..255
_FLAGS = "--encoder-mean and --encoder-std"


@dataclass(frozen=True)
class Colours:
    """(pixels / 255 - mean) / std, by red, green, blue, whatever the order."""

    mean: Triple
    std: Triple
    bgr: bool


def colours_of(
    taken: SourceGraph, settings: EncoderSettings, source: Path, note: Callable[[str], None]
) -> Colours:
    """Decide it, and tell what the user may not expect.

    Raises
    ------
    InputError
        Mean and std cannot be, or were given for a graph of uint8 pixels.
    """
    given = settings.mean is not None or settings.std is not None
    own = own_normalisation(taken.model, taken.images, channels_last=taken.channels_last)
    if taken.kind == TensorProto.UINT8:
        if given:
            raise InputError(f"{source} takes uint8 pixels as they are: leave out {_FLAGS}")
        note(f"{source} takes uint8 pixels; it gets them as they are")
        mean, std = _BYTES
    elif own is not None and own.is_sure and not given:
        mean, std = _BYTES if own.takes_bytes else _ONES
        note(
            f"{source} normalises its images itself: {_described(own)}; they are not normalised "
            f"before it ({_flags(mean, std)}), which those flags would change"
        )
    else:
        mean, std = settings.mean or IMAGENET_MEAN, settings.std or IMAGENET_STD
        if own is not None:
            note(
                f"{source} begins with {_described(own)}, and images are normalised before it, "
                f"too ({_flags(mean, std)}): if that is one too many, pass {_flags(*_plain(own))}"
            )
    _check(mean, std, source)
    return Colours(mean, std, _is_bgr(own, settings.color, source, note))


def _is_bgr(
    own: OwnNormalisation | None, said: str | None, source: Path, note: Callable[[str], None]
) -> bool:
    if said is not None or own is None or not own.is_reversed:
        return said == "bgr"
    note(
        f"{source}: those means are of blue, green, red, so that it gets colours in that order; "
        "--encoder-color rgb if it turns them itself"
    )
    return True


def _plain(own: OwnNormalisation) -> tuple[Triple, Triple]:
    return _BYTES if own.takes_bytes else _ONES


def _check(mean: Triple, std: Triple, source: Path) -> None:
    if not np.isfinite([mean, std]).all() or min(std) <= 0:
        raise InputError(f"{source}: mean and std must be finite, std above 0")


def _described(own: OwnNormalisation) -> str:
    name = "" if own.name is None else f", which are {own.name}"
    scale = "0..255" if own.takes_bytes else "0..1"
    return f"(x - {_listed(own.mean)}) / {_listed(own.std)} of {scale}{name}"


def _flags(mean: Triple, std: Triple) -> str:
    return f"--encoder-mean {_listed(mean)} --encoder-std {_listed(std)}"


def _listed(values: Triple) -> str:
    return ",".join(f"{value:.6g}" for value in values)

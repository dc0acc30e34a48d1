"""From what callers add to what is stored: decoded, embedded, checked one by one."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank._exceptions import InputError
from murank.engine.encoder import NoFeatureError
from murank.engine.engine import Engine
from murank.engine.memory_cache import content_key
from murank.gallery.gallery_result import AddResult
from murank.gallery.items import Item
from murank.gallery.pictures import as_jpeg, quality
from murank.gallery.shot_records import F32, Picture, Shot
from murank.gallery.unit_features import unit_rows
from murank.images import ImageSource, decoded, to_pixels
from murank.images.arguments import as_array, check_images, source_name

Keep = Literal["crops", "tokens", "none"]
KEEPS: tuple[Keep, ...] = ("crops", "tokens", "none")
MOST_ELONGATED = 8  # longer side over shorter: no person is


@dataclass(frozen=True)
class Crop:
    """What a decoded crop leaves behind."""

    pixels: Any  # uint8 [3,H,W] of the encoder
    jpeg: bytes | None
    mllm: Any  # uint8 [3,H,W] where tokens are kept, else None
    key: str | None
    quality: float


def check_features(features: object, dim: int) -> NDArray[np.floating[Any]]:
    """Return features [n,D] as an array."""
    rows = as_array(features, "features")
    if rows.ndim != 2 or rows.shape[1] != dim or rows.dtype.kind != "f":
        raise InputError(
            f"features must be floating point [n,{dim}], as this engine's encoder makes them, got "
            f"{rows.dtype} {list(rows.shape)}"
        )
    return rows


def from_features(
    features: NDArray[np.floating[Any]], items: Sequence[Item]
) -> list[Shot | AddResult]:
    """Return shots of features [n,D], of any length but zero."""
    given = features.astype(np.float32)
    good = np.isfinite(given).all(axis=1) & (np.abs(given).max(axis=1, initial=0) > 0)
    ready: list[Shot | AddResult] = []
    for item, row, is_good in zip(items, given, good.tolist(), strict=True):
        if not is_good:
            ready.append(refused(item, "its feature is zero, NaN or infinite"))
            continue
        feature = unit_rows(row[None] / np.abs(row).max())[0]
        ready.append(_shot(item, feature, feature.tobytes(), None))
    return ready


def from_crops(
    crops: Sequence[ImageSource], items: Sequence[Item], engine: Engine, keep: Keep, *,
    min_side: int,
) -> list[Shot | AddResult]:  # fmt: skip
    """Return shots of crops; one that cannot be used is refused, and the others stay."""
    check_images(crops, "crops")
    found = [
        _decoded_or_refused(crop, f"crops[{place}]", item, engine, keep, min_side)
        for place, (crop, item) in enumerate(zip(crops, items, strict=True))
    ]
    whole = [one for one in found if isinstance(one, Crop)]
    features = iter(_features(engine, whole))
    tokens = iter(_tokens(engine, whole))
    ready: list[Shot | AddResult] = []
    for item, one in zip(items, found, strict=True):
        if isinstance(one, AddResult):
            ready.append(one)
            continue
        feature, token = next(features), next(tokens)
        if feature is None:
            ready.append(refused(item, "the encoder gives NaN or infinity for it"))
            continue
        picture = None
        if one.jpeg is not None or token is not None:
            picture = Picture(one.quality, one.key, one.jpeg, token)
        ready.append(_shot(item, feature, one.pixels.tobytes(), picture))
    return ready


def refused(item: Item, reason: str) -> AddResult:
    """Return the status of an item that is not stored."""
    return AddResult(item.id, "refused", reason)


def _decoded_or_refused(
    crop: ImageSource, name: str, item: Item, engine: Engine, keep: Keep, min_side: int
) -> Crop | AddResult:
    try:
        return _decoded(crop, name, engine, keep, min_side)
    except InputError as error:
        return refused(item, str(error))


def _decoded(
    crop: ImageSource, name: str, engine: Engine, keep: Keep, min_side: int
) -> Crop:  # fmt: skip
    encoder, scorer = engine.encoder, engine.scorer
    assert encoder is not None  # noqa: S101  checked when the gallery was opened
    how = encoder.part.preprocessing
    called = source_name(crop, name)
    with decoded(crop, bits=how.bits, limits=how.limits, name=called) as image:  # type: ignore[arg-type]
        _check_size(image, called or str(crop), min_side)
        pixels = to_pixels(image, how, name=called)
        asks = scorer is not None and keep != "none"
        if not asks or scorer is None:
            return Crop(pixels, None, None, None, 0.0)
        if keep == "tokens":
            mllm = to_pixels(image, scorer.part.preprocessing, name=called)
            return Crop(pixels, None, mllm, content_key(mllm), quality(image))
        jpeg = as_jpeg(image)
    with decoded(jpeg) as kept:  # the MLLM is shown what is kept
        shown = to_pixels(kept, scorer.part.preprocessing, name=called)
    return Crop(pixels, jpeg, None, content_key(shown), quality(image))


def _check_size(image: Image.Image, name: str, min_side: int) -> None:
    short, long = sorted(image.size)
    if short < min_side:
        raise InputError(
            f"{name} is {image.width} x {image.height}, too small to show a person: min_side is "
            f"{min_side}"
        )
    if long > MOST_ELONGATED * short:
        raise InputError(f"{name} is {image.width} x {image.height}, too elongated for a person")


def _features(engine: Engine, crops: Sequence[Crop]) -> list[F32 | None]:
    """Return a feature each; None: the encoder gives no numbers for it."""
    if not crops:
        return []
    assert engine.encoder is not None  # noqa: S101
    pixels = np.stack([one.pixels for one in crops])
    try:
        return list(engine.encoder.features(pixels))
    except NoFeatureError:
        if len(crops) == 1:
            return [None]
    return [_features(engine, [one])[0] for one in crops]


def _tokens(engine: Engine, crops: Sequence[Crop]) -> list[bytes | None]:
    shown = [one.mllm for one in crops if one.mllm is not None]
    if not shown or engine.scorer is None:
        return [None] * len(crops)
    rows = engine.scorer.vision.of(shown)
    return [
        np.asarray(row if isinstance(row, np.ndarray) else row.numpy()).tobytes() for row in rows
    ]


def _shot(item: Item, feature: F32, content: bytes, picture: Picture | None) -> Shot:
    said = [item.camera, item.time, item.track, item.subject, sorted(item.attributes.items())]
    digest = hashlib.sha256(json.dumps(said).encode() + content).digest()
    return Shot(
        item.id or uuid.uuid4().hex, item.camera, item.time, item.track, item.subject,
        item.attributes, digest, np.ascontiguousarray(feature), picture,
    )  # fmt: skip

"""A picture of mined pairs: wrong labels and broken crops show there before they are learnt."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from murank import InputError
from murank.images import load_image
from murank.sheet.drawing import CROP, FAINT, FRAME, FRAMES, INK, PAPER, UNREADABLE, WHITE, Colour
from murank_export.adapt.mining import MinedPairs

N_QUERIES = 12
N_SHOWN = 6  # pairs of each kind
_MARGIN = 24
_GAP = 12
_PITCH = CROP[0] + 2 * FRAME + _GAP
_LINE = CROP[1] + 2 * FRAME + 36
_HEADING = 92
_LEFT = _MARGIN + _PITCH + _GAP  # where the pairs of a query begin
_TITLE = "Hard pairs"
_NOTE = (
    "A line: a query, its least similar images (green), the most similar of others (red); cosine."
)


def check_images(paths: Sequence[str], root: Path) -> None:
    """Raise InputError if none of the images is there."""
    if not any((root / path).is_file() for path in paths):
        raise InputError(
            f"--sheet shows the images, but none is there, as {root / paths[0]}; --image-root "
            "names the folder that paths start at"
        )


def draw_pairs(pairs: MinedPairs, paths: Sequence[str], root: Path, **reading: Any) -> Image.Image:
    """Draw some queries that have pairs of both kinds, a line each; unreadable images are grey.

    `reading` are keyword arguments of `load_image`.
    """
    crop = partial(_crop, reading=reading)
    queries = _some_queries(pairs)
    most = int(np.unique(pairs.queries[pairs.match], return_counts=True)[1].max())
    second = _LEFT + min(N_SHOWN, most) * _PITCH + _GAP  # where the negatives begin
    width = second + N_SHOWN * _PITCH + _MARGIN
    sheet = Image.new("RGB", (width, _HEADING + len(queries) * _LINE), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _TITLE, INK, ImageFont.load_default(28))
    draw.text((_MARGIN, _MARGIN + 38), _NOTE, FAINT, ImageFont.load_default(15))
    for number, query in enumerate(queries):
        top = _HEADING + number * _LINE
        _draw_image(sheet, (_MARGIN, top), crop(root / paths[query]), PAPER, "query")
        for first, match in ((_LEFT, True), (second, False)):
            chosen = np.flatnonzero((pairs.queries == query) & (pairs.match == match))[:N_SHOWN]
            for column, pair in enumerate(chosen.tolist()):
                place = first + column * _PITCH, top
                path = root / paths[int(pairs.candidates[pair])]
                colour = FRAMES["match" if match else "other"]
                _draw_image(sheet, place, crop(path), colour, f"{pairs.similarity[pair]:.3f}")
    return sheet


def _some_queries(pairs: MinedPairs) -> list[int]:
    """Choose queries at equal steps: neither the best nor the worst of them."""
    both = np.intersect1d(pairs.queries[pairs.match], pairs.queries[~pairs.match])
    steps = np.linspace(0, len(both) - 1, min(N_QUERIES, len(both)))
    chosen: list[int] = both[np.round(steps).astype(int)].tolist()
    return chosen


def _draw_image(
    sheet: Image.Image, place: tuple[int, int], crop: Image.Image, frame: Colour, text: str
) -> None:
    left, top = place
    right, bottom = left + CROP[0] + 2 * FRAME, top + CROP[1] + 2 * FRAME
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, right - 1, bottom - 1), frame)
    sheet.paste(crop, (left + FRAME, top + FRAME))
    draw.text(((left + right) / 2, bottom + 6), text, INK, ImageFont.load_default(13), anchor="mt")


def _crop(path: Path, reading: Mapping[str, Any]) -> Image.Image:
    try:
        return ImageOps.pad(load_image(path, **reading), CROP, Image.Resampling.LANCZOS, PAPER)
    except InputError:
        return Image.new("RGB", CROP, UNREADABLE)

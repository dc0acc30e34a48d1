"""Drawing a contact sheet, and writing it as PNG."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from murank._exceptions import InputError, OutputError
from murank.checks.text import plain
from murank.files.atomic import write_files
from murank.images import DEFAULT_LIMITS, DecodeLimits, load_image
from murank.sheet.sheet_rows import (
    Cell,
    SheetRow,
    Verdict,
    change_of,
    counted_ranks,
    first_match,
)

Colour = tuple[int, int, int]
Size = tuple[int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (31, 35, 40)
FAINT: Colour = (101, 109, 118)
PAPER: Colour = (238, 240, 243)  # headers of the bands, and what a crop leaves free
UNREADABLE: Colour = (200, 203, 207)
FRAMES: Mapping[Verdict, Colour] = {
    "match": (26, 143, 73),
    "other": (207, 45, 45),
    "junk": (140, 149, 159),
}
_LEGEND: Mapping[Verdict, str] = {
    "match": "right: same person",
    "other": "wrong: another person",
    "junk": "not counted: dropped by the rule of evaluation, or junk",
}
_NOTICE = "Every image beside a query is a candidate match, best first; a person decides."
_NUMBERS = "Below it: rank, distance and, where a scorer saw the pair, mu (small = same person)."
_NO_LABELS = "No person and camera ids: right and wrong are unknown, so nothing is framed."

CROP: Size = (64, 128)
QUERY: Size = (112, 224)
FRAME = 4
_MARGIN = 24
_GAP = 16
_PITCH = CROP[0] + 2 * FRAME + _GAP  # from one candidate to the next
_CELLS_LEFT = _MARGIN + QUERY[0] + 40
_HEADER = 30  # of a band
_LINE = 208  # one line of candidates: caption, crops, numbers
_BAND = _HEADER + 2 * _LINE + 26


def draw_sheet(
    rows: Sequence[SheetRow],
    *,
    before: str,
    after: str,
    title: str,
    notes: Sequence[str] = (),
    root: str | os.PathLike[str] | None = None,
    bits: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> Image.Image:
    """Draw one band a query: the candidates before in a first line, and after in a second.

    Right candidates are framed green, wrong ones red, those that evaluators leave out grey; none
    where labels are unknown. An image that cannot be decoded is a grey field.

    Parameters
    ----------
    rows
        What to show, from `rows_of`.
    before, after
        Captions of the two lines, such as "encoder" and "k-reciprocal + mu".
    title, notes
        Heading and further lines below it, such as the counts of `count_changes`.
    root
        Folder that relative paths start from. None: the current one.
    bits, limits
        As of `load_image`; the longest strip is shown as it is.
    """
    framed = any(row.has_labels for row in rows)
    columns = max((len(line) for row in rows for line in (row.before, row.after)), default=0)
    width = _CELLS_LEFT + max(columns, 8) * _PITCH - _GAP + _MARGIN
    heading = _Heading(title, (*notes, _NOTICE, _NUMBERS), framed=framed)
    sheet = Image.new("RGB", (width, heading.height + len(rows) * _BAND), WHITE)
    heading.draw(sheet)
    crops = Crops(Path() if root is None else Path(root), bits, limits)
    for number, row in enumerate(rows):
        top = heading.height + number * _BAND
        _draw_band(sheet, top, row, crops, captions=(before, after))
    return sheet


def write_sheet(path: str | os.PathLike[str], sheet: Image.Image) -> None:
    """Write the sheet as PNG, whole or not at all, readable by its owner alone.

    Raises
    ------
    OutputError
        The path is a folder, or cannot be written.
    """
    file = Path(path)
    if file.is_dir():
        raise OutputError(f"{file} is a folder; name a file")
    write_files(file.parent, {file.name: lambda handle: sheet.save(handle, "PNG")})


class _Heading:
    """Title, notes and legend."""

    def __init__(self, title: str, notes: Sequence[str], *, framed: bool) -> None:
        self._title = title
        self._notes = notes
        self._framed = framed
        self.height = _MARGIN + 44 + 21 * len(notes) + 46

    def draw(self, sheet: Image.Image) -> None:
        draw = ImageDraw.Draw(sheet)
        draw.text((_MARGIN, _MARGIN), plain(self._title), INK, _font(28))
        top = _MARGIN + 44
        for note in self._notes:
            draw.text((_MARGIN, top), plain(note), FAINT, _font(15))
            top += 21
        top += 8
        if not self._framed:
            draw.text((_MARGIN, top), _NO_LABELS, INK, _font(15))
            return
        left = float(_MARGIN)
        for verdict, text in _LEGEND.items():
            draw.rectangle((left, top, left + 17, top + 17), WHITE, FRAMES[verdict], FRAME)
            draw.text((left + 26, top), text, INK, _font(15))
            left += 26 + _font(15).getlength(text) + 30


class Crops:
    """Images fitted into a field; each file is decoded once a size."""

    def __init__(self, root: Path, bits: int | None, limits: DecodeLimits) -> None:
        """`root`: where paths start; `bits`, `limits`: as of `load_image`."""
        self._root, self._bits = root, bits
        self._limits = replace(limits, max_aspect=limits.max_side)  # nothing grows here
        self._known: dict[tuple[str, Size], Image.Image] = {}

    def get(self, path: str, size: Size) -> Image.Image:
        """Return an image, or a grey field that says that it cannot be read."""
        key = path, size
        if key not in self._known:
            self._known[key] = self._make(path, size)
        return self._known[key]

    def _make(self, path: str, size: Size) -> Image.Image:
        try:
            image = load_image(self._root / path, bits=self._bits, limits=self._limits)
        except InputError:
            field = Image.new("RGB", size, UNREADABLE)
            middle = size[0] / 2, size[1] / 2
            ImageDraw.Draw(field).text(middle, "unreadable", INK, _font(10), anchor="mm")
            return field
        field = Image.new("RGB", size, PAPER)
        scale = min(size[0] / image.width, size[1] / image.height)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        field.paste(image, ((size[0] - width) // 2, (size[1] - height) // 2))
        return field


def _draw_band(
    sheet: Image.Image, top: int, row: SheetRow, crops: Crops, *, captions: tuple[str, str]
) -> None:
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, sheet.width, top, row)
    middle = top + _HEADER + 12 + (2 * _LINE - QUERY[1]) // 2
    draw.text((_MARGIN, middle - 22), "query", INK, _font(15))
    sheet.paste(crops.get(row.query, QUERY), (_MARGIN, middle))
    for number, (caption, cells) in enumerate(zip(captions, (row.before, row.after), strict=True)):
        line_top = top + _HEADER + 12 + number * _LINE
        draw.text((_CELLS_LEFT, line_top), plain(caption), INK, _font(15))
        for column, (cell, rank) in enumerate(zip(cells, counted_ranks(cells), strict=True)):
            place = _CELLS_LEFT + column * _PITCH, line_top + 24
            _draw_cell(sheet, draw, place, cell, rank, crops)


def _draw_header(draw: ImageDraw.ImageDraw, width: int, top: int, row: SheetRow) -> None:
    draw.rectangle((_MARGIN, top, width - _MARGIN - 1, top + _HEADER - 1), PAPER)
    middle = top + _HEADER / 2
    text, colour = _change(row)
    room = width - 2 * _MARGIN - _font(15).getlength(text) - 48
    name = _fitted(row.query, 15, room)
    draw.text((_MARGIN + 10, middle), name, INK, _font(15), anchor="lm")
    draw.text((width - _MARGIN - 10, middle), text, colour, _font(15), anchor="rm")


def _change(row: SheetRow) -> tuple[str, Colour]:
    if not row.has_labels:
        return "", INK
    old, new = first_match(row.before), first_match(row.after)
    beyond = max(len(row.before), len(row.after)) + 1
    gain = (old or beyond) - (new or beyond)
    return change_of(row), FRAMES["match"] if gain > 0 else FRAMES["other"] if gain < 0 else FAINT


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    cell: Cell,
    rank: int | None,
    crops: Crops,
) -> None:
    """Draw the frame with its left top corner at `place`, the crop inside, and numbers below."""
    left, top = place
    right, bottom = left + CROP[0] + 2 * FRAME, top + CROP[1] + 2 * FRAME
    if cell.verdict is not None:
        draw.rectangle((left, top, right - 1, bottom - 1), FRAMES[cell.verdict])
    sheet.paste(crops.get(cell.path, CROP), (left + FRAME, top + FRAME))
    badge = INK if cell.verdict is None else FRAMES[cell.verdict]
    draw.rounded_rectangle((left, bottom + 4, left + 25, bottom + 20), 4, badge)
    number = "-" if rank is None else str(rank)
    draw.text((left + 13, bottom + 12), number, WHITE, _font(13), anchor="mm")
    _draw_mark(draw, (left + 1, bottom + 25), cell.verdict)
    draw.text((right - 1, bottom + 12), f"{cell.distance:.3f}", INK, _font(13), anchor="rm")
    if cell.mu is not None:
        draw.text((right - 1, bottom + 28), f"mu {cell.mu:.3f}", FAINT, _font(13), anchor="rm")


def _draw_mark(draw: ImageDraw.ImageDraw, place: Size, verdict: Verdict | None) -> None:
    """Draw a tick or a cross: not everybody tells green from red."""
    left, top = place
    if verdict == "match":
        tick = [(left, top + 4), (left + 3, top + 7), (left + 8, top)]
        draw.line(tick, FRAMES[verdict], 2, joint="curve")
    elif verdict == "other":
        draw.line((left, top, left + 7, top + 7), FRAMES[verdict], 2)
        draw.line((left, top + 7, left + 7, top), FRAMES[verdict], 2)


def _fitted(path: str, size: int, width: float) -> str:
    """Return the path, or as much of its end as fits."""
    text = whole = plain(path)
    while text and _font(size).getlength(text) > width:
        whole = whole[1:]
        text = f"...{whole}" if whole else ""
    return text


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - given a size, it is
    return font

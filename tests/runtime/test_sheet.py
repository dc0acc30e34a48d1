import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from murank import OutputError, Ranking
from murank.rerank.mu import MuDistances
from murank.sheet import (
    Cell,
    SheetRow,
    choose_queries,
    count_changes,
    draw_sheet,
    rows_of,
    write_sheet,
)
from murank.sheet.drawing import CROP, FRAME, FRAMES, INK, PAPER, QUERY, UNREADABLE
from murank.sheet.sheet_rows import Verdict, counted_ranks, first_match

Colour = tuple[int, int, int]
BLUE: Colour = (10, 20, 230)
YELLOW: Colour = (230, 220, 10)


def ranking(orders: list[list[int]], *, labels: bool = True) -> Ranking:
    """Queries of person 1, 2, ... by camera 1; gallery 0: person 1 by camera 1, then by camera 2
    persons 1, 2, 3, ...
    """
    indices = np.array(orders)
    num_query, num_gallery = len(orders), 8
    distances = np.tile(np.arange(indices.shape[1]) / 4, (num_query, 1)).astype(np.float32)
    found = Ranking(
        indices,
        distances,
        np.array([f"query/{q}.png" for q in range(num_query)]),
        np.array([f"gallery/{g}.png" for g in range(num_gallery)]),
    )
    if not labels:
        return found
    return replace(
        found,
        q_pids=np.arange(1, num_query + 1),
        g_pids=np.array([1, *range(1, num_gallery)]),
        q_camids=np.ones(num_query, int),
        g_camids=np.array([1] + [2] * (num_gallery - 1)),
    )


def test_cells() -> None:
    before, after = ranking([[0, 2, 1], [1, 2, 0]]), ranking([[1, 0, 2], [2, 1, 0]])
    mu = MuDistances(np.array([[0.25, 0.5], [0.75, 1]]), np.array([[1, 2], [0, 2]]))
    rows = rows_of(before, after, mu, [1, 0], n_shown=2)
    assert rows[0] == SheetRow(
        "query/1.png",
        before=(
            Cell("gallery/1.png", 0.0, None, "other"),
            Cell("gallery/2.png", 0.25, 1.0, "match"),
        ),
        after=(
            Cell("gallery/2.png", 0.0, 1.0, "match"),
            Cell("gallery/1.png", 0.25, None, "other"),
        ),
    )
    assert [cell.verdict for cell in rows[1].before] == ["junk", "other"]
    assert [cell.mu for cell in rows[1].after] == [0.25, None]


def test_junk_counts_where_it_is_kept_alone() -> None:
    """Gallery 1 and 2 are of pid -1, and so is the first query."""
    pids = np.array([1, -1, -1, 3, 4, 5, 6, 7])
    before, after = (
        replace(ranking(orders), q_pids=np.array([-1, 3]), g_pids=pids)
        for orders in ([[0, 1, 3], [1, 3, 2]], [[1, 0, 3], [3, 1, 2]])
    )
    drops_junk = {"junk": "drop"}
    expected = {False: [["other", "match", "other"], ["other", "match", "other"]],
                True: [["other", "junk", "other"], ["junk", "match", "junk"]]}  # fmt: skip
    for drop_junk, verdicts in expected.items():
        rows = rows_of(before, after, None, [0, 1], protocol=drops_junk if drop_junk else {})
        assert [[cell.verdict for cell in row.before] for row in rows] == verdicts
    # The first right match of query 1 is the first that counts, before and after.
    assert "up for 2, down for 0 and kept its rank for 0; 0 have" in count_changes(before, after)[1]
    dropped = count_changes(before, after, protocol=drops_junk)[1]
    assert "up for 0, down for 0 and kept its rank for 1; 1 have" in dropped
    assert choose_queries(before, after, max_queries=1, protocol=drops_junk) == [0]


def test_cells_without_labels_or_mu() -> None:
    one = ranking([[0, 1]], labels=False)
    rows = rows_of(one, one, None, [0])
    assert {(cell.mu, cell.verdict) for cell in rows[0].before} == {(None, None)}
    assert not rows[0].has_labels


def test_camera_ids_are_needed_to_judge() -> None:
    one = replace(ranking([[0, 1]]), g_camids=None)
    assert not rows_of(one, one, None, [0])[0].has_labels


def test_junk_has_no_rank() -> None:
    verdicts: list[Verdict] = ["junk", "other", "junk", "match", "match"]
    cells = [Cell("", 0, None, verdict) for verdict in verdicts]
    assert counted_ranks(cells) == [None, 1, None, 2, 3]
    assert first_match(cells) == 2
    assert first_match(cells[:3]) is None


def test_gains_and_losses_take_turns_largest_first() -> None:
    #                  same       gain 1     loss 2     gain 2     loss 1     gain 2
    before = ranking([[1, 2, 3], [1, 2, 3], [3, 1, 2], [1, 2, 4], [5, 1, 2], [1, 2, 6]])
    after = ranking([[1, 3, 2], [2, 1, 3], [1, 2, 3], [4, 1, 2], [1, 5, 2], [6, 1, 2]])
    assert choose_queries(before, after) == [3, 2, 5, 4, 1, 0]
    assert choose_queries(before, after, max_queries=2) == [3, 2]
    assert choose_queries(after, before, max_queries=2) == [2, 3]
    assert count_changes(before, after) == [
        "6 queries, 8 gallery images.",
        "Over all queries the first right match moved up for 3, down for 2 and kept its rank for "
        "1; 0 have none within the first 3.",
    ]


def test_junk_that_moves_is_no_change() -> None:
    before, after = ranking([[0, 1], [2, 1], [4, 3]]), ranking([[1, 0], [2, 3], [3, 4]])
    assert choose_queries(before, after) == [2, 0, 1]


def test_changes_that_are_not_shown_do_not_count() -> None:
    before, after = ranking([[1, 2], [5, 2], [6, 3]]), ranking([[1, 2], [2, 5], [3, 6]])
    assert choose_queries(before, after) == [1, 2, 0]
    before, after = ranking([[1, 2], [5, 4], [6, 3]]), ranking([[1, 2], [5, 2], [3, 6]])
    assert choose_queries(before, after, n_shown=1) == [2, 0, 1]


def test_without_labels_the_first_queries_are_shown() -> None:
    before, after = ranking([[0, 1]] * 5, labels=False), ranking([[1, 0]] * 5, labels=False)
    assert choose_queries(before, after, max_queries=3) == [0, 1, 2]
    assert choose_queries(before, after) == [0, 1, 2, 3, 4]
    assert count_changes(before, after) == ["5 queries, 8 gallery images."]


def sheet_of(row: SheetRow, root: Path) -> Image.Image:
    return draw_sheet([row], before="encoder", after="k-reciprocal", title="Sheet", root=root)


def save(root: Path, name: str, colour: Colour, size: tuple[int, int] = CROP) -> str:
    Image.new("RGB", size, colour).save(root / name)
    return name


def frames(sheet: Image.Image, verdict: Verdict) -> list[tuple[int, int]]:
    """Left top corner of each frame: where a run of its colour as wide as a frame begins."""
    mask = has_colour(sheet, FRAMES[verdict])
    starts = sliding_window_view(mask, CROP[0] + 2 * FRAME, axis=1).all(axis=-1)
    height = CROP[1] + 2 * FRAME
    corners = [(int(x), int(y)) for y, x in np.argwhere(starts)]
    return [(x, y) for x, y in corners if mask[y : y + height, x].all()]


def has_colour(sheet: Image.Image, colour: Colour) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (np.asarray(sheet) == colour).all(axis=2)
    return found


def test_frames_and_crops(tmp_path: Path) -> None:
    query = save(tmp_path, "query.png", BLUE)
    image = save(tmp_path, "image.png", YELLOW)
    match, other, junk = (Cell(image, 0.5, None, one) for one in ("match", "other", "junk"))
    sheet = sheet_of(SheetRow(query, (match, other), (junk, match)), tmp_path)
    first, last = frames(sheet, "match")
    (wrong,), (left_out,) = frames(sheet, "other"), frames(sheet, "junk")
    assert first[1] == wrong[1] < left_out[1] == last[1]
    assert first[0] == left_out[0] < wrong[0] == last[0]
    corners: list[tuple[tuple[int, int], Verdict]]
    corners = [(first, "match"), (wrong, "other"), (left_out, "junk")]
    for (x, y), verdict in corners:
        right, bottom = x + CROP[0] + 2 * FRAME - 1, y + CROP[1] + 2 * FRAME - 1
        for place in ((x, y), (right, bottom), (x + FRAME - 1, y + 50), (x + 30, bottom)):
            assert sheet.getpixel(place) == FRAMES[verdict]
        for place in ((x + FRAME, y + FRAME), (right - FRAME, bottom - FRAME)):
            assert sheet.getpixel(place) == YELLOW
        assert sheet.getpixel((x - 1, y)) == sheet.getpixel((right + 1, y)) == (255, 255, 255)
    assert has_colour(sheet, BLUE).sum() == QUERY[0] * QUERY[1]


def test_no_labels_no_frames(tmp_path: Path) -> None:
    image = save(tmp_path, "image.png", YELLOW)
    cells = (Cell(image, 0.5, 0.25, None), Cell(image, 0.75, None, None))
    sheet = sheet_of(SheetRow(image, cells, cells), tmp_path)
    for colour in FRAMES.values():
        assert not has_colour(sheet, colour).any()
    assert has_colour(sheet, YELLOW).sum() == QUERY[0] * QUERY[1] + 4 * CROP[0] * CROP[1]
    assert has_colour(sheet, INK).any()


@pytest.mark.parametrize("size", [(40, 20), (20, 200), (1, 5000), (5000, 1)])
def test_the_aspect_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    query = save(tmp_path, "query.png", BLUE)
    image = save(tmp_path, "image.png", YELLOW, size)
    sheet = sheet_of(SheetRow(query, (Cell(image, 0, None, "match"),), ()), tmp_path)
    ((x, y),) = frames(sheet, "match")
    left, top = x + FRAME, y + FRAME
    crop = sheet.crop((left, top, left + CROP[0], top + CROP[1]))
    rows, columns = has_colour(crop, YELLOW).any(axis=1), has_colour(crop, YELLOW).any(axis=0)
    scale = min(CROP[0] / size[0], CROP[1] / size[1])
    assert columns.sum() == max(1, round(size[0] * scale))
    assert rows.sum() == max(1, round(size[1] * scale))
    assert has_colour(crop, PAPER).sum() == CROP[0] * CROP[1] - rows.sum() * columns.sum()


def test_unreadable_images_do_not_stop_the_sheet(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    cells = (Cell("broken.png", 0, None, "match"), Cell("missing.png", 0, None, "other"))
    sheet = sheet_of(SheetRow("folder/\n\udcff.png", cells, ()), tmp_path)
    ((x, y),) = frames(sheet, "match")
    assert sheet.getpixel((x + FRAME, y + FRAME)) == UNREADABLE
    left, middle = x + FRAME, y + FRAME + CROP[1] // 2
    word = sheet.crop((left, middle - 8, left + CROP[0], middle + 8))
    assert 20 < (~has_colour(word, UNREADABLE)).sum() < 500
    ((x, y),) = frames(sheet, "other")
    assert sheet.getpixel((x + FRAME, y + FRAME)) == UNREADABLE


def test_a_band_a_query(tmp_path: Path) -> None:
    image = save(tmp_path, "image.png", YELLOW)
    row = SheetRow(image, (Cell(image, 0, None, "match"),), (Cell(image, 0, None, "match"),))
    heights = []
    for count in range(3):
        sheet = draw_sheet([row] * count, before="b", after="a", title="t", root=tmp_path)
        assert len(frames(sheet, "match")) == 2 * count
        heights.append(sheet.height)
    assert heights[2] - heights[1] == heights[1] - heights[0]


def test_notes_make_room_for_themselves() -> None:
    plain = draw_sheet([], before="b", after="a", title="t")
    noted = draw_sheet([], before="b", after="a", title="t", notes=["one", "two"])
    assert noted.height > plain.height


def test_each_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from murank.sheet import drawing

    decoded = []

    def load(path: Path, **_options: object) -> Image.Image:
        decoded.append(path.name)
        return Image.new("RGB", CROP)

    monkeypatch.setattr(drawing, "load_image", load)
    sheet_of(SheetRow("q", (Cell("a", 0, None, None),) * 3, (Cell("a", 1, None, None),)), tmp_path)
    assert sorted(decoded) == ["a", "q"]


def test_write(tmp_path: Path) -> None:
    sheet = Image.new("RGB", (20, 10), BLUE)
    file = tmp_path / "new" / "sheet.png"
    for _ in range(2):  # an older sheet is replaced
        write_sheet(file, sheet)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["sheet.png"]
    with Image.open(file) as written:
        assert written.format == "PNG"
        assert has_colour(written, BLUE).all()
    with pytest.raises(OutputError, match="is a folder; name a file"):
        write_sheet(tmp_path, sheet)


def test_a_failure_keeps_the_old_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sheet.png"
    write_sheet(file, Image.new("RGB", (20, 10), BLUE))
    before = file.read_bytes()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_sheet(file, Image.new("RGB", (20, 10), YELLOW))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]

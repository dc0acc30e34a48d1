import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import murank
from murank import InputError
from murank.datasets import load_dataset
from murank.datasets.market_style import parse_name
from murank_export.world import Domain, Person, draw_crop, make_domain, market
from murank_export.world.market import WorldSettings, draw_sheet, write_world
from murank_export.world.people import differences

SETTINGS = WorldSettings(
    "mall", people=3, train_people=2, distractors=4, cameras=3, seen_by=2, shots=3
)
TINY = WorldSettings("mall", people=1, distractors=0, cameras=2, seen_by=2)
FOLDERS = ("query", "bounding_box_test", "bounding_box_train")


class Drawn:
    """Who was drawn, by which camera, and into which file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.people: list[Person] = []
        self.cameras: list[int] = []
        self.domains: list[Domain] = []
        self.files: list[Path] = []
        save = Image.Image.save

        def draw(person: Person, domain: Domain, camera: int, seed: tuple[int, ...]) -> Image.Image:
            self.people.append(person)
            self.cameras.append(camera)
            self.domains.append(domain)
            return draw_crop(person, domain, camera, seed)

        def keep(image: Image.Image, file: Path, **options: Any) -> None:
            self.files.append(file)
            save(image, file, **options)

        monkeypatch.setattr(market, "draw_crop", draw)
        monkeypatch.setattr(Image.Image, "save", keep)

    def by_pid(self) -> dict[int, set[Person]]:
        found: dict[int, set[Person]] = {}
        for file, person, camera in zip(self.files, self.people, self.cameras, strict=True):
            label = parse_name(file.name)
            assert label is not None
            assert label[1] == camera
            found.setdefault(label[0], set()).add(person)
        return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_reader_of_market1501_reads_it(tmp_path: Path) -> None:
    counts = write_world(tmp_path / "world", SETTINGS)
    assert counts == {"query": 6, "bounding_box_test": 16, "bounding_box_train": 12}
    found = load_dataset("market1501", tmp_path / "world")
    for images, count in ((found.query, 6), (found.gallery, 16)):
        assert images.pids is not None
        assert images.camids is not None
        assert len(images.paths) == len(images.pids) == count
        assert set(images.camids.tolist()) <= {0, 1, 2}
    assert found.query.pids is not None
    assert found.gallery.pids is not None
    assert Counter(found.query.pids.tolist()) == {1: 2, 2: 2, 3: 2}
    assert Counter(found.gallery.pids.tolist()) == {0: 4, 1: 4, 2: 4, 3: 4}


def test_every_query_can_be_found_by_another_camera(tmp_path: Path) -> None:
    write_world(tmp_path, SETTINGS)
    found = load_dataset("market1501", tmp_path)
    sides = []
    for images in (found.query, found.gallery):
        assert images.pids is not None
        assert images.camids is not None
        sides.append(Counter(zip(images.pids.tolist(), images.camids.tolist(), strict=True)))
    query, gallery = sides
    for (pid, camera), count in query.items():
        assert count == 1  # a person's only query of that camera
        assert [key[1] for key in gallery if key[0] == pid and key[1] != camera] != []
        assert gallery[pid, camera] == SETTINGS.shots - 1
    assert sorted(key for key in gallery if key[0] == 0) == [(0, 0), (0, 1), (0, 2)]


def test_images_are_crops_of_their_cameras_quality(tmp_path: Path) -> None:
    write_world(tmp_path, replace(SETTINGS, domain="far"))
    cameras = make_domain("far", num_cameras=3).cameras
    files = [file for name in FOLDERS for file in (tmp_path / name).iterdir()]
    for file in files:
        label = parse_name(file.name)
        assert label is not None
        again = tmp_path / "again.jpg"
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))
            image.save(again, quality=cameras[label[1]].quality)
            with Image.open(again) as reference:
                assert vars(image)["quantization"] == vars(reference)["quantization"]
    assert len({camera.quality for camera in cameras}) > 1


def test_who_is_who(tmp_path: Path, drawn: Drawn) -> None:
    write_world(tmp_path, SETTINGS)
    found = drawn.by_pid()
    strangers = found.pop(0)
    assert len(strangers) == 4
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert {len(people) for people in found.values()} == {1}
    trained = {parse_name(name) for name in names(tmp_path / "bounding_box_train")}
    assert {label[0] for label in trained if label is not None} == {4, 5}
    everyone = [person for people in found.values() for person in people]
    assert len({*everyone, *strangers}) == 9


def test_people_of_one_role_share_no_body_with_another(tmp_path: Path, drawn: Drawn) -> None:
    """A look-alike keeps the body of whom it was made from: none crosses over."""
    settings = WorldSettings(
        "mall", people=9, train_people=9, distractors=9, cameras=2, seen_by=2, look_alikes=1.0,
        details=1,
    )  # fmt: skip
    write_world(tmp_path, settings)
    found = drawn.by_pid()
    test, train = ([found[pid].pop() for pid in pids] for pids in (range(1, 10), range(10, 19)))
    widths = [{person.width for person in people} for people in (test, train, found[0])]
    assert all(len(width) < 4 for width in widths)  # nearly all are look-alikes
    assert len(set().union(*widths)) == sum(map(len, widths))
    alike = [pair for pair in (*pairwise(test), *pairwise(train)) if pair[0].width == pair[1].width]
    for one, other in alike:
        assert 1 <= len(differences(one, other)) <= 2  # a bag or a hat comes with its colour


def test_the_same_settings_give_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_world(tmp_path / name, SETTINGS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "same_people"),
    [({"seed": 1}, False), ({"place": 1}, True), ({"domain": "dusk"}, True)],
)
def test_what_a_setting_changes(
    tmp_path: Path, drawn: Drawn, change: dict[str, Any], same_people: bool
) -> None:
    """Another place, of this or another kind, sees the same people; no image stays as it was."""
    write_world(tmp_path / "a", SETTINGS)
    count = len(drawn.people)
    write_world(tmp_path / "b", replace(SETTINGS, **change))
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert (drawn.people[:count] == drawn.people[count:]) == same_people
    assert (one.keys() == other.keys()) == same_people
    assert not set(one.values()) & set(other.values())


def test_the_place_decides_on_the_cameras(tmp_path: Path, drawn: Drawn) -> None:
    settings = replace(TINY, domain="broad-4", place=3)
    expected = make_domain("broad-4", seed=3, num_cameras=2)
    for draw in (lambda: write_world(tmp_path, settings), lambda: draw_sheet(settings)):
        draw()
        (domain,) = set(drawn.domains)
        assert (domain.name, domain.occlusion) == ("broad-4", expected.occlusion)
        assert [one.gain for one in domain.cameras] == [one.gain for one in expected.cameras]
        drawn.domains.clear()


def test_no_train_people_no_folder_for_them(tmp_path: Path) -> None:
    assert write_world(tmp_path / "w", TINY) == {"query": 2, "bounding_box_test": 2}
    assert names(tmp_path / "w") == ["bounding_box_test", "query", "world.json"]


def test_the_record(tmp_path: Path) -> None:
    counts = write_world(tmp_path, SETTINGS)
    record = json.loads((tmp_path / "world.json").read_text())
    assert record == {
        "murank_version": murank.__version__,
        "notice": "Drawn by a program: no real person.",
        "settings": asdict(SETTINGS),
        "images": counts,
    }


def test_progress(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    write_world(tmp_path, TINY, progress=lambda *call: seen.append(call))
    assert seen == [("images", number, 4) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": 0}, "people must be at least 1"),
        ({"train_people": -1}, "train-people at least 0"),
        ({"people": 5000, "train_people": 5000}, "at most 9999; got 5000, 5000"),
        ({"distractors": -1}, "distractors and the place must be at least 0"),
        ({"place": -1}, "got 4, -1, 0"),
        ({"seed": -1}, r"the seed 0\.\.999999"),
        ({"seed": 1_000_000}, r"the seed 0\.\.999999"),
        ({"seen_by": 1}, "at least two of the cameras"),
        ({"seen_by": 4}, "got 4 of 3 cameras, 3 shots"),
        ({"shots": 1}, "two shots each or more"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **wrong)


def test_settings_at_their_ends() -> None:
    replace(SETTINGS, people=4999, train_people=5000, seed=999_999, seen_by=3, shots=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"domain": "moon"}, "no domain is called 'moon'"),
        ({"look_alikes": 1.5}, r"look-alikes in 0\.\.1"),
        ({"details": 0}, "details must be at least 1"),
    ],
)
def test_settings_that_cannot_be_drawn(
    tmp_path: Path, drawn: Drawn, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_world(tmp_path / "world", replace(SETTINGS, **wrong))
    assert drawn.people == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=message):
        draw_sheet(replace(SETTINGS, **wrong))


def test_the_sheet_shows_people_by_cameras(drawn: Drawn) -> None:
    sheet = draw_sheet(SETTINGS, rows=2)
    assert (sheet.mode, sheet.size) == ("RGB", (3 * 66, 2 * 130))
    assert drawn.cameras == [0, 1, 2, 0, 1, 2]
    one, other = (set(drawn.people[row : row + 3]) for row in (0, 3))
    assert len(one) == len(other) == 1
    assert one != other
    cells = np.asarray(sheet).reshape(2, 130, 3, 66, 3)
    assert (cells[:, 128:] == 255).all()
    assert (cells[:, :, :, 64:] == 255).all()
    assert (cells[:, :128, :, :64].std(axis=(1, 3)) > 10).all()


def test_the_sheet_is_of_the_people_in_the_world(tmp_path: Path, drawn: Drawn) -> None:
    write_world(tmp_path, SETTINGS)
    found = drawn.by_pid()
    count = len(drawn.people)
    sheet = draw_sheet(SETTINGS)
    assert sheet.size == (3 * 66, 3 * 130)  # there are three people
    assert set(drawn.people[count:]) == found[1] | found[2] | found[3]
    assert sheet == draw_sheet(SETTINGS)

"""A domain as a data set on disk: the folders and names of Market-1501."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from murank._exceptions import InputError, OutputError
from murank._version import __version__
from murank.files.atomic import check_writable, new_folder, readable_errors
from murank_export.world.domains import make_domain
from murank_export.world.people import Person, make_people
from murank_export.world.scene import draw_crop

QUERY, GALLERY, TRAIN = "query", "bounding_box_test", "bounding_box_train"
RECORD = "world.json"
_DISTRACTOR = 0  # the customary id of people nobody asks for
_MOST_PEOPLE = 9999  # four digits in a name
_DRAWN = re.compile(r"\d{4}_c\d+s1_\d{6}_00\.jpg")
# People of one seed but of different roles have nothing in common.
_ROLES = {TRAIN: 1_000_000_000, GALLERY: 2_000_000_000, "distractors": 3_000_000_000}


@dataclass(frozen=True)
class WorldSettings:
    """What to draw. The same settings give the same pixels (with the same NumPy and Pillow)."""

    domain: str
    people: int = 80  # with queries and gallery images
    train_people: int = 0  # others, for bounding_box_train
    distractors: int = 80  # gallery images of people nobody asks for
    cameras: int = 6
    seen_by: int = 4  # cameras that see one person
    shots: int = 2  # of a person by a camera; the first of a test person's is a query
    look_alikes: float = 0.5
    details: int = 2  # in which look-alikes differ, at most
    seed: int = 0  # of the people and their crops
    place: int = 0  # of the cameras: another number, another place of the same kind

    def __post_init__(self) -> None:
        total = self.people + self.train_people
        if self.people < 1 or self.train_people < 0 or total > _MOST_PEOPLE:
            raise InputError(
                "people must be at least 1, train-people at least 0, and both together at most "
                f"{_MOST_PEOPLE}; got {self.people}, {self.train_people}"
            )
        if self.distractors < 0 or not 0 <= self.seed < 1_000_000 or self.place < 0:
            raise InputError(
                "distractors and the place must be at least 0, and the seed 0..999999; "
                f"got {self.distractors}, {self.place}, {self.seed}"
            )
        if self.details < 1 or not 0 <= self.look_alikes <= 1:
            raise InputError(
                f"details must be at least 1 and look-alikes in 0..1, got {self.details} and "
                f"{self.look_alikes}"
            )
        if not 2 <= self.seen_by <= self.cameras or self.shots < 2:
            raise InputError(
                "a person must be seen by at least two of the cameras, with two shots each or "
                f"more; got {self.seen_by} of {self.cameras} cameras, {self.shots} shots"
            )


@dataclass(frozen=True)
class _Shot:
    """One crop to be drawn."""

    folder: str
    name: str
    person: Person
    camera: int
    seed: tuple[int, ...]


def write_world(
    folder: Path,
    settings: WorldSettings,
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Draw a data set into `folder`, whole or not at all; return the images of each subfolder.

    Raises
    ------
    InputError
        A setting is out of range, or no domain has that name.
    OutputError
        The folder is in use (and not a world that may be replaced), or cannot be written.
    """
    domain = make_domain(settings.domain, seed=settings.place, num_cameras=settings.cameras)
    shots = list(_shots(settings))
    with readable_errors(folder):
        _check_free(folder, overwrite=overwrite)
    counts = {name: sum(shot.folder == name for shot in shots) for name in _folders(shots)}
    record = {
        "murank_version": __version__, "notice": "Drawn by a program: no real person.",
        "settings": asdict(settings), "images": counts,
    }  # fmt: skip
    target = folder.resolve()
    with readable_errors(folder), new_folder(target, replace=overwrite, mode=0o777) as aside:
        for name in counts:
            (aside / name).mkdir()
        for number, shot in enumerate(shots):
            crop = draw_crop(shot.person, domain, shot.camera, shot.seed)
            crop.save(aside / shot.folder / shot.name, quality=domain.cameras[shot.camera].quality)
            if progress is not None:
                progress("images", number + 1, len(shots))
        (aside / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return counts


def draw_sheet(settings: WorldSettings, *, rows: int = 8) -> Image.Image:
    """Return a picture: a row for each of the first people, a column for each camera."""
    domain = make_domain(settings.domain, seed=settings.place, num_cameras=settings.cameras)
    people = _people(settings, GALLERY, settings.people)[:rows]
    gap, (width, height) = 2, (64, 128)
    sheet = Image.new(
        "RGB", ((width + gap) * settings.cameras, (height + gap) * len(people)), "white"
    )
    for row, person in enumerate(people):
        for camera in range(settings.cameras):
            crop = draw_crop(person, domain, camera, (settings.seed, row, camera, 9))
            sheet.paste(crop, (camera * (width + gap), row * (height + gap)))
    return sheet


def _folders(shots: list[_Shot]) -> list[str]:
    return [name for name in (QUERY, GALLERY, TRAIN) if any(s.folder == name for s in shots)]


def _people(settings: WorldSettings, role: str, count: int) -> list[Person]:
    if count == 0:
        return []
    return make_people(
        count, seed=_ROLES[role] + settings.seed, look_alikes=settings.look_alikes,
        details=settings.details,
    )  # fmt: skip


def _shots(settings: WorldSettings) -> Iterator[_Shot]:
    pid = 0
    for role, count in ((GALLERY, settings.people), (TRAIN, settings.train_people)):
        for person in _people(settings, role, count):
            pid += 1
            random = np.random.default_rng([_ROLES[role], settings.seed, pid])
            for camera in sorted(random.permutation(settings.cameras)[: settings.seen_by].tolist()):
                for shot in range(settings.shots):
                    folder = QUERY if role == GALLERY and shot == 0 else role
                    yield _Shot(
                        folder, f"{pid:04}_c{camera + 1}s1_{shot:06}_00.jpg", person, camera,
                        (_ROLES[role], settings.seed, settings.place, pid, camera, shot),
                    )  # fmt: skip
    strangers = _people(settings, "distractors", settings.distractors)
    for number, person in enumerate(strangers):
        camera = number % settings.cameras
        yield _Shot(
            GALLERY, f"{_DISTRACTOR:04}_c{camera + 1}s1_{number:06}_00.jpg", person, camera,
            (_ROLES["distractors"], settings.seed, settings.place, number),
        )  # fmt: skip


def _check_free(folder: Path, *, overwrite: bool) -> None:
    check_writable(folder.resolve().parent)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    # What somebody added to a world would be lost with it.
    images = [path for name in (QUERY, GALLERY, TRAIN) for path in (folder / name).glob("*")]
    if (
        names - {QUERY, GALLERY, TRAIN, RECORD}
        or not _is_record(folder / RECORD)
        or not all(_DRAWN.fullmatch(path.name) and path.is_file() for path in images)
    ):
        raise OutputError(f"{folder} holds something else; name another folder")
    if not overwrite:
        raise OutputError(f"{folder} exists; pass --overwrite to draw it again")


def _is_record(file: Path) -> bool:
    """Whether a file is what `write_world` leaves beside its images."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"murank_version", "settings", "images"} <= record.keys()

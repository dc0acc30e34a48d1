"""A name of a file that would forge a line and drive a terminal, and what may be shown of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORGED = "murank: done"
# A line of ours, an escape that names the window, a return to the line's begin, Arabic's override
# of direction, and a byte that is no UTF-8.
HOSTILE = f"a\n{FORGED}\x1b]0;x\x07\r\u202e\udcff"
ESCAPED = f"a\\n{FORGED}\\x1b]0;x\\x07\\r\\u202e\\udcff"


def make_images(
    folder: Path, *, people: int = 4, cameras: int = 2, name: str = HOSTILE
) -> list[Path]:
    """Crops of people, named as Market-1501 names them, and then hostile."""
    folder.mkdir(parents=True)
    random, paths = np.random.default_rng(0), []
    for number in range(people * cameras):
        path = folder / f"{1 + number // cameras:04d}_c{1 + number % cameras}{name}.png"
        pixels = random.integers(0, 255, (64, 32, 3), dtype=np.uint8)
        with path.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
        paths.append(path)
    return paths


def assert_harmless(*texts: str) -> None:
    """Nothing in it that is no visible character, and no line begins as it pleases."""
    for text in texts:
        for line in text.split("\n"):
            assert line.isprintable(), ascii(line)
            assert not line.startswith(FORGED)


def only_json(text: str) -> dict[str, Any]:
    """Return the one object, on one line of ASCII."""
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert text.isascii()
    found: dict[str, Any] = json.loads(text)
    return found

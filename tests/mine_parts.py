"""Features to mine, and `murank adapt mine` on them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_features import make_features

from murank import save_features
from murank.cli import main

Run = Callable[..., tuple[int, str, str]]
SPLIT = ("--val-ratio", "0.25")
MINE = ("adapt", "mine", "-o")


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Twelve people, three cameras, and strangers who share pid 0."""
    file = tmp_path / "f.npz"
    made = make_features(num_ids=12, num_cameras=3, images_per_camera=3, num_distractors=20, dim=24)
    save_features(file, made)
    return file


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Mine to `tmp_path/out/pairs`: exit code, stdout, stderr."""

    def _run(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, (*MINE, tmp_path / "out" / "pairs", *arguments))])
        out, err = capsys.readouterr()
        return code, out, err

    return _run

"""`murank rerank --workers ray`: strips of rows on actors give the ranking of one process."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from murank_kernels.tiles.strips import STRIP


def test_actors_find_the_same_neighbours(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((STRIP + 700, 8)).astype(np.float32)
    file = tmp_path / "f.npz"
    np.savez(file, features=rows, num_query=np.array(50))
    words = [sys.executable, "-m", "murank", "rerank", str(file), "--method", "ecn", "-o"]
    subprocess.run([*words, tmp_path / "one"], check=True)  # in a process: Ray warns
    subprocess.run([*words, tmp_path / "many", "--workers", "ray"], check=True)
    one, many = ((tmp_path / name / "ranking.npz").read_bytes() for name in ("one", "many"))
    assert one == many
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npz", "many", "one"]

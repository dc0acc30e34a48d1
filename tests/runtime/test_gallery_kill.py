"""A gallery whose process is killed at any moment: what was acknowledged is there, whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from faults.covered import written
from gallery_engines import feature_engine

from murank.gallery import Gallery

KILLS = 200 if os.environ.get("FAULTS") == "all" else 4
DIM = 16
HELPERS = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
ENV = {**os.environ, "PYTHONPATH": HELPERS}

# Adds, erases and aligns for ever, and says what is done.
WRITER = f"""
import sys
import numpy as np
from faults.covered import written
from gallery_engines import feature_engine
from murank.gallery import Gallery, vectors
vectors.CHUNK = 8
path, seed = sys.argv[1], int(sys.argv[2])
number, rng = 1000 * seed, np.random.default_rng(seed)
with Gallery.open(path, feature_engine({DIM}), align_dims=8) as gallery:
    print("open", flush=True)
    while True:
        ids = [str(number + i) for i in range(5)]
        number += 5
        print("adds", *ids, flush=True)
        gallery.add(features=rng.standard_normal((5, {DIM})), camera=[0, 1, 0, 1, 0], time=number,
                    id=ids, track=[ids[0], ids[0], None, None, None])
        print("added", *ids, flush=True)
        if rng.random() < 0.3:
            print("erases", ids[1], ids[2], flush=True)
            receipt = gallery.erase(ids=ids[1:3])
            print("erased" if receipt.complete else "hidden", ids[1], ids[2], flush=True)
        if rng.random() < 0.1:
            gallery.align()
"""


# SQLite writes by itself: stopped at any moment instead of at each step. A full disk:
# tests/runtime/test_gallery_refused.py.
@written(
    *(f"gallery {name} file" for name in ("add", "align", "erase", "import", "purge", "reembed"))
)
def test_kills(tmp_path: Path) -> None:
    path, there, gone = tmp_path / "g.db", set[str](), set[str]()
    moments = random.Random(0)  # noqa: S311  a test
    for seed in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(path), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            time.sleep(moments.random() * 0.3)
            writer.send_signal(signal.SIGKILL)
            lines = [line.split() for line in writer.stdout.read().split("\n")[:-1]]
        begun: set[str] = set()
        for what, *ids in lines:
            begun = set(ids) if what in ("adds", "erases") else set()
            there |= set(ids) if what == "added" else set()
            gone |= set(ids) if what == "erased" else set()
        check(path, there - gone - begun, gone, begun)
        # Of what was begun either all is done, or nothing.
        with Gallery.open(path, feature_engine(DIM), mode="r") as gallery:
            rows = gallery.get(sorted(begun))
            assert len({row is None for row in rows}) <= 1
            there |= {row.id for row in rows if row is not None}
            gone |= begun - {row.id for row in rows if row is not None}


def check(path: Path, there: set[str], gone: set[str], begun: set[str]) -> None:
    with Gallery.open(path, feature_engine(DIM)) as gallery:
        gallery.purge()
        assert gallery.verify().is_clean
        assert all(row is not None for row in gallery.get(sorted(there)))
        assert not any(gallery.get(sorted(gone - begun)))
        assert len(there) <= gallery.stats().rows <= len(there | begun)
        found = gallery.search(feature=np.ones(DIM, np.float32), top_k=10_000, method="none")
        assert len(found.matches) == gallery.stats().tracks

"""What a gallery refuses: one sentence that names it, and nothing is stored."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_engines import DIM, feature_engine, people

from murank import InputError, OutputError
from murank.gallery import Gallery

GOOD: dict[str, Any] = {"features": people(2, 1), "camera": 0, "time": 0}


@pytest.mark.parametrize(
    ("named", "how"),
    [
        ("camera", {"camera": -1}),
        ("camera", {"camera": "3"}),
        ("camera", {"camera": 1.5}),
        ("camera", {"camera": [0, 1, 2]}),
        (r"camera\[1\]", {"camera": [0, None]}),
        ("time", {"time": math.nan}),
        ("time", {"time": 1_795_000_000_000}),
        ("time", {"time": 10**400}),
        ("time", {"time": "now"}),
        ("time", {"time": datetime(2026, 1, 1)}),
        (r"time\[1\]", {"time": [0, math.inf]}),
        ("time", {"time": True}),
        ("track", {"track": ""}),
        ("track", {"track": 1.5}),
        ("track", {"track": ["a"]}),
        ("id", {"id": "one"}),
        ("id", {"id": ["a", "a"]}),
        ("id", {"id": [1, 2]}),
        ("subject", {"subject": 7}),
        ("subject", {"subject": "\ud800"}),
        ("attributes", {"attributes": "red"}),
        ("attributes", {"attributes": {1: "red"}}),
        ("attributes", {"attributes": {"a": None}}),
        ("attributes", {"attributes": {"a": math.nan}}),
        ("attributes", {"attributes": {"a": [1]}}),
        ("features", {"features": people(2, 1)[:, :5]}),
        ("features", {"features": np.ones((2, DIM), int)}),
        ("features", {"features": "abc"}),
        ("crops or features", {"features": None}),
        ("crops or features", {"crops": []}),
        ("crops", {"features": None, "crops": np.zeros((40, 20, 3), np.uint8)}),
        ("crops", {"features": None, "crops": "a.jpg"}),
    ],
)
def test_add(tmp_path: Path, named: str, how: dict[str, Any]) -> None:
    with Gallery.open(tmp_path / "g.db", feature_engine()) as gallery:
        with pytest.raises(InputError, match=named):
            gallery.add(**{**GOOD, **how})
        assert gallery.stats().rows == 0


@pytest.mark.parametrize(
    ("named", "how"),
    [
        ("crop, feature or id", {"feature": None}),
        ("crop, feature or id", {"id": "a"}),
        ("feature", {"feature": np.ones(3, np.float32)}),
        ("feature", {"feature": np.full(DIM, np.nan)}),
        ("feature", {"feature": np.zeros(DIM)}),
        ("feature", {"feature": "a.jpg"}),
        ("cameras", {"cameras": "3"}),
        ("cameras", {"cameras": [-1]}),
        ("since", {"since": "yesterday"}),
        ("until", {"until": datetime(2026, 1, 1)}),
        ("exclude_tracks", {"exclude_tracks": 1.5}),
        ("attributes", {"attributes": ["bag"]}),
        ("camera", {"camera": -1}),
        ("top_k", {"top_k": 0}),
        ("candidates", {"candidates": -1}),
        ("shortlist", {"shortlist": 0}),
        ("method", {"method": "ecn"}),
        ("k3", {"parameters": {"k3": 1}}),
        ("k1", {"parameters": {"k1": 0}}),
        ("deadline_ms", {"deadline_ms": 0}),
        ("deadline_ms", {"deadline_ms": math.nan}),
    ],
)
def test_search(tmp_path: Path, named: str, how: dict[str, Any]) -> None:
    with Gallery.open(tmp_path / "g.db", feature_engine()) as gallery:
        gallery.add(**GOOD)
        with pytest.raises(InputError, match=named):
            gallery.search(**{"feature": people(1, 1)[0], **how})


@pytest.mark.parametrize(
    ("named", "how"),
    [
        ("mode", {"mode": "w"}),
        ("keep", {"keep": "all"}),
        ("when_full", {"when_full": "drop"}),
        ("best_shots", {"best_shots": 0}),
        ("min_side", {"min_side": 0}),
        ("max_rows", {"max_rows": 0}),
        ("retention", {"retention": 0}),
        ("align_within", {"align_within": -1}),
        ("align_cameras", {"align_cameras": "all"}),
        ("align_dims", {"align_dims": 0}),
    ],
)
def test_open(tmp_path: Path, named: str, how: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=named):
        Gallery.open(tmp_path / "g.db", feature_engine(), **how)
    assert list(tmp_path.iterdir()) == []


def test_erase_takes_one_of_three(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g.db", feature_engine()) as gallery:
        for how in ({}, {"ids": "a", "track": "b"}):
            with pytest.raises(InputError, match="ids, track or subject"):
                gallery.erase(**how)
        assert gallery.erase(ids="no such").rows == 0


def test_no_such_id(tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "g.db", feature_engine())
    with gallery, pytest.raises(InputError, match="lost"):
        gallery.search(id="lost")


def test_path_in_use(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    with Gallery.open(path, feature_engine()):
        with pytest.raises(InputError, match="mode='r'"):
            Gallery.open(path, feature_engine())
        with Gallery.open(path, feature_engine(), mode="r") as reader:
            for change in (
                reader.align,
                reader.purge,
                lambda: reader.erase(ids="a"),
                lambda: reader.add(**GOOD),
            ):
                with pytest.raises(OutputError, match="mode='rw'"):
                    change()
    Gallery.open(path, feature_engine()).close()


def test_another_encoder_a_newer_format_and_what_is_no_gallery(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    Gallery.open(path, feature_engine()).close()
    with pytest.raises(InputError, match="another encoder"):
        Gallery.open(path, feature_engine(sha256="b" * 64))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="99"):
        Gallery.open(path, feature_engine())
    (tmp_path / "text.db").write_text("no database at all, but long enough to be one" * 30)
    with pytest.raises(InputError, match=r"text\.db"):
        Gallery.open(tmp_path / "text.db", feature_engine())
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE a (b)")
    with pytest.raises(InputError, match=r"other\.db"):
        Gallery.open(tmp_path / "other.db", feature_engine())
    with pytest.raises(InputError, match=r"none\.db"):
        Gallery.open(tmp_path / "none.db", feature_engine(), mode="r")
    with pytest.raises(OutputError, match="no such folder"):
        Gallery.open(tmp_path / "no such folder" / "g.db", feature_engine())


def test_an_engine_without_encoder(tmp_path: Path) -> None:
    engine = feature_engine()
    engine.encoder = None
    with pytest.raises(InputError, match="encoder"):
        Gallery.open(tmp_path / "g.db", engine)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(**GOOD)
    tmp_path.chmod(0o500)
    try:
        with Gallery.open(path, feature_engine(), mode="r") as gallery:
            assert gallery.stats().rows == 2
        with pytest.raises(OutputError):
            Gallery.open(path, feature_engine())
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_stores_nothing_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    with Gallery.open(path, feature_engine()) as gallery:
        gallery.add(**GOOD)
        file = gallery._state.file
        (pages,) = file.one("PRAGMA page_count")
        file.one(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match=r"g\.db"):
            gallery.add(features=people(500, 1), camera=0, time=0)
        assert gallery.stats().rows == 2
        assert len(gallery.search(feature=people(1, 1)[0], top_k=9).matches) == 2
        file.one("PRAGMA max_page_count = 100000")
        gallery.add(features=people(500, 1), camera=0, time=0)
        assert gallery.stats().rows == 502
        assert gallery.verify().is_clean


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As a full disk says it: the write itself fails, in SQLite's own code."""
    program = f"""
import resource
import numpy as np
from gallery_engines import feature_engine, people
from murank import OutputError
from murank.gallery import Gallery
with Gallery.open({str(tmp_path / "g.db")!r}, feature_engine()) as gallery:
    gallery.add(features=people(2, 1), camera=0, time=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    for number in range(20):
        try:
            gallery.add(features=people(200, 1, seed=number), camera=0, time=0)
        except OutputError as error:
            print("refused")
            break
    rows = gallery.stats().rows
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    gallery.add(features=people(2, 1), camera=0, time=0)
    print(gallery.stats().rows - rows, gallery.verify().is_clean)
"""
    helpers = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": helpers},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "refused\n2 True\n"


@pytest.mark.parametrize(
    "ask",
    [
        lambda gallery: gallery.search(id="a"), lambda gallery: gallery.get("a"),
        lambda gallery: gallery.stats(), lambda gallery: gallery.erase(ids="a"),
        lambda gallery: gallery.add(features=people(1, 1), camera=0, time=0.0),
        lambda gallery: gallery.verify(), lambda gallery: gallery.maintain(),
        lambda gallery: gallery.backup(gallery.path.with_name("b.db")),
        lambda gallery: gallery.export(gallery.path.with_name("c.npz")),
    ],
)  # fmt: skip
def test_one_that_was_closed_is_said_to_be_closed_and_not_damaged(ask: Any, tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "g.db", feature_engine())
    gallery.add(features=people(1, 1), camera=0, time=0.0, id="a")
    gallery.close()
    with pytest.raises(InputError, match="was closed"):
        ask(gallery)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["g.db", "g.db-lock"]

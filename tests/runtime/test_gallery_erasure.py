"""Erasure is real: no window of what was erased is in any file; what is left, verify names."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_engines import feature_engine, people
from search_parts import make_engine, make_images

from murank import OutputError
from murank.engine.steps import steps_of
from murank.gallery import Gallery, vectors

WINDOW = 64
WIDE = 64  # values of a feature: 256 bytes


def windows(data: bytes) -> set[bytes]:
    """Every window of some bytes; of a feature they are of nobody else."""
    return {data[i : i + WINDOW] for i in range(len(data) - WINDOW + 1)}


def left(folder: Path, sought: set[bytes]) -> list[str]:
    """Files that hold one of them."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and windows(path.read_bytes()) & sought
    ]


@pytest.mark.parametrize("sealed", [False, True])
def test_no_window_of_a_feature_is_left(
    tmp_path: Path, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sealed:
        monkeypatch.setattr(vectors, "CHUNK", 4)
    features = people(20, 2, dim=WIDE)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    with Gallery.open(tmp_path / "g.db", feature_engine(WIDE), align_cameras="off") as gallery:
        gallery.add(features=features, camera=0, time=0, subject=[f"p{i // 2}" for i in range(40)],
                    track=[f"t{i // 4}" for i in range(40)])  # fmt: skip
        stored = gallery._state.reads
        own = [stored_feature(stored, unit, row) for row in (6, 7)]
        sought = set().union(
            *(
                windows(one) | windows(np.frombuffer(one, np.float32).astype(np.float16).tobytes())
                for one in own
            )
        )
        assert left(tmp_path, sought)
        receipt = gallery.erase(subject="p3")
        assert (receipt.rows, receipt.vectors, receipt.complete) == (2, 2, True)
        assert left(tmp_path, sought) == []
        assert gallery.verify(erased=receipt).is_clean
        units: Any = gallery._state._searched.units
        blocks = units._features._blocks
        assert not any(windows(rows.tobytes()) & sought for rows, _ in blocks)
    assert left(tmp_path, sought) == []


def stored_feature(file: object, unit: np.ndarray, row: int) -> bytes:
    """Return the bytes that are stored of a feature."""
    everything = np.concatenate([one.features for one in vectors.all_vectors(file)])  # type: ignore[arg-type]
    place = int(np.argmin(np.abs(everything - unit[row]).sum(axis=1)))
    return bytes(everything[place].tobytes())


def test_crops_and_tokens_go_and_the_engine_forgets_them(tmp_path: Path) -> None:
    engine = make_engine()
    engine.encoder_sha256 = "a" * 64
    forgotten: list[str] = []
    engine.forget_key = forgotten.append  # type: ignore[method-assign, assignment]
    crops = [np.kron(one, np.ones((8, 8, 1), np.uint8)) for one in make_images(3)]
    with Gallery.open(tmp_path / "g.db", engine) as gallery:
        gallery.add(crops, camera=0, time=0, id=["a", "b", "c"])
        file = gallery._state.reads
        kept = dict(file.all("SELECT id, jpeg FROM pictures JOIN shots USING (shot)"))
        (key,) = file.one("SELECT key FROM pictures JOIN shots USING (shot) WHERE id = 'b'")
        receipt = gallery.erase(ids="b")
        assert (receipt.crops, receipt.vision_tokens) == (1, 0)
        assert forgotten == [key]
        # All JPEG files have tables in common.
        assert left(tmp_path, windows(kept["b"]) - windows(kept["a"]) - windows(kept["c"])) == []
        assert gallery.search(crops[1]).scored == 2


def test_what_is_erased_while_it_is_looked_at_is_forgotten_afterwards(tmp_path: Path) -> None:
    engine = make_engine()
    engine.encoder_sha256 = "a" * 64
    crops = [np.kron(one, np.ones((8, 8, 1), np.uint8)) for one in make_images(10)]
    with Gallery.open(tmp_path / "g.db", engine) as gallery:
        gallery.add(crops, camera=0, time=0, id=[f"{i}" for i in range(10)])
        keys = {row[0] for row in gallery._state.reads.all("SELECT key FROM pictures")}
        for ends in (True, False):
            gallery.add(crops, camera=0, time=0, id=[f"{i}" for i in range(10)])
            steps = steps_of(gallery.search, id="0", deadline_ms=1e9)
            batch = next(steps)
            assert batch is not None
            assert gallery.erase(ids=[f"{i}" for i in range(10)]).complete
            forgotten: list[str] = []
            engine.forget_key = forgotten.append  # type: ignore[method-assign, assignment]
            if ends:
                with contextlib.suppress(StopIteration):
                    while True:
                        batch = steps.send(np.zeros((len(batch.tokens), 2), np.float32))
                        assert batch is not None
            else:
                steps.close()  # as a worker drops what was cancelled
            assert set(forgotten) == keys


def test_a_picture_that_a_better_one_replaced_is_forgotten(tmp_path: Path) -> None:
    engine = make_engine()
    engine.encoder_sha256 = "a" * 64
    small, large = (np.kron(one, np.ones((n, n, 1), np.uint8)) for one, n in
                    zip(make_images(2), (8, 16), strict=True))  # fmt: skip
    with Gallery.open(tmp_path / "g.db", engine, best_shots=1) as gallery:
        gallery.add([small], camera=0, time=0, track="t")
        ((key,),) = gallery._state.reads.all("SELECT key FROM pictures")
        forgotten: list[str] = []
        engine.forget_key = forgotten.append  # type: ignore[method-assign, assignment]
        gallery.add([large], camera=0, time=1, track="t")
        assert forgotten == [key]


def test_of_two_erasures_of_one_shot_the_second_has_none(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g.db", feature_engine()) as gallery:
        gallery.add(features=people(40, 1), camera=0, time=0, id=[f"{i}" for i in range(40)])
        found: list[int] = []

        def erase(first: int) -> None:
            for last in range(first, 40, 2):
                receipt = gallery.erase(ids=[f"{k}" for k in range(last + 1)])
                found.append(receipt.rows)

        threads = [threading.Thread(target=erase, args=(first,)) for first in (0, 1)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sum(found) == 40
        assert len(found) == 40
        assert gallery.verify().is_clean


def test_a_reader_keeps_it_from_being_complete_until_purge(tmp_path: Path) -> None:
    features = people(20, 1, dim=WIDE)
    with Gallery.open(tmp_path / "g.db", feature_engine(WIDE)) as gallery:
        gallery.add(features=features, camera=0, time=0, id=[f"{i}" for i in range(20)])
        with reading(tmp_path / "g.db"):
            gallery._state.file.run("PRAGMA busy_timeout = 50")
            receipt = gallery.erase(ids="3")
            assert not receipt.complete
            assert gallery.stats().erasures_pending
            assert gallery.verify().remains
            assert "3" not in [m.id for m in gallery.search(feature=features[3]).matches]
        assert gallery.purge().complete
        assert gallery.verify(erased=receipt).is_clean
        assert not gallery.stats().erasures_pending


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Another process's open read."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM shots").fetchone()
        yield


def test_verify_names_what_is_there_again(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "g.db", feature_engine()) as gallery:
        gallery.add(features=people(2, 1), camera=0, time=0, id=["a", "b"])
        receipt = gallery.erase(ids="a")
        gallery.add(features=people(1, 1), camera=0, time=0, id=["a"])
        (remains,) = gallery.verify(erased=receipt).remains
        assert " a " in remains


def test_flipped_bytes_hide_their_tracks_and_verify_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK", 8)
    path, features = tmp_path / "g.db", people(24, 1, dim=WIDE)
    with Gallery.open(path, feature_engine(WIDE)) as gallery:
        gallery.add(features=features, camera=0, time=0, id=[f"{i}" for i in range(24)])
        sealed, recent = (
            stored_feature(gallery._state.reads, unit_of(features), i) for i in (3, 23)
        )
    data = bytearray(path.read_bytes())
    for one in (sealed, recent):
        place = data.index(one[:WINDOW])
        data[place + 5] ^= 1
    path.write_bytes(data)
    with Gallery.open(path, feature_engine(WIDE)) as gallery:
        damaged = gallery.verify().damaged
        assert set(damaged) == {*map(str, range(8)), "23"}
        assert gallery.stats().damaged_tracks == 9
        found = {m.id for m in gallery.search(feature=features[3], top_k=30).matches}
        assert found == {f"{i}" for i in range(8, 23)}
        gallery.erase(ids=damaged)
        assert gallery.verify().is_clean


def unit_of(features: np.ndarray) -> np.ndarray:
    rows: np.ndarray = features / np.linalg.norm(features, axis=1, keepdims=True)
    return rows


@pytest.mark.parametrize("level", ["off", "mean"])
def test_what_could_not_be_erased_is_found_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Any
) -> None:
    """The disk is full while rows are overwritten: the file, memory and sums stay as they were."""
    features = people(12, 2)
    with Gallery.open(tmp_path / "g.db", feature_engine(), align_cameras=level) as gallery:
        gallery.add(features=features, camera=[0, 1] * 12, time=0, id=[f"{i}" for i in range(24)])
        gallery.align()
        before = gallery.search(feature=features[3], top_k=24).matches

        def full(*_: Any) -> Any:
            raise OutputError("cannot write: the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr("murank.gallery.state.erase", full)
            with pytest.raises(OutputError):
                gallery.erase(ids=["3", "5"])
        assert gallery.search(feature=features[3], top_k=24).matches == before
        assert gallery.erase(ids=["3", "5"]).rows == 2
        assert gallery.stats().rows == 22

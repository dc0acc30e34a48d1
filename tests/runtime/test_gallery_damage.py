"""A gallery whose file was damaged, and one that is read by others while it is written."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gallery_engines import feature_engine, people
from runtime.test_gallery_kill import DIM, ENV

from murank import InputError, OutputError
from murank.gallery import Gallery, vectors

ALL = os.environ.get("FAULTS") == "all"
FLIPS = 500 if ALL else 25
SECONDS = 60.0 if ALL else 2.0


def test_a_flipped_bit_breaks_nothing_and_never_makes_a_wrong_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the bits are of features: those rows are left out, and named.

    The others are of anything: the file is refused in a sentence, or opened. Names and numbers in
    SQLite's rows have no hash, so that nothing is said of them here.
    """
    monkeypatch.setattr(vectors, "CHUNK", 8)
    whole, path, features = tmp_path / "whole.db", tmp_path / "g.db", people(30, 1, dim=64)
    ids = [f"row-{i}" for i in range(30)]
    with Gallery.open(whole, feature_engine(64), align_cameras="off") as gallery:
        gallery.add(features=features, camera=[i % 3 for i in range(30)], time=0.0, id=ids,
                    track=[f"t{i}" for i in range(30)], attributes={"hat": True})  # fmt: skip
        stored = np.concatenate([one.features for one in vectors.all_vectors(gallery._state.reads)])
    exact = dict(zip(ids, np.linalg.norm(stored - stored[0], axis=1), strict=True))
    data, moments = whole.read_bytes(), random.Random(1)  # noqa: S311  a test
    opened = 0
    for number in range(FLIPS):
        of_feature = number % 2 == 0
        place = moments.randrange(len(data))
        if of_feature:
            own = stored[moments.randrange(30)].tobytes()
            # A chunk lies on several pages: a feature may be cut, but its beginning is in one.
            place = data.index(own[:64]) + moments.randrange(64)
        changed = bytearray(data)
        changed[place] ^= 1 << moments.randrange(8)
        path.write_bytes(changed)
        try:
            with Gallery.open(path, feature_engine(64), align_cameras="off") as gallery:
                opened += 1
                query = stored[0].astype(np.float32)
                found = gallery.search(feature=query, top_k=40, method="none").matches
                named = gallery.verify().damaged
                gallery.stats()
        except (InputError, OutputError):
            assert not of_feature
            continue
        finally:
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        if of_feature:
            assert {match.id for match in found} == set(ids) - set(named)
            assert named
            for match in found:
                assert match.encoder_distance == pytest.approx(exact[match.id], abs=1e-6)
    assert opened > FLIPS / 2


READER = f"""
import sys, time, json
from gallery_engines import feature_engine, people
from murank.gallery import Gallery
query = people(1, 1, dim={DIM})[0]
with Gallery.open(sys.argv[1], feature_engine({DIM}), mode="r") as gallery:
    gallery.search(feature=query, method="none")  # compiles, where nobody has
    end = time.monotonic() + float(sys.argv[2])
    print(flush=True)
    looked = 0
    while time.monotonic() < end or looked < 6:  # however slow the machine is
        looked += 1
        start = time.monotonic()
        found = gallery.search(feature=query, top_k=10000, shortlist=None, method="none")
        ids = [one.id for one in found.matches]
        print(json.dumps([start, time.monotonic(), found.generation, ids]))
"""


def test_two_readers_beside_a_writer_see_what_was_acknowledged_and_nothing_erased(
    tmp_path: Path,
) -> None:
    path, rng = tmp_path / "g.db", np.random.default_rng(0)
    added: dict[str, float] = {}  # when it was acknowledged
    begun: dict[str, float] = {}  # when its erasure was begun, and when it was acknowledged
    erased: dict[str, float] = {}
    with Gallery.open(path, feature_engine(DIM), align_dims=8) as gallery:
        gallery.add(features=people(4, 1, dim=DIM), camera=0, time=0.0, id=["a", "b", "c", "d"])
        added |= dict.fromkeys("abcd", time.monotonic())
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, path, str(SECONDS)], stdout=subprocess.PIPE,
                text=True, env=ENV,
            )
            for _ in range(2)
        ]  # fmt: skip
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        end, number = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            ids = [f"{number}-{i}" for i in range(4)]
            gallery.add(features=rng.standard_normal((4, DIM)), camera=[0, 1, 0, 1], time=0.0,
                        id=ids)  # fmt: skip
            added |= dict.fromkeys(ids, time.monotonic())
            begun |= dict.fromkeys(ids[:3], time.monotonic())
            gallery.erase(ids=ids[:3])
            erased |= dict.fromkeys(ids[:3], time.monotonic())
            if number % 10 == 5:
                gallery.align()
            number += 1
            time.sleep(0.01)
        lines = [reader.communicate(timeout=60)[0].splitlines() for reader in readers]
        assert [reader.returncode for reader in readers] == [0, 0]
        assert gallery.purge().complete
    for seen in lines:
        assert len(seen) > 5
        generations = []
        for line in seen:
            start, stop, generation, found = json.loads(line)
            generations.append(generation)
            there = {one for one, when in added.items() if when < start}
            stays = {one for one in there if begun.get(one, np.inf) > stop}
            gone = {one for one, when in erased.items() if when < start}
            assert stays <= set(found)
            assert not gone & set(found)
        assert generations == sorted(generations)

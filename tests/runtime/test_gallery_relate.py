"""Mu between tracks: asked in idle time, fused as the kernels do, and gone with its tracks."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faults.covered import written
from gallery_engines import feature_engine, large, seeing_engine

from murank import Engine, InputError, OutputError
from murank.gallery import Gallery, database, relating, track_pairs
from murank_kernels import ca_jaccard, k_reciprocal

Pairs = dict[tuple[int, int], float]
COUNT = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.db"


def filled(path: Path, engine: Engine, *, count: int = COUNT, **how: Any) -> Gallery:
    """A gallery of tracks "0", "1", ... of one shot with that id, by two cameras."""
    gallery = Gallery.open(path, engine, align_cameras="off", **how)
    names = [f"{i}" for i in range(count)]
    gallery.add(large(0, count), camera=[i % 2 for i in range(count)], time=0, id=names,
                track=names)  # fmt: skip
    return gallery


def stored_pairs(gallery: Gallery) -> Pairs:
    """Mu by unit and other."""
    rows = gallery._state.reads.all("SELECT unit, answers FROM mu")
    return {
        (unit, other): mu
        for unit, answers in rows
        for other, _, _, mu in np.frombuffer(answers, track_pairs.ANSWERS).tolist()
    }


def asked_by_hand(gallery: Gallery, engine: Engine, few: int) -> Pairs:
    """What should be asked: the newest unit first, about its nearest, no pair twice."""
    rows = gallery._state.reads.all(
        "SELECT unit, jpeg FROM pictures ORDER BY quality DESC, shot DESC"
    )
    jpegs = dict(reversed(rows))  # the best of each unit is last
    units = sorted(jpegs)
    features = np.stack([gallery._state._searched.units.row(unit).feature for unit in units])
    apart = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    pairs: Pairs = {}
    for unit, row in reversed(list(zip(units, apart, strict=True))):
        for place in np.argsort(row, kind="stable")[:few]:
            other = units[place]
            if (other, unit) not in pairs:
                (mu,) = engine.mu(jpegs[unit], [jpegs[other]])
                pairs[unit, other] = float(mu)
    return pairs


def assert_same(found: Pairs, wanted: Pairs) -> None:
    assert found.keys() == wanted.keys()
    for key, mu in wanted.items():
        assert found[key] == pytest.approx(mu, abs=1e-6)


@pytest.mark.parametrize("budget", [None, 7])
def test_each_track_is_asked_about_its_nearest_once(
    path: Path, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relating, "FEW", 5)
    engine = seeing_engine()
    with filled(path, engine) as gallery:
        wanted = asked_by_hand(gallery, engine, 5)
        told: list[tuple[int, int]] = []
        left, asked = [COUNT], 0
        while left[-1]:
            done = gallery.relate(budget_pairs=budget, progress=lambda *one: told.append(one))
            assert done.tracks == left[-1] - done.tracks_left
            assert done.pairs <= (budget or done.pairs)
            asked += done.pairs
            left.append(done.tracks_left)
        assert asked == len(wanted)
        assert len(told) == COUNT
        assert gallery.relate().pairs == 0
        assert_same(stored_pairs(gallery), wanted)
        stats = gallery.stats()
        assert (stats.pairs, stats.tracks_to_relate) == (len(wanted), 0)
        assert gallery.verify().is_clean


@pytest.mark.parametrize("method", ["ca-jaccard", "k-reciprocal"])
@pytest.mark.parametrize("asks", [False, True])
def test_it_is_fused_as_the_kernels_do(
    path: Path, method: Any, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relating, "FEW", 3)
    engine, query = seeing_engine(), large(9, 1)[0]
    with filled(path, engine) as gallery:
        gallery.relate()
        given: dict[str, Any] = {"crop": query} if asks else {"feature": engine.embed([query])[0]}
        found = gallery.search(**given, method=method, shortlist=12, top_k=12, candidates=4)
        pairs = stored_pairs(gallery)
        near = gallery.search(**given, method="none", top_k=12, candidates=0).matches
        rows = gallery._state._searched.units
        units = [int(str(match.track)) + 1 for match in near]  # numbered as they were added
        features = np.stack([engine.embed([query])[0], *(rows.row(one).feature for one in units)])
    between = np.full((12, 11), np.nan)
    others = np.full((12, 11), -1)
    count = 0
    for row, unit in enumerate(units):
        known = [(units.index(b), mu) for (a, b), mu in pairs.items() if a == unit and b in units]
        for place, (other, mu) in enumerate(known):
            others[row, place], between[row, place] = other, mu
        count += len(known)
    mu_of = {match.track: match.mu for match in found.matches if match.mu is not None}
    own = [mu_of[match.track] for match in near[:4]] if asks else []
    scores: dict[str, Any] = {"gallery_mu": between, "gallery_candidates": others, "top_k": 12}
    if asks:
        scores |= {"mu": np.array([own]), "candidates": np.arange(4)[None]}
    cameras = np.array([9, *(match.camera for match in near)])
    if method == "ca-jaccard":
        distances, order = ca_jaccard(features, 1, cameras, **scores)
    else:
        distances, order = k_reciprocal(features, 1, **scores)
    assert count > 0
    assert found.pairs == count
    assert [match.track for match in found.matches] == [near[i].track for i in order[0].tolist()]
    np.testing.assert_allclose([m.distance for m in found.matches], distances[0], atol=2e-6)
    assert [m.distance for m in found.matches] != [m.distance for m in near]


@pytest.mark.parametrize("method", ["simple", "none"])
def test_methods_without_neighbours_have_no_use_for_it(path: Path, method: Any) -> None:
    engine, query = seeing_engine(), large(9, 1)[0]
    with filled(path, engine) as gallery:
        before = gallery.search(query, method=method)
        gallery.relate()
        after = gallery.search(query, method=method)
        assert (after.matches, after.pairs) == (before.matches, 0)


def doubles(values: list[float]) -> list[bytes]:
    """As they are stored."""
    return [struct.pack("<d", one) for one in values]


def files_with(folder: Path, sought: list[bytes]) -> int:
    data = b"".join(one.read_bytes() for one in folder.iterdir() if one.is_file())
    return sum(one in data for one in sought)


def test_erased_with_either_track(path: Path, tmp_path: Path) -> None:
    with filled(path, seeing_engine()) as gallery:
        gallery.relate()
        before = stored_pairs(gallery)
        units = (4, 9)  # of the tracks "3" and "8"
        gone = {pair: mu for pair, mu in before.items() if set(pair) & set(units)}
        assert any(a in units for a, _ in gone)
        assert any(b in units for _, b in gone)
        sought = doubles(list(set(gone.values()) - {before[pair] for pair in before.keys() - gone}))
        assert files_with(tmp_path, sought) == len(sought) > 5
        receipt = gallery.erase(ids=["3", "8"])
        assert (receipt.pairs, receipt.complete) == (len(gone), True)
        assert files_with(tmp_path, sought) == 0
        assert stored_pairs(gallery) == {k: v for k, v in before.items() if k not in gone}
        assert gallery.verify(erased=receipt).is_clean
        assert gallery.relate().pairs == 0  # those left are asked about no third time


def test_a_track_that_loses_the_shot_it_was_asked_by_is_asked_anew(path: Path) -> None:
    with filled(path, seeing_engine()) as gallery:
        gallery.relate()
        (best,) = [m.shot for m in gallery.search(large(0, 1)[0], top_k=1).matches]
        gallery.add(large(3, 1), camera=0, time=1, track="0", id="later")
        assert gallery.relate().tracks == 0  # a track that grows is asked about once
        unit = gallery._state.reads.one("SELECT unit FROM shots WHERE id = 'later'")[0]
        of_unit = [pair for pair in stored_pairs(gallery) if unit in pair]
        assert best == "0"
        assert gallery.erase(ids="0").pairs == len(of_unit)
        assert [pair for pair in stored_pairs(gallery) if unit in pair] == []
        assert gallery.stats().tracks_to_relate == 1
        assert gallery.relate().tracks == 1
        assert [pair for pair in stored_pairs(gallery) if unit in pair]
        # A shot that nobody was asked by takes nothing with it.
        gallery.add(large(4, 1), camera=0, time=1, track="1", id="other")
        assert gallery.erase(ids="other").pairs == 0
        assert gallery.stats().tracks_to_relate == 0
        assert gallery.verify().is_clean


def other_files(engine: Engine) -> None:
    engine.sha256 = "f" * 64


def other_products(engine: Engine) -> None:
    engine.need_scorer().decoder.session.providers[:] = ["OpenVINO CPU bf16"]


@pytest.mark.parametrize("change", [other_files, other_products])
def test_pairs_are_one_engine_s(path: Path, tmp_path: Path, change: Any) -> None:
    query = large(9, 1)[0]
    with filled(path, seeing_engine()) as gallery:
        plain = gallery.search(query)
        gallery.relate()
        fused = gallery.search(query)
        assert fused.pairs == len(stored_pairs(gallery))
        gallery.backup(tmp_path / "copy.db")
        feature = seeing_engine().embed([query])[0]
    other = seeing_engine()
    change(other)
    with Gallery.open(path, other, align_cameras="off") as gallery:
        assert gallery.search(query).matches == plain.matches
        count = gallery.stats().pairs
        assert gallery.relate(budget_pairs=1).tracks_left == COUNT
        assert (gallery.stats().pairs, gallery.search(query).pairs) == (1, 1)
        assert count > 1
    for engine in (seeing_engine(), feature_engine(24), None):  # nobody else's mu is mixed in
        with Gallery.open(tmp_path / "copy.db", engine, mode="r") as gallery:
            assert gallery.search(feature=feature).pairs == count


def test_a_new_encoder_asks_anew(path: Path) -> None:
    new = seeing_engine()
    new.encoder_sha256 = "b" * 64
    smaller: Any = new.scorer
    smaller.part.preprocessing = type(smaller.part.preprocessing)(2, 2)
    with filled(path, seeing_engine()) as gallery:
        gallery.relate()
        gallery.reembed(new)
        stats = gallery.stats()
        assert (stats.pairs, stats.tracks_to_relate) == (0, COUNT)
        # An erasure lets go what the new MLLM was shown: all but the query.
        assert gallery.search(large(9, 1)[0]).scored == COUNT
        forgotten: list[str] = []
        new.forget_key = forgotten.append  # type: ignore[method-assign, assignment]
        gallery.erase(ids=[f"{i}" for i in range(COUNT)])
        assert set(forgotten) < set(smaller.vision.known)
        assert len(smaller.vision.known) == COUNT + 1 == len(set(forgotten)) + 1


def test_a_reader_sees_what_is_related(path: Path) -> None:
    query = large(9, 1)[0]
    with filled(path, seeing_engine()) as gallery, Gallery.open(
        path, seeing_engine(), mode="r", align_cameras="off"
    ) as reader:  # fmt: skip
        assert reader.search(query).pairs == 0
        gallery.relate()
        found, own = reader.search(query), gallery.search(query)
        assert (found.matches, found.pairs) == (own.matches, own.pairs)
        assert found.generation == own.generation
        with pytest.raises(OutputError, match="rw"):
            reader.relate()


@pytest.mark.parametrize("keep", ["tokens", "none"])
def test_without_pictures_on_the_disk(path: Path, keep: Any) -> None:
    engine = seeing_engine()
    vision: Any = engine.need_scorer().vision
    vision.shape, vision.dtype = (1, 1, 24), np.dtype(np.float32)
    vision.keep = lambda key, values: vision.known.setdefault(key, values)
    with filled(path, engine, keep=keep) as gallery:
        gallery.add(features=engine.embed(large(5, 2)), camera=0, time=0)
        done = gallery.relate()
        assert (done.tracks, done.tracks_left) == ((COUNT, 0) if keep == "tokens" else (0, 0))
        assert (done.pairs > 0) == (keep == "tokens")
        assert gallery.search(large(9, 1)[0]).pairs == done.pairs


def test_an_answer_that_is_no_number_is_none(path: Path) -> None:
    engine = seeing_engine()
    decoder: Any = engine.need_scorer().decoder
    logits = decoder.logits

    def overflowing(*given: Any) -> Any:
        answers = logits(*given)
        answers[0, 0] = np.nan
        return answers

    decoder.logits = overflowing
    with filled(path, engine, count=6) as gallery:
        done = gallery.relate()
        missing = done.pairs - len(stored_pairs(gallery))
        assert missing == 6 - 1  # one of each query, but for the last: nobody was left to ask about
        assert (done.tracks_left, gallery.relate().pairs) == (0, 0)


def test_erased_while_it_is_asked_about(path: Path) -> None:
    engine = seeing_engine()
    with filled(path, engine) as gallery:
        decoder: Any = engine.need_scorer().decoder
        logits, forgotten = decoder.logits, list[str]()
        keys = dict(
            gallery._state.reads.all("SELECT id, key FROM pictures JOIN shots USING (shot)")
        )

        def erasing(*given: Any) -> Any:
            decoder.logits = logits
            gallery.erase(ids=["15", "3"])
            forgotten.clear()  # what the erasure itself let be forgotten came too early
            return logits(*given)

        engine.forget_key = forgotten.append  # type: ignore[method-assign, assignment]
        decoder.logits = erasing
        gallery.relate(budget_pairs=10)
        assert keys["15"] in forgotten
        assert not any({16, 4} & set(pair) for pair in stored_pairs(gallery))
        assert gallery.verify().is_clean
        assert gallery.relate().tracks_left == 0


def test_while_others_add_search_and_erase(path: Path) -> None:
    with filled(path, seeing_engine(), count=40) as gallery, ThreadPoolExecutor() as pool:
        asking = pool.submit(gallery.relate)
        for number in range(10):
            gallery.add(large(number + 50, 2), camera=0, time=1, track=[f"{number}", f"n{number}"])
            gallery.erase(ids=[f"{number}"])
            found = gallery.search(large(9, 1)[0])
            assert all(match.id != f"{number}" for match in found.matches)
        asking.result()
        gallery.relate()
        units = {row[0] for row in gallery._state.reads.all("SELECT unit FROM units")}
        assert {one for pair in stored_pairs(gallery) for one in pair} <= units
        assert gallery.stats().tracks_to_relate == 0
        assert gallery.verify().is_clean


def test_damage_is_named_and_does_no_harm(path: Path) -> None:
    with filled(path, seeing_engine()) as gallery:
        gallery.relate()
        worst = min(stored_pairs(gallery).values())
    data = bytearray(path.read_bytes())
    data[data.index(doubles([worst])[0]) + 6] ^= 1
    path.write_bytes(data)
    with Gallery.open(path, seeing_engine()) as gallery:
        (named,) = gallery.verify().damaged
        found = gallery.search(large(9, 1)[0])
        assert found.scored == COUNT
        assert 0 < found.pairs < gallery.stats().pairs  # those of that track are left out
        gallery.erase(ids=named)
        assert gallery.verify().is_clean
        assert len(stored_pairs(gallery)) == gallery.stats().pairs


def test_verify_names_pairs_of_the_erased(path: Path) -> None:
    with filled(path, seeing_engine()) as gallery:
        gallery.relate()
        gallery._state.file.run("DELETE FROM shots WHERE id = '3'")
        assert any("pairs" in line for line in gallery.verify().remains)


def test_the_time_and_the_engine_that_there_is(path: Path) -> None:
    with filled(path, seeing_engine()) as gallery:
        for bad in (0, -1, 1.5, "all"):
            with pytest.raises(InputError, match="budget_pairs"):
                gallery.relate(budget_pairs=bad)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="deadline_ms"):
            gallery.relate(deadline_ms=0)
    clock = SimpleNamespace(now=0.0)
    engine = seeing_engine()
    decoder: Any = engine.need_scorer().decoder
    logits = decoder.logits

    def slow(*given: Any) -> Any:
        clock.now += 1.0
        return logits(*given)

    decoder.logits = slow
    with Gallery.open(path, engine) as gallery:
        gallery.pace.clock = lambda: clock.now
        done = gallery.relate(deadline_ms=3500)
        assert 0 < done.tracks <= 3
        assert clock.now <= 3.5
        assert done.tracks_left == COUNT - done.tracks
    blind = seeing_engine()
    blind.scorer = None
    with Gallery.open(path, blind) as gallery, pytest.raises(InputError, match="MLLM"):
        gallery.relate()
    with Gallery.open(path, None) as gallery, pytest.raises(InputError, match="engine"):
        gallery.relate()


def test_a_file_of_the_format_before(path: Path) -> None:
    with filled(path, seeing_engine()) as gallery:
        before = gallery.search(large(9, 1)[0])
    with closing(sqlite3.connect(path)) as connection:
        for table in ("mu", "pairs", "unrelated"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(InputError, match=r"gallery\.db"):
        Gallery.open(path, seeing_engine(), mode="r")
    with Gallery.open(path, seeing_engine(), align_cameras="off") as gallery:
        assert gallery.search(large(9, 1)[0]).matches == before.matches
        assert gallery.relate().tracks == COUNT
        assert gallery.verify().is_clean
        assert gallery._state.file.one("PRAGMA user_version") == (database.FORMAT,)


RELATES = """
import sys
from pathlib import Path
from gallery_engines import seeing_engine
from murank.gallery import Gallery
with Gallery.open(sys.argv[1], seeing_engine(), align_cameras="off") as gallery:
    print("open", flush=True)
    gallery.relate(progress=lambda done, _: print(done, flush=True))
    print("end", flush=True)
"""


# SQLite writes by itself: stopped at any moment, as in test_gallery_kill.
@written("gallery relate file")
def test_killed_while_it_asks(path: Path) -> None:
    engine = seeing_engine()
    filled(path, engine, count=60).close()
    helpers = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    moments, finished = random.Random(0), 0  # noqa: S311  a test
    for _ in range(4):
        command = [sys.executable, "-c", RELATES, str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": helpers}
        ) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == "open\n"
            time.sleep(moments.random() * 0.1)
            asking.send_signal(signal.SIGKILL)
            told = [line for line in asking.stdout.read().split("\n")[:-1] if line != "end"]
        finished += len(told)
        with Gallery.open(path, engine, mode="r") as gallery:
            assert 60 - gallery.stats().tracks_to_relate >= finished
            finished = 60 - gallery.stats().tracks_to_relate
            assert gallery.verify().is_clean
    with Gallery.open(path, engine, align_cameras="off") as gallery:
        gallery.relate()
        assert_same(stored_pairs(gallery), asked_by_hand(gallery, engine, relating.FEW))

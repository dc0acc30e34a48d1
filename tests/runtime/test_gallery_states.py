"""Added to, erased from, sealed, reopened: a gallery answers as a new one of what is left."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gallery_engines import DIM, feature_engine
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from murank.gallery import AddResult, Gallery, GallerySearchResult, vectors
from murank.gallery.track_pairs import TrackPair

TRACKS = [None, "a", "b", "c"]
Unit = str | tuple[str, int]  # a shot without a track, or a track and its camera
Pairs = dict[tuple[Unit, Unit], tuple[str, str, float]]  # ids of the two shots, and mu


@dataclass(frozen=True)
class Row:
    """What a test remembers of a shot."""

    id: str
    feature: np.ndarray
    camera: int
    time: float
    track: str | None
    subject: str | None


class States(RuleBasedStateMachine):
    """A gallery beside a list of what should be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "gallery.db"
        self.gallery = opened(self.path)
        self.reader = opened(self.path, mode="r")
        self.rows: list[Row] = []
        self.pairs: Pairs = {}
        self.random = np.random.default_rng(0)
        self.count = 0

    def teardown(self) -> None:
        self.reader.close()
        self.gallery.close()
        self.folder.cleanup()

    @rule(
        said=st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 9), st.sampled_from(TRACKS), st.booleans()),
            min_size=1, max_size=5,
        )
    )  # fmt: skip
    def add(self, said: list[tuple[int, int, str | None, bool]]) -> None:
        features = self.random.standard_normal((len(said), DIM)).astype(np.float32)
        new = []
        for feature, (camera, time, track, has_subject) in zip(features, said, strict=True):
            self.count += 1
            subject = f"s{self.count % 3}" if has_subject else None
            new.append(Row(f"i{self.count}", feature, camera, float(time), track, subject))
        assert [one.status for one in added(self.gallery, new)] == ["added"] * len(new)
        self.rows += new

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def add_again(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        assert added(self.gallery, [row])[0].status == "known"
        other = Row(row.id, -row.feature, row.camera, row.time, row.track, row.subject)
        assert added(self.gallery, [other])[0].status == "refused"

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def erase_ids(self, data: st.DataObject) -> None:
        ids = data.draw(
            st.lists(st.sampled_from([row.id for row in self.rows]), min_size=1, unique=True)
        )
        receipt = self.gallery.erase(ids=ids)
        assert set(receipt.ids) == set(ids)
        assert receipt.complete
        self.rows = [row for row in self.rows if row.id not in ids]

    @rule(track=st.sampled_from(["a", "b", "c"]))
    def erase_track(self, track: str) -> None:
        receipt = self.gallery.erase(track=track)
        assert set(receipt.ids) == {row.id for row in self.rows if row.track == track}
        self.rows = [row for row in self.rows if row.track != track]

    @rule(subject=st.sampled_from(["s0", "s1", "s2"]))
    def erase_subject(self, subject: str) -> None:
        receipt = self.gallery.erase(subject=subject)
        assert set(receipt.ids) == {row.id for row in self.rows if row.subject == subject}
        self.rows = [row for row in self.rows if row.subject != subject]

    @rule(time=st.integers(0, 9))
    def purge(self, time: int) -> None:
        self.gallery.purge(float(time))
        self.rows = [row for row in self.rows if row.time >= time]

    @precondition(lambda self: len({unit_of(row) for row in self.rows}) > 1)
    @rule(data=st.data(), mu=st.floats(0, 1))
    def relate(self, data: st.DataObject, mu: float) -> None:
        one, other = data.draw(
            st.lists(st.sampled_from(self.rows), min_size=2, max_size=2, unique_by=unit_of)
        )
        self.pairs[unit_of(one), unit_of(other)] = one.id, other.id, mu
        related(self.gallery, {(unit_of(one), unit_of(other)): (one.id, other.id, mu)})

    @rule()
    def reopen(self) -> None:
        self.gallery.close()
        self.gallery = opened(self.path)

    @invariant()
    def equals_a_fresh_gallery(self) -> None:
        ids = {row.id for row in self.rows}
        self.pairs = {key: one for key, one in self.pairs.items() if {one[0], one[1]} <= ids}
        stats = self.gallery.stats()
        assert stats.rows == len(self.rows)
        assert stats.tracks == len({unit_of(row) for row in self.rows})
        assert stats.pairs == len(self.pairs)
        if not self.rows:
            assert self.gallery.search(feature=np.ones(DIM, np.float32)).matches == ()
            return
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "fresh.db") as fresh:
            added(fresh, self.rows)
            related(fresh, self.pairs)
            for how in (
                {},
                {"cameras": [0, 2]},
                {"since": 3.0, "until": 6.0},
                {"exclude_tracks": "a"},
            ):
                for query in (self.rows[0].feature, np.ones(DIM, np.float32)):
                    wanted = seen(fresh.search(feature=query, top_k=50, **how))
                    assert seen(self.gallery.search(feature=query, top_k=50, **how)) == wanted
                    assert seen(self.reader.search(feature=query, top_k=50, **how)) == wanted

    @invariant()
    def nothing_is_damaged_or_left(self) -> None:
        assert self.gallery.verify().is_clean


def opened(path: Path, mode: str = "rw") -> Gallery:
    return Gallery.open(path, feature_engine(), mode=mode, align_cameras="off")  # type: ignore[arg-type]


def added(gallery: Gallery, rows: list[Row]) -> list[AddResult]:
    return gallery.add(
        features=np.array([row.feature for row in rows]), id=[row.id for row in rows],
        camera=[row.camera for row in rows], time=[row.time for row in rows],
        track=[row.track for row in rows], subject=[row.subject for row in rows],
    )  # fmt: skip


def unit_of(row: Row) -> Unit:
    return (row.track, row.camera) if row.track else row.id


def related(gallery: Gallery, pairs: Pairs) -> None:
    """Store pairs as if the MLLM had been asked: features alone are never asked about."""
    gallery._state.forget_other_engines("an engine")
    for one, other, mu in pairs.values():
        rows = [
            gallery._state.file.one("SELECT unit, shot FROM shots WHERE id = ?", name)
            for name in (one, other)
        ]
        pair = TrackPair(rows[1][0], rows[0][1], rows[1][1], mu)
        gallery._state.relate(rows[0][0], [pair], done=False)


def seen(result: GallerySearchResult) -> list[tuple[object, ...]]:
    """Return all that does not name the file: distances to the last bit."""
    return [
        (result.pairs, m.camera, m.track, m.first, m.last, m.distance, m.encoder_distance)
        for m in result.matches
    ]


@pytest.mark.parametrize(("chunk", "examples"), [(3, 15), (1024, 5)])  # 3: seams everywhere
def test_gallery_equals_a_fresh_one_of_what_is_left(
    chunk: int, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK", chunk)
    run_state_machine_as_test(
        States,
        settings=settings(
            max_examples=examples, stateful_step_count=12, deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
        ),
    )  # fmt: skip

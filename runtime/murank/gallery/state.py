"""The state of a gallery: its file, and what of it is searched in memory, always of one version."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.engine.engine import Engine
from murank.gallery.camera_versions import Version, fitted_version, store_version, stored_version
from murank.gallery.erased_shots import erase, erased_counts, record_without, shots_of, units_of
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.gallery_result import AddResult, Erasure
from murank.gallery.loading import Searched, features_to_fit, load
from murank.gallery.milvus import MilvusCollections
from murank.gallery.new_encoder import embed_again
from murank.gallery.shot_records import F32, Shot, UnitRecord
from murank.gallery.stored_shots import (
    add,
    changed_units,
    content_of,
    gone_units,
    pictures_of,
    unit_record,
)
from murank.gallery.track_pairs import TrackPair, pairs_of_engine, store_pairs
from murank.gallery.unit_features import UnitSums, in_order, unit_rows
from murank.gallery.unit_index import UnitIndex
from murank.gallery.units import Units
from murank.gallery.vectors import seal, unit_vectors
from murank.rerank.alignment import Alignment

I64 = NDArray[np.int64]
_GROWN = 0.2  # share of new units from which on directions are fitted anew


class State:
    """Changes come one after the other; a search sees the state before or after one."""

    def __init__(
        self,
        engine: Engine | None,
        file: GalleryFile | None,
        reads: GalleryFile,
        alignment: Alignment,
        milvus: MilvusCollections | None = None,
    ) -> None:
        """`file` is written, None: another process does; `reads` another connection to it."""
        self.reads = reads
        self._milvus = milvus
        self._new_units: Callable[[int], UnitIndex] = Units if milvus is None else milvus.units
        self._file = file
        self._engine, self._alignment = engine, alignment
        self._changing, self._memory = threading.RLock(), threading.RLock()
        self._sums = UnitSums(reads if file is None else file)
        self._data_version, self._encoder = reads.data_version, reads.meta("encoder_sha256")
        with reads.reading():
            self._searched = load(reads, stored_version(reads), self._new_units)

    @property
    def file(self) -> GalleryFile:
        """The connection that writes."""
        assert self._file is not None  # noqa: S101  Gallery asks no reader to write
        return self._file

    @contextmanager
    def searched(self) -> Iterator[Searched]:
        """What is searched, for as long as one is inside; with what others wrote in it."""
        with self._memory:
            self._refresh()
            yield self._searched

    def close(self) -> None:
        """Close the file, and overwrite what is in memory. Twice is once."""
        with self._changing, self._memory:
            self._searched.units.clear()
            self._sums.clear()
            for one in (self.reads, self._file, self._milvus):
                if one is not None:
                    one.close()

    def store(
        self, ready: Sequence[Shot | AddResult], *, best: int, most: int | None, drops: bool
    ) -> list[AddResult]:
        """Store shots, at most so many in all, then let them be found; returns a status each."""
        new = sum(isinstance(one, Shot) for one in ready)
        with self._changing:
            if most is not None and drops and (over := self._rows + new - most) > 0:
                self.erase(lambda: shots_of(self.file, before=float("inf"), most=over))
            room = new if most is None else most - self._rows
            results: list[AddResult] = []
            added: list[tuple[int, Shot]] = []
            dropped: list[str] = []
            with self.file.writing() as generation:
                for one in ready:
                    result = self._status(one, len(added) < room, most)
                    if result.status == "added" and isinstance(one, Shot):
                        unit, keys = add(self.file, one, generation, best=best)
                        added.append((unit, one))
                        dropped += keys
                    results.append(result)
            self._remember(added, generation)
            for key in dropped:  # nobody could name them in an erasure any more
                if self._engine is not None:
                    self._engine.forget_key(key)
            seal(self.file)
        return results

    def erase(self, choose: Callable[[], I64]) -> Erasure:
        """Take shots out of memory, caches and file; with none, finish what was left undone.

        They are chosen while nothing else changes: of two erasures of one shot the second has none.
        """
        with self._changing:
            file, shots = self.file, choose()
            counts = {**erased_counts(file, shots), "pairs": 0}
            if len(shots):
                for picture in pictures_of(file, shots):
                    if picture.key is not None and self._engine is not None:
                        self._engine.forget_key(picture.key)
                old = self._searched.version
                try:
                    self._hide(shots)
                    version, counts["pairs"] = self._erased(shots)
                except BaseException:  # the file has them still, and so has what is searched
                    self._take(old)
                    raise
                if version is not old:
                    self._take(version)
                self._searched.generation = file.generation
            searched, is_wiped = self._searched, self._wiped()
            return Erasure(
                **counts, complete=is_wiped and searched.units.overwrites,
                generation=file.generation, alignment_rebuilt=searched.version.is_whole,
            )  # fmt: skip

    def _erased(self, shots: I64) -> tuple[Version, int]:
        """Take shots out of the file; returns the alignment without them, and pairs of tracks."""
        file, version = self.file, self._searched.version
        with file.writing() as generation:
            pairs = erase(file, shots, generation)
            file.set_meta("pending", 1)
            if version.fitted.cameras is not None:
                version = version.without_erased(self._searched.sums)
                store_version(file, version)
        return version, pairs

    def align(self) -> str:
        """Fit the cameras' directions anew; returns the level."""
        with self._changing:
            features, cameras = features_to_fit(self.file)
            if len(features):
                old = self._searched
                version = fitted_version(
                    old.version.number + 1, features, cameras, old.sums, self._alignment,
                    units=len(old.units), when=time.time(),
                    encoder_sha256=self.file.meta("encoder_sha256"),
                )  # fmt: skip
                with self.file.transaction():
                    store_version(self.file, version)
                self._take(version)
            return self._searched.version.fitted.level

    @property
    def alignment_note(self) -> str | None:
        """Why less than could be is done to features."""
        return self._searched.version.fitted.note

    def reembed(
        self, engine: Engine, encoder: Encoder, progress: Callable[[int, int], None] | None
    ) -> int:
        """Replace all features by those of another encoder; returns the shots."""
        with self._changing, self._memory:
            count = embed_again(self.file, engine, encoder, progress)
            self._engine, self._encoder = engine, str(engine.encoder_sha256)
            self._sums.clear()
            self._take(stored_version(self.file))
            self._wiped()
        return count

    def nearest_units(self, unit: int, most: int) -> I64:
        """Return the units nearest to one, best first; none where it is damaged or gone."""
        with self.searched() as searched:
            units = searched.units
            if not units.has(unit):
                return np.empty(0, np.int64)
            others = units.allowed(None, None, None, None, np.array([unit]))
            return units.nearest(units.row(unit).feature, others, most).units

    def forget_other_engines(self, who: str) -> None:
        """Erase pairs that somebody else was asked about (see `who_answers`)."""
        with self._changing, self.file.transaction():
            pairs_of_engine(self.file, who)

    def relate(self, unit: int, pairs: Sequence[TrackPair], *, done: bool) -> None:
        """Store mu of a unit and others, to be fused from the next search on."""
        with self._changing:
            with self.file.writing() as generation:
                store_pairs(self.file, unit, pairs, done=done)
            self._searched.generation = generation

    def alignment_due(self, within: float) -> bool:
        """Whether the gallery has grown, or directions were fitted to somebody erased for long."""
        version, count = self._searched.version, len(self._searched.units)
        if self._alignment.level == "off" or not count:
            return False
        late = not version.is_whole and time.time() - version.when >= within
        return late or count - version.units > _GROWN * version.units

    @property
    def _rows(self) -> int:
        return self.file.count("shots")

    def _status(self, one: Shot | AddResult, has_room: bool, most: int | None) -> AddResult:
        if isinstance(one, AddResult):
            return one
        content = content_of(self.file, one.id)
        if content == one.content:
            return AddResult(one.id, "known")
        if content is not None:
            return AddResult(one.id, "refused", "this id is there with other content")
        if not has_room:
            return AddResult(one.id, "refused", f"the gallery has its {most} rows")
        return AddResult(one.id, "added")

    def _refresh(self) -> None:
        """Take in what another process has written."""
        file, seen = self.reads, self.reads.data_version
        if self._file is not None or seen == self._data_version:
            return
        self._data_version = seen
        with file.reading():
            if file.meta("encoder_sha256") != self._encoder:
                raise InputError(
                    f"{file.path} holds features of another encoder by now: open it again with it"
                )
            old, version = self._searched, stored_version(file)
            if version.number != old.version.number:
                self._searched = load(file, version, self._new_units)
                old.units.clear()
                return
            old.units.drop(np.array(gone_units(file, after=old.generation), np.int64))
            changed = changed_units(file, after=old.generation)
            rows = [unit_rows(in_order(unit_vectors(file, one.unit))[None]) for one in changed]
            self._put(
                changed, np.concatenate(rows) if rows else np.empty((0, file.dim), np.float32)
            )
            old.generation = file.generation

    def _remember(self, added: Sequence[tuple[int, Shot]], generation: int) -> None:
        """Let what was stored be found."""
        searched = self._searched
        new: dict[int, list[F32]] = {}
        for unit, shot in added:
            new.setdefault(unit, []).append(shot.feature)
        records: list[UnitRecord] = []
        features = np.empty((len(new), self.file.dim), np.float32)
        for unit in sorted(set(new) - set(searched.damaged)):
            record = unit_record(self.file, unit)
            is_new = not searched.units.has(unit)
            before, features[len(records)] = self._sums.grown(unit, new[unit], is_new=is_new)
            if before is not None:
                searched.sums.add(np.array([record.camera]), before[None], -1)
            records.append(record)
        features = features[: len(records)]
        searched.sums.add(np.array([one.camera for one in records], np.int64), features)
        with self._memory:
            self._put(records, features)
            searched.generation = generation

    def _hide(self, shots: I64) -> None:
        """Let every search that begins from now on see the gallery without these shots."""
        searched, erased = self._searched, set(shots.tolist())
        gone: list[int] = []
        kept: list[UnitRecord] = []
        features: list[F32] = []
        for unit in units_of(self.file, shots).tolist():
            self._sums.forget(unit)
            if not searched.units.has(unit):
                continue
            record = unit_record(self.file, unit)
            camera = np.array([record.camera])
            searched.sums.add(camera, unit_rows(in_order(unit_vectors(self.file, unit))[None]), -1)
            left = unit_vectors(self.file, unit, without=erased)
            if not len(left):
                gone.append(unit)
                continue
            kept.append(record_without(self.file, record, erased))
            features.append(unit_rows(in_order(left)[None])[0])
            searched.sums.add(camera, features[-1][None])
        with self._memory:
            searched.units.drop(np.array(gone, np.int64))
            self._put(kept, np.array(features, np.float32).reshape(-1, self.file.dim))

    def _put(self, records: Sequence[UnitRecord], features: F32) -> None:
        numbers, cameras = (
            np.array([getattr(one, name) for one in records], np.int64)
            for name in ("unit", "camera")
        )
        first, last = (np.array([getattr(one, n) for one in records]) for n in ("first", "last"))
        aligned = self._searched.version.apply(features, cameras)
        self._searched.units.put(numbers, cameras, first, last, aligned)

    def _take(self, version: Version) -> None:
        """Search what the file now has, by this version, from the next search on."""
        searched = load(self.file, version, self._new_units)
        with self._memory:
            old, self._searched = self._searched, searched
        old.units.clear()

    def _wiped(self) -> bool:
        """Whether nothing of an erasure is left in the file; what is unfinished is told in it."""
        if not self.file.meta("pending"):
            return True
        if not self.file.checkpoint():
            return False
        with self.file.transaction():
            self.file.set_meta("pending", 0)
        return self.file.checkpoint()

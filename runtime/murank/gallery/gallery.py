"""A gallery that lives: rows come and go, and every answer is of one state of it."""

import os
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, OutputError
from murank.engine.deadline import Deadline, Pace, check_deadline
from murank.engine.engine import Engine
from murank.engine.steps import Steps, at_once
from murank.gallery.erased_shots import named_shots, shots_of
from murank.gallery.gallery_check import check_file
from murank.gallery.gallery_query import SHORTLIST, Asked, Filters, Method, Query
from murank.gallery.gallery_result import (
    AddResult,
    Erasure,
    GalleryCheck,
    GalleryRow,
    GallerySearchResult,
    GalleryStats,
    Related,
)
from murank.gallery.gallery_settings import GallerySettings, WhenFull
from murank.gallery.items import (
    Time,
    cameras_of,
    check_attributes,
    check_camera,
    check_items,
    check_time,
    names,
)
from murank.gallery.milvus import Milvus
from murank.gallery.opening import encoder_of, opened
from murank.gallery.portable import read_rows, write_rows
from murank.gallery.ready_shots import Keep, check_features, from_crops, from_features
from murank.gallery.relating import Relating
from murank.gallery.shot_records import AttributeValue
from murank.gallery.state import State
from murank.gallery.stored_shots import crop_of, row_of
from murank.gallery.writer_lock import WriterLock
from murank.images import ImageSource
from murank.images.arguments import check_choice, check_images, check_whole
from murank.rerank.alignment import Alignment
from murank.rerank.alignment import Asked as Level

Mode = Literal["rw", "r"]
_AT_ONCE = 8  # crops decoded and embedded between two moments for others


class Gallery:
    """Tracks of people in one file, searched in memory. Calls from several threads are safe.

    Made by `open`; a context manager. One process writes it, any number read it.
    """

    def __init__(
        self, path: Path, engine: Engine | None, state: State, writer: WriterLock | None,
        settings: GallerySettings,
    ) -> None:  # fmt: skip
        """For `open` only."""
        self.path, self.engine, self.settings = path, engine, settings
        self._state, self._writer = state, writer
        self.pace = Pace()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        engine: Engine | None,
        *,
        mode: Mode = "rw",
        keep: Keep = "crops",
        best_shots: int = 4,
        min_side: int = 16,
        max_rows: int | None = None,
        when_full: WhenFull = "refuse",
        retention: timedelta | float | None = None,
        align_cameras: Level = "auto",
        align_dims: int | Literal["auto", "all"] = "auto",
        align_within: timedelta | float = 3600.0,
        milvus: Milvus | None = None,
    ) -> "Gallery":
        """Open a gallery's file, or make it.

        Parameters
        ----------
        path
            Of the file; SQLite's -wal and -shm, and a -lock, are beside it while it is open.
        engine
            With an encoder; it is not copied. A gallery holds features of one encoder. None: a
            gallery that is there is kept in order, and searched by stored shots and features.
        mode
            "rw" (one process; the file is made where there is none) or "r".
        keep
            "crops": of each track the `best_shots` largest and sharpest as JPEG, so that the MLLM
            can be asked about them. "tokens": its vision tokens instead, of no use to another
            engine, and no picture. "none": features alone; the MLLM is never asked.
        best_shots
            Kept of a track.
        min_side
            Pixels of the shorter side of a crop; smaller ones are refused.
        max_rows, when_full
            Shots in the gallery, at most; one more is refused, or the oldest are erased.
        retention
            Seconds, or a timedelta, that `purge` lets a shot stay.
        align_cameras, align_dims
            As of `Searcher`; what `align` fits.
        align_within
            Seconds, or a timedelta, after an erasure in which `maintain` fits directions anew.
        milvus
            Where features are searched instead of in memory (docs/appliance.md); mode="rw" alone.

        Raises
        ------
        InputError
            Not a gallery, or one of another encoder, a newer format, open for writing elsewhere.
        OutputError
            The file cannot be made or written.
        """
        file_path = Path(path)
        check_choice(mode, "mode", ("rw", "r"))
        settings = GallerySettings(
            keep, best_shots, min_side, max_rows, when_full, retention, align_within
        )
        alignment = Alignment(align_cameras, align_dims)
        state, writer = opened(file_path, engine, alignment, milvus, writes=mode == "rw")
        return cls(file_path, engine, state, writer, settings)

    @property
    def dim(self) -> int:
        """Values of a feature."""
        return self._state.reads.dim

    def close(self) -> None:
        """Let go of the file, and overwrite what is in memory. Twice is once."""
        self._state.close()
        if self._writer is not None:
            self._writer.release()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    @at_once
    def add(
        self,
        crops: Sequence[ImageSource] | None = None,
        *,
        camera: int | Sequence[int] | NDArray[Any],
        time: Time | Sequence[Time] | NDArray[Any],
        features: Any = None,
        track: str | int | Sequence[str | int | None] | None = None,
        id: str | Sequence[str | None] | None = None,  # noqa: A002  what callers call it
        subject: str | Sequence[str | None] | None = None,
        attributes: Mapping[str, AttributeValue] | Sequence[Mapping[str, AttributeValue]] = {},
    ) -> Steps[list[AddResult]]:
        """Add shots; those that are stored when it returns stay through a power cut.

        What belongs to an item is one value for all, or a list of one each.

        Parameters
        ----------
        crops
            A list of images (paths, PIL images, uint8 RGB arrays, bytes of a file).
        camera
            Number of the camera, 0 or more.
        time
            Seconds since the epoch, or an aware datetime.
        features
            Instead of crops: [n,D] of this engine's encoder, any scale. The MLLM is never asked
            about such shots.
        track
            What the tracker calls it: shots of one track and camera are searched as one. None: the
            shot is a track of its own.
        id
            Of the shot, unique; None: one is made. The same again, with the same content, is
            "known"; with another content it is refused.
        subject
            A name to erase by.
        attributes
            Names with texts, numbers or truth values, to filter by.

        Returns
        -------
        list
            A status an item, in their order: what is wrong with one never loses the others.

        Raises
        ------
        InputError
            The call itself is wrong; nothing was stored.
        OutputError
            The disk is full, or the gallery was opened with mode="r"; nothing was stored.
        """
        self._check_writes()
        if (crops is None) == (features is None):
            raise InputError("add takes crops or features, one of them")
        if crops is None:
            given: Any = check_features(features, self._state.reads.dim)
        else:
            check_images(crops, "crops")
            given = crops
        items = check_items(
            len(given), camera=camera, time=time, track=track, id=id, subject=subject,
            attributes=attributes,
        )  # fmt: skip
        settings = self.settings
        if crops is None:
            ready = from_features(given, items)
        else:
            ready = []
            for start in range(0, len(items), _AT_ONCE):
                yield None
                part = slice(start, start + _AT_ONCE)
                ready += from_crops(
                    crops[part], items[part], self._seeing(), settings.keep,
                    min_side=settings.min_side,
                )  # fmt: skip
        return self._state.store(
            ready, best=settings.best_shots, most=settings.max_rows,
            drops=settings.when_full == "drop-oldest",
        )  # fmt: skip

    @at_once
    def search(
        self,
        crop: ImageSource | Sequence[ImageSource] | None = None,
        *,
        feature: Any = None,
        id: str | None = None,  # noqa: A002
        cameras: int | Iterable[int] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        exclude_tracks: str | Iterable[str] = (),
        attributes: Mapping[str, AttributeValue] = {},
        camera: int | None = None,
        top_k: int = 20,
        candidates: int = 20,
        shortlist: int | None = SHORTLIST,
        method: Method = "ca-jaccard",
        parameters: Mapping[str, Any] = {},
        deadline_ms: float | None = None,
    ) -> Steps[GallerySearchResult]:
        """Rank the tracks that pass the filters for one person.

        Parameters
        ----------
        crop
            An image, or a list of images of the same person; the MLLM is shown the first.
        feature
            Instead of a crop: [D]; the MLLM is not asked.
        id
            Instead of both: a shot that is stored. Its own track is left out.
        cameras, since, until, attributes
            Filters: a track passes that was seen by one of these cameras, in [since, until], with
            all of these attributes.
        exclude_tracks
            Left out, whatever the camera.
        camera
            The query's own camera, for its alignment; None: unknown, or that of the stored shot.
        top_k
            Matches returned, at most.
        candidates
            Of the nearest tracks, that the MLLM is asked about.
        shortlist
            Of the nearest tracks, among which neighbours are looked for; None: all that pass.
        method
            "ca-jaccard", "k-reciprocal", "simple" (mu fused, no neighbours) or "none".
        parameters
            Of the method: k1, k2, lambda_value, ..., alpha.
        deadline_ms
            As of `Searcher.search`.

        Raises
        ------
        InputError
            The query or an argument cannot be used, or there is no such id.
        """
        start = self.pace.clock()
        check_deadline(deadline_ms)
        filters = Filters(
            None if cameras is None else cameras_of(cameras, "cameras"),
            None if since is None else check_time(since, "since"),
            None if until is None else check_time(until, "until"),
            names(exclude_tracks, "exclude_tracks") if exclude_tracks != () else [],
            check_attributes(attributes, "attributes"),
        )  # fmt: skip
        asked = Asked(
            check_whole(top_k, "top_k"), check_whole(candidates, "candidates", least=0), shortlist,
            method, parameters, None if deadline_ms is None else start + deadline_ms / 1000,
        )  # fmt: skip
        own = None if camera is None else check_camera(camera, "camera")
        query = Query(self.engine, self._state.reads, self.pace)
        query.see(crop, feature, id, own)
        with query.watch.stage("retrieve"), self._state.searched() as searched:
            query.retrieve(searched, filters, asked)
        return (yield from query.answer(asked))

    def get(self, ids: str | Sequence[str]) -> list[GalleryRow | None]:
        """Return stored shots without their features, in order; None: there is none."""
        return [row_of(self._state.reads, one) for one in names(ids, "ids")]

    def crop(self, id: str) -> bytes | None:  # noqa: A002
        """Return the JPEG that is kept of a stored shot; None: there is none."""
        return crop_of(self._state.reads, names(id, "id")[0])

    def erase(
        self,
        *,
        ids: str | Sequence[str] | None = None,
        track: str | None = None,
        subject: str | None = None,
    ) -> Erasure:
        """Erase shots by their ids, their track (of all cameras) or their subject.

        They are in no search that begins afterwards, and overwritten in memory, in the file and in
        the engine's caches when it returns; see `Erasure.complete`. What lies below the file
        system (a disk's spare blocks, snapshots, backups) is beyond it.

        Raises
        ------
        InputError
            Not exactly one of the three is given.
        OutputError
            The gallery was opened with mode="r".
        """
        self._check_writes()
        return self._state.erase(lambda: named_shots(self._state.file, ids, track, subject))

    def purge(self, older_than: Time | None = None) -> Erasure:
        """Erase shots from before a time (None: as `retention` says), and finish erasures."""
        self._check_writes()
        before = None if older_than is None else check_time(older_than, "older_than")
        if before is None and (stay := self.settings.stay_seconds) is not None:
            before = clock.time() - stay
        if before is None:
            return self._state.erase(lambda: np.empty(0, np.int64))
        return self._state.erase(lambda: shots_of(self._state.file, before=before))

    def align(self) -> str:
        """Fit the cameras' directions anew, beside what is searched meanwhile; returns the level.

        Raises
        ------
        InputError
            `align_cameras` asks for what these units do not allow.
        """
        self._check_writes()
        return self._state.align()

    @property
    def alignment_note(self) -> str | None:
        """Why `align` did less than it can; None: it did all, or was not called since `open`."""
        return self._state.alignment_note

    def reembed(self, engine: Engine, *, progress: Callable[[int, int], None] | None = None) -> int:
        """Hold features of this engine's encoder from now on, made from the crops that are kept.

        Shots of which no crop is kept are erased. Wholly or not at all; returns the shots embedded.
        Raises InputError, and OutputError.
        """
        self._check_writes()
        count = self._state.reembed(engine, encoder_of(engine), progress)
        self.engine = engine
        return count

    def relate(
        self,
        *,
        budget_pairs: int | None = None,
        deadline_ms: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Related:
        """Ask the MLLM about new tracks and those nearest to each, for searches to use; when idle.

        The newest first, each once and about ten others, until all are done, `budget_pairs` are
        asked, or the time is over. Searches go on meanwhile; what `progress` was told of (tracks
        done, and in all) stays. The answers are the engine's own: another one asks anew.

        Raises InputError (an argument, or an engine without an MLLM) and OutputError.
        """
        self._check_writes()
        if budget_pairs is not None:
            check_whole(budget_pairs, "budget_pairs")
        check_deadline(deadline_ms)
        end = None if deadline_ms is None else self.pace.clock() + deadline_ms / 1000
        pace = Pace(self.pace.clock)  # its steps are larger than those of searches
        relating = Relating(self._seeing(), self._state, Deadline(pace, end))
        return relating.run(budget_pairs, progress)

    def maintain(self, told: Callable[[Erasure], None] | None = None) -> None:
        """Do what is due, when it is quiet: retention (`told` what it erased), erasures, align."""
        receipt = self.purge()
        if receipt.rows and told is not None:
            told(receipt)
        if self._state.alignment_due(self.settings.align_seconds):
            self.align()

    def stats(self) -> GalleryStats:
        """Return how large it is, and what is due."""
        with self._state.searched() as searched:
            file, cameras = self._state.reads, searched.sums.arrays()[0]
            return GalleryStats(
                file.count("shots"), len(searched.units), file.count("pictures"),
                tuple(cameras.tolist()), file.size, searched.units.bytes,
                searched.generation, searched.version.fitted.level,
                self._state.alignment_due(self.settings.align_seconds), bool(file.meta("pending")),
                len(searched.damaged), file.count("pairs"), file.count("unrelated"),
            )  # fmt: skip

    def verify(self, *, erased: Erasure | None = None) -> GalleryCheck:
        """Read every byte: what is damaged, and what is left of an erasure."""
        return check_file(self._state.reads, erased)

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy that can be opened, while the gallery is in use. Raises OutputError."""
        self._state.reads.copy_to(Path(path), overwrite=overwrite)

    def export(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """Write features, ids, cameras, times, tracks and attributes to an .npz; returns the rows.

        No crops, no tokens; features as `load_features` reads them. Raises OutputError.
        """
        return write_rows(self._state.reads, Path(path), overwrite=overwrite)

    def import_(self, path: str | os.PathLike[str]) -> list[AddResult]:
        """Add what `export` wrote. Raises as `add`."""
        return self.add(**read_rows(path, self._state.reads.meta("encoder_sha256")))

    def _seeing(self) -> Engine:
        if self.engine is None:
            raise InputError(f"{self.path} was opened without an engine: crops need one")
        return self.engine

    def _check_writes(self) -> None:
        if self._writer is None:
            raise OutputError(f"{self.path} is open for reading: open it with mode='rw'")

"""One query of a gallery: seen, beside its nearest tracks, asked about, and ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.engine.deadline import Deadline, DeadlineAnswers, Pace, score_in_time
from murank.engine.engine import Engine
from murank.engine.steps import Steps, steps_of
from murank.engine.stopwatch import StageWatch
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.gallery_result import GalleryMatch, GallerySearchResult
from murank.gallery.loading import Searched
from murank.gallery.shot_records import F32, Picture
from murank.gallery.shot_tokens import ShotTokens
from murank.gallery.stored_shots import (
    best_shots,
    find_units,
    picture,
    pictures,
    place_of,
    units_of_tracks,
    units_with,
)
from murank.gallery.track_pairs import pairs_among, who_answers
from murank.gallery.unit_features import unit_rows
from murank.gallery.units import Nearest
from murank.images import ImageSource, decoded, prepare, to_pixels
from murank.images.arguments import as_array, check_images, check_whole, source_name
from murank.rerank.features import FeatureSet
from murank.rerank.methods import METHODS, distance_blocks, kernel_errors
from murank.rerank.mu import MuDistances

Method = Literal["ca-jaccard", "k-reciprocal", "simple", "none"]
GALLERY_METHODS: tuple[Method, ...] = get_args(Method)
SHORTLIST = 500
_NOTHING = DeadlineAnswers(np.empty(0), partial=False, settled=False)


@dataclass(frozen=True)
class Filters:
    """Which tracks may be answers."""

    cameras: Sequence[int] | None
    since: float | None
    until: float | None
    without_tracks: Sequence[str]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a caller wants of the tracks that may. Raises InputError."""

    top_k: int
    candidates: int
    shortlist: int | None  # None: all that pass
    method: Method
    parameters: Mapping[str, Any]
    end: float | None  # a moment of the pace's clock

    def __post_init__(self) -> None:
        if self.method not in GALLERY_METHODS:
            raise InputError(
                f"method must be one of {', '.join(GALLERY_METHODS)}, got {shown(self.method)}"
            )
        if self.shortlist is not None:
            check_whole(self.shortlist, "shortlist")
        known = [*METHODS[self.method].parameters, "alpha"]
        unknown = sorted(set(self.parameters) - set(known))
        if unknown:
            raise InputError(
                f"method {self.method!r} has no parameter {', '.join(unknown)}: it has "
                f"{', '.join(known)}"
            )


class Query:
    """What is known of one query so far."""

    def __init__(self, engine: Engine | None, file: GalleryFile, pace: Pace) -> None:
        self._encoder = None if engine is None else engine.encoder
        self._scorer = None if engine is None else engine.scorer
        self._engine = engine
        self._shown: dict[int, str | None] = {}  # shots whose pictures the MLLM sees, their keys
        self._asked_of = None if engine is None or engine.scorer is None else who_answers(engine)
        self._file, self._pace = file, pace
        self.watch = StageWatch()
        self._mllm: Any = None  # uint8 [3,H,W] for the MLLM
        self._camera, self._own_unit = -1, -1
        self._name = "the query"

    def see(self, crop: object, feature: object, shot_id: str | None, camera: int | None) -> None:
        """Take the query in, from one of three."""
        if sum(one is not None for one in (crop, feature, shot_id)) != 1:
            raise InputError("search takes crop, feature or id, one of them")
        self._camera = -1 if camera is None else camera
        if crop is not None:
            self._see_crops(crop)
        elif feature is not None:
            self._see_feature(feature)
        else:
            self._see_shot(shot_id)
            if camera is not None:
                raise InputError("camera is that of the stored shot: leave it out with id")

    def retrieve(self, searched: Searched, filters: Filters, asked: Asked) -> None:
        """Find the nearest tracks of those that pass; what is searched may change afterwards."""
        self._generation = searched.generation
        units = searched.units
        if self._own_unit >= 0:
            if not units.has(self._own_unit):
                raise InputError("the shot with this id was erased, or is damaged")
            row = units.row(self._own_unit)
            self._feature, self._camera = row.feature, row.camera
        else:
            cameras = np.array([self._camera])
            self._feature = searched.version.apply(self._raw[None], cameras)[0]
        named: Any = None
        for key, value in filters.attributes.items():
            some = units_with(self._file, key, value)
            named = some if named is None else np.intersect1d(named, some)
        without = units_of_tracks(self._file, filters.without_tracks)
        if self._own_unit >= 0:
            without = np.append(without, self._own_unit)
        mask = units.allowed(filters.cameras, filters.since, filters.until, named, without)
        most = len(units) if asked.shortlist is None else asked.shortlist
        most = max(most, asked.top_k, asked.candidates)
        self._near = units.nearest(self._feature, mask, most)
        self._between = None
        if METHODS[asked.method].takes_gallery_mu:
            self._between = pairs_among(self._file, self._near.units, self._asked_of)

    def answer(self, asked: Asked) -> Steps[GallerySearchResult]:
        """Ask the MLLM about the nearest, and rank."""
        pictures = self._pictures(asked)
        places = [place for place, one in pictures.items() if one is not None]
        try:
            answers = yield from self._ask([pictures[place] for place in places], asked)  # type: ignore[misc]
        finally:  # also of a search that is dropped on its way
            self._forget_gone()
        scored = dict(zip(places, answers.mu.tolist(), strict=False))
        order, distances = self._ranked(scored, asked)
        matches = self._matches(order, distances, scored)
        return GallerySearchResult(
            tuple(matches), len(scored), len(places), answers.partial, self._generation,
            self.watch.seconds,
            0 if self._between is None else int((self._between.candidates >= 0).sum()),
        )  # fmt: skip

    def _see_crops(self, crop: object) -> None:
        crops: Sequence[ImageSource] = crop if isinstance(crop, (list, tuple)) else [crop]  # type: ignore[list-item]
        check_images(crops, "crop")
        if not crops:
            raise InputError("crop is an empty list")
        encoder, scorer = self._encoder, self._scorer
        if encoder is None:
            raise InputError("the gallery was opened without an engine: a crop needs one")
        how, rows = encoder.part.preprocessing, []
        with self.watch.stage("decode"):
            for place, one in enumerate(crops):
                name = source_name(one, f"crop[{place}]" if len(crops) > 1 else "crop")
                with decoded(one, bits=how.bits, limits=how.limits, name=name) as image:  # type: ignore[arg-type]
                    rows.append(to_pixels(image, how, name=name))
                    if scorer is not None and place == 0:
                        self._mllm = to_pixels(image, scorer.part.preprocessing, name=name)
        with self.watch.stage("embed"):
            features = encoder.features(np.stack(rows), crops)
        self._raw: F32 = unit_rows(features.sum(axis=0)[None])[0]

    def _see_feature(self, feature: object) -> None:
        row = as_array(feature, "feature")
        if row.shape != (self._file.dim,) or row.dtype.kind != "f" or not np.isfinite(row).all():
            raise InputError(
                f"feature must be {self._file.dim} finite numbers, as this engine's encoder makes "
                f"them, got {row.dtype} {list(row.shape)}"
            )
        if not row.any():
            raise InputError("feature must not be zero: it has no direction")
        self._raw = unit_rows((row / np.abs(row).max()).astype(np.float32)[None])[0]

    def _see_shot(self, shot_id: object) -> None:
        if not isinstance(shot_id, str):
            raise InputError(f"id must be a text, got {shown(shot_id)}")
        found = place_of(self._file, shot_id)
        if found is None:
            raise InputError(f"no shot has the id {shown(shot_id)}")
        shot, self._own_unit = found
        self._name = f"shot {shot_id}"
        stored, scorer = picture(self._file, shot), self._scorer
        if stored is not None and stored.jpeg is not None and scorer is not None:
            self._mllm = prepare(stored.jpeg, scorer.part.preprocessing, name=self._name).pixels
            self._shown[shot] = stored.key

    def _pictures(self, asked: Asked) -> dict[int, Picture | None]:
        """Return what the MLLM can be shown of the nearest tracks, by their place."""
        if self._mllm is None or not METHODS[asked.method].takes_mu:
            return {}
        found: dict[int, Picture | None] = {}
        self._shots: dict[int, str] = {}
        asked_about = self._near.units[: asked.candidates].tolist()
        best = best_shots(self._file, asked_about)
        kept = pictures(self._file, [shot for _, shot in best.values() if shot is not None])
        for place, unit in enumerate(asked_about):
            shot_id, shot = best.get(unit, ("", None))  # erased meanwhile
            self._shots[place] = shot_id
            if shot in kept:
                self._shown[shot] = kept[shot].key
            found[place] = None if shot is None else kept.get(shot)
        return found

    def _forget_gone(self) -> None:
        """Let the engine forget pictures that were erased while it was shown them."""
        there = set(self._file.texts("SELECT shot FROM pictures WHERE shot IN", list(self._shown)))
        for shot, key in self._shown.items():
            if shot not in there and key is not None and self._engine is not None:
                self._engine.forget_key(key)

    def _ask(self, pictures: Sequence[Picture], asked: Asked) -> Steps[DeadlineAnswers]:
        scorer = self._scorer
        if scorer is None or not pictures:
            return _NOTHING
        pace = self._pace
        reserve = pace.expected("fuse") + pace.expected("rerank")
        end = None if asked.end is None else asked.end - reserve
        return (yield from steps_of(
            score_in_time, scorer, self._mllm, ShotTokens(scorer, pictures),
            list(range(len(pictures))), Deadline(pace, end), self.watch, name=self._name,
        ))  # fmt: skip

    def _ranked(self, scored: Mapping[int, float], asked: Asked) -> tuple[list[int], list[float]]:
        """Return places among the nearest, best first, and what they are ranked by."""
        near = self._near
        count = min(asked.top_k, len(near.units))
        if not count:
            return [], []
        mu, between = None, self._between
        if scored:
            places = np.array([list(scored)])
            mu = MuDistances(np.array([list(scored.values())]), places)
        method: str = asked.method
        if method == "simple" and mu is None:
            method = "none"
        fused = mu is not None or between is not None
        takes = [*METHODS[method].parameters, *(["alpha"] if fused else [])]
        parameters = {key: one for key, one in asked.parameters.items() if key in takes}
        with self._pace.timed("rerank", self.watch):
            blocks = distance_blocks(
                method, self._as_set(near), mu, gallery_mu=between, normalize=False, **parameters
            )
            with kernel_errors():
                distances, order = blocks.top_k(count)
        return order[0].tolist(), distances[0].tolist()

    def _as_set(self, near: Nearest) -> FeatureSet:
        rows = np.vstack([self._feature[None], near.features])
        known = np.append(near.cameras, self._camera)
        numbers = np.unique(known, return_inverse=True)[1].astype(np.int64)
        own = numbers[-1] if self._camera >= 0 else numbers.max() + 1  # unknown: one of its own
        cameras = np.concatenate([[own], numbers[:-1]])
        return FeatureSet(rows, np.empty(len(rows), "U1"), None, cameras, 1)

    def _matches(
        self, order: Sequence[int], distances: Sequence[float], scored: Mapping[int, float]
    ) -> list[GalleryMatch]:
        near = self._near
        numbers = near.units[order].tolist()
        records, best = find_units(self._file, numbers), best_shots(self._file, numbers)
        matches: list[GalleryMatch] = []
        for place, unit, distance in zip(order, numbers, distances, strict=True):
            record = records.get(unit)
            if record is None or unit not in best:  # erased meanwhile
                continue
            shot_id, shot = best[unit]
            mu = scored.get(place)
            match = GalleryMatch(
                len(matches) + 1, shot_id, record.camera, record.track, record.first, record.last,
                distance, float(near.distances[place]), mu,
                None if mu is None else self._shots[place],
                shot is not None and self._scorer is not None,
            )  # fmt: skip
            matches.append(match)
        return matches

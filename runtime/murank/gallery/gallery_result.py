"""What a gallery answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from murank.engine.stopwatch import Stage


@dataclass(frozen=True)
class AddResult:
    """What became of one item."""

    id: str | None  # None: it was refused, and had none
    status: Literal["added", "known", "refused"]  # known: it was there, with the same content
    reason: str | None = None  # why it was refused


@dataclass(frozen=True)
class GalleryMatch:
    """One track before one camera: a candidate match; a person decides whether it is one."""

    rank: int  # from 1
    id: str  # of its best shot
    camera: int
    track: str | None
    first: float  # seconds since the epoch
    last: float
    distance: float  # what it was ranked by, small = same person
    encoder_distance: float  # Euclidean, of unit features (aligned ones, if they are), in [0,2]
    mu: float | None  # p("different person"); None where the MLLM was not asked
    shot: str | None  # the id of the shot that it was asked about
    can_ask: bool  # whether a crop is kept that the MLLM can be asked about


@dataclass(frozen=True)
class Related:
    """How far the tracks of a gallery were asked about among themselves."""

    pairs: int  # asked in this call
    tracks: int  # that were done with it
    tracks_left: int


@dataclass(frozen=True)
class GallerySearchResult:
    """The candidate matches of one query, best first, and how they came about."""

    matches: tuple[GalleryMatch, ...]
    scored: int  # candidates that the MLLM saw
    candidates: int  # that it would have seen without a deadline
    partial: bool  # the deadline left some out
    generation: int  # of the gallery that was searched
    seconds: Mapping[Stage, float]
    pairs: int = 0  # of tracks of the shortlist, of which `relate` had asked mu


@dataclass(frozen=True)
class GalleryRow:
    """One stored shot, without its feature."""

    id: str
    camera: int
    time: float  # seconds since the epoch
    track: str | None
    subject: str | None
    attributes: Mapping[str, str | int | float | bool]
    has_picture: bool


@dataclass(frozen=True)
class Erasure:
    """What an erasure took away; keep it to let `verify` look for remains."""

    ids: tuple[str, ...]
    rows: int
    vectors: int
    crops: int
    vision_tokens: int
    pairs: int  # of tracks, of which the MLLM was asked by one of these shots
    complete: bool  # False: a process holds the file open (`purge()` finishes it), or Milvus has it
    alignment_rebuilt: bool  # whether the directions of the alignment are fitted anew already
    generation: int


@dataclass(frozen=True)
class GalleryStats:
    """How large a gallery is."""

    rows: int
    tracks: int
    pictures: int
    cameras: tuple[int, ...]
    bytes_on_disk: int
    bytes_in_memory: int
    generation: int
    alignment: str  # "pairs", "mean" or "off"
    alignment_due: bool  # `align()` would fit other directions by now
    erasures_pending: bool  # a reader kept an erasure from being complete
    damaged_tracks: int  # left out of every search; `verify` names them
    pairs: int  # of tracks, of which `relate` has asked mu
    tracks_to_relate: int  # whose nearest `relate` has still to ask about


@dataclass(frozen=True)
class GalleryCheck:
    """What `verify` found."""

    damaged: tuple[str, ...]  # ids of shots of which something is damaged
    remains: tuple[str, ...]  # places where something erased may be left

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to be told."""
        return not (self.damaged or self.remains)

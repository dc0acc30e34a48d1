"""The images of a job: their order, and what tells that one has changed."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.datasets import ImageList
from murank.datasets.labels import Ids
from murank.datasets.named_ids import check_alike
from murank.jobs.stage import file_stat
from murank.journal.journal import Stat
from murank.rerank.features import FeatureSet


@dataclass(frozen=True)
class Images:
    """Query and gallery images, queries first."""

    paths: tuple[Path, ...]  # [N]
    pids: Ids | None  # [N] person ids
    camids: Ids | None  # [N] camera ids
    num_query: int
    notes: tuple[str, ...] = ()  # on how they were found
    unlabelled: str | None = None  # why ids are not known
    clothes: Ids | None = None  # [N] what the person wears
    id_names: tuple[str, ...] = ()  # ids that are names

    @classmethod
    def of(cls, query: ImageList, gallery: ImageList) -> "Images":
        """Put the gallery behind the queries; labels count where both lists have them."""
        pids, camids = _joined(query.pids, gallery.pids), _joined(query.camids, gallery.camids)
        check_alike(pids, len(query.paths), "pids")
        check_alike(camids, len(query.paths), "camids")
        return cls(
            (*query.paths, *gallery.paths),
            pids,
            camids,
            len(query.paths),
            query.notes + gallery.notes,
            "; ".join(side.unlabelled for side in (query, gallery) if side.unlabelled) or None,
            _joined(query.clothes, gallery.clothes),
            tuple(sorted({*query.id_names, *gallery.id_names})),
        )

    @cached_property
    def stats(self) -> list[Stat | None]:
        """What changes when an image does, [N]; taken once, at the first use."""
        return [file_stat(path) for path in self.paths]

    def kept(self, keep: NDArray[np.bool_]) -> "Images":
        """Return the images where `keep` [N] is true."""
        return Images(
            tuple(path for path, kept in zip(self.paths, keep, strict=True) if kept),
            None if self.pids is None else self.pids[keep],
            None if self.camids is None else self.camids[keep],
            int(keep[: self.num_query].sum()),
            unlabelled=self.unlabelled,
            clothes=None if self.clothes is None else self.clothes[keep],
            id_names=self.id_names,
        )

    def with_features(
        self, features: NDArray[Any], encoder_sha256: str | None = None
    ) -> FeatureSet:
        """Return the feature set, given a row an image and what made it."""
        paths = np.array([str(path) for path in self.paths])
        return FeatureSet(
            features, paths, self.pids, self.camids, self.num_query, encoder_sha256,
            self.unlabelled, clothes=self.clothes, id_names=self.id_names,
        )  # fmt: skip


def _joined(query: Ids | None, gallery: Ids | None) -> Ids | None:
    if query is None or gallery is None:
        return None
    return np.concatenate([query, gallery])

"""What a job is: an engine, images or features from elsewhere, and what is asked of them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from murank.engine.pair_orders import Order
from murank.jobs.job_images import Images
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.score import GALLERY_MU, HALVES, QUERY_MU, MuStage
from murank.jobs.share import Share
from murank.jobs.skip_limit import DEFAULT_SKIPS, SkipLimit
from murank.jobs.stage import fingerprint
from murank.jobs.workspace import FEATURES_FILE
from murank.rerank.alignment import OFF, Alignment
from murank.rerank.features import FeatureSet


@dataclass(frozen=True)
class GivenFeatures:
    """Features from elsewhere, and where the images are that their paths name."""

    features: FeatureSet
    file: Path
    image_root: Path

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """A path a row."""
        return tuple(self.image_root / str(path) for path in self.features.paths)

    @property
    def id_names(self) -> tuple[str, ...]:
        """Ids that are names."""
        return self.features.id_names

    @cached_property
    def fingerprint(self) -> str:
        """Of the file's bytes, and of how many are queries."""
        digest = hashlib.sha256()
        with self.file.open("rb") as file:
            while some := file.read(1 << 20):
                digest.update(some)
        return fingerprint(digest.hexdigest(), self.features.num_query)


@dataclass(frozen=True)
class Job:
    """What the engine is asked for."""

    engine: LazyEngine
    source: Images | GivenFeatures
    candidates: int | None = None  # of a query; None: its pairs are not scored
    gallery_candidates: int | None = None  # of a gallery image; None: no pairs of these
    order: Order = "given"
    skips: SkipLimit = DEFAULT_SKIPS
    mixed: bool = False  # answers of several kinds of devices may stand side by side
    share: Share | None = None  # of the queries; None: all, and the files are written
    device: str = "cpu"  # of the kernels
    alignment: Alignment = OFF  # candidates are chosen on what it gives

    @property
    def job(self) -> dict[str, Any]:
        """What the stages depend on, by the name a user knows it by."""
        return {
            "ENGINE": self.engine.answers_sha256,
            "--bits": self.engine.bits,
            "images": self._images,
            "--candidates": self.candidates,
            "--gallery-candidates": self.gallery_candidates,
            "--order": self.order if self.scores else None,
            "--align-cameras": self.alignment.to_json() if self.scores else None,
        }

    @property
    def writes(self) -> list[str]:
        """Names of the files that the stages make."""
        scores = [stage.files[one] for stage in self.scores for one in HALVES[self.order]]
        return [FEATURES_FILE, *scores]

    @property
    def scores(self) -> dict[MuStage, int]:
        """Stages that score pairs, in order, and candidates a row of each."""
        wanted = {QUERY_MU: self.candidates, GALLERY_MU: self.gallery_candidates}
        return {stage: k for stage, k in wanted.items() if k is not None}

    @property
    def image_root(self) -> Path:
        """Where paths in the features start."""
        return self.source.image_root if isinstance(self.source, GivenFeatures) else Path()

    @property
    def _images(self) -> str:
        if isinstance(self.source, GivenFeatures):
            return self.source.fingerprint
        # Names alone: an image that changed makes a part of a stage anew, not the whole job.
        paths = [str(path.absolute()) for path in self.source.paths]
        return fingerprint(paths, self.source.num_query)

"""What `murank rerank` and `murank evaluate` rank: a job folder, or features and mu from files."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.alignment_options import alignment_flags, alignment_of
from murank.cli.parser import Parser, check_needs, given_flags, positive
from murank.datasets.named_ids import told_names
from murank.jobs import FinishedJob, read_job
from murank.rerank.alignment import Alignment
from murank.rerank.features import FeatureSet, map_features
from murank.rerank.mu import MuDistances, load_mu
from murank.rerank.ranking import check_there

_OF_MU = ("mu", "gallery_mu", "candidates")
_NEEDS = {"mu_swapped": ("mu",), "gallery_mu_swapped": ("gallery_mu",)}
_TOLD = ("engine", "candidates", "gallery_candidates", "order", "skipped")


@dataclass(frozen=True)
class RankedSource:
    """Features, mu where there is any, and the alignment that goes with them."""

    features: FeatureSet
    mu: MuDistances | None
    gallery_mu: MuDistances | None  # between gallery images
    alignment: Alignment
    image_root: Path  # where paths in the features start
    job: FinishedJob | None
    summary: dict[str, Any]  # where all this comes from, JSON-ready

    def with_candidates(self, count: int | None) -> "RankedSource":
        """Return mu of the first candidates of each query alone. Raises UsageError."""
        if count is None:
            return self
        if self.mu is None:
            raise UsageError("--candidates is of mu: it needs --mu, or a job folder with mu.npz")
        most = int(self.mu.mu.shape[1])
        if count > most:
            raise UsageError(f"--candidates {count}: mu of {most} was asked; see murank score")
        mu = MuDistances(self.mu.mu[:, :count], self.mu.candidates[:, :count])
        return replace(self, mu=mu)


def add_ranked_source(
    result: Parser,
    metavar: str = "JOB|F.npz",
    text: str = "a folder of murank score, or features, queries first",
) -> None:
    """Add the options that `read_ranked` reads."""
    result.add_argument("source", metavar=metavar, type=Path, help=text)
    group = result.add_argument_group("about the source (what is not named, a job folder says)")
    group.add_argument("--num-query", type=positive, metavar="N", help="of F.npz: leading rows")
    group.add_argument("--mu", metavar="M.npz", help="mu-distances of the candidates, to fuse")
    group.add_argument("--mu-swapped", metavar="M.npz", help="the same, images in swapped order")
    group.add_argument(
        "--gallery-mu", metavar="M.npz", help="mu-distances between gallery images, to fuse too"
    )
    group.add_argument(
        "--gallery-mu-swapped", metavar="M.npz", help="the same, images in swapped order"
    )
    group.add_argument("--no-mu", action="store_true", help="leave mu out")
    group.add_argument(
        "--candidates", type=positive, metavar="K", help="the first K of those with mu (all)"
    )


def read_ranked(
    args: argparse.Namespace, *, takes_mu: bool = True, takes_gallery_mu: bool = True
) -> RankedSource:
    """Read it; a job's mu is left out where it is not taken.

    Raises
    ------
    UsageError, InputError
        Options contradict each other, or a file cannot be used.
    """
    check_needs(args, _NEEDS)
    if args.no_mu:
        for flag in given_flags(args, _OF_MU).values():
            raise UsageError(f"{flag} and --no-mu contradict each other")
    job, features = read_features(args.source, args.num_query)
    files, gallery_files = _mu_files(args, job)
    files, gallery_files = files * takes_mu, gallery_files * takes_gallery_mu
    alignment = alignment_of(args)
    if job is not None and not alignment_flags(args):
        alignment = job.report.asked_alignment.again()
    told = None if job is None else job.report.to_json()
    return RankedSource(
        features, _load(files), _load(gallery_files), alignment, _image_root(args, job), job,
        {
            "inputs": {
                "source": str(args.source), "mu": [str(file) for file in files],
                "gallery_mu": [str(file) for file in gallery_files],
                **told_names(features.id_names),
            },
            "job": None if told is None else {key: told[key] for key in _TOLD},
        },
    ).with_candidates(args.candidates)  # fmt: skip


def read_features(source: Path, num_query: int | None) -> tuple[FinishedJob | None, FeatureSet]:
    """Return a job folder and its features; or None, and those of a file."""
    check_there(source)
    if not source.is_dir():
        return None, map_features(source, num_query)
    if num_query is not None:
        raise UsageError("--num-query is of a features file: a job folder says it")
    job = read_job(source)
    return job, replace(map_features(job.features), unlabelled=job.report.unlabelled)


def _mu_files(args: argparse.Namespace, job: FinishedJob | None) -> tuple[list[Path], list[Path]]:
    if args.no_mu:
        return [], []
    kept = ([], []) if job is None else (job.mu, job.gallery_mu)
    named = (args.mu, args.mu_swapped), (args.gallery_mu, args.gallery_mu_swapped)
    chosen = [
        [Path(file) for file in files if file is not None] or of_job
        for files, of_job in zip(named, kept, strict=True)
    ]
    return chosen[0], chosen[1]


def _image_root(args: argparse.Namespace, job: FinishedJob | None) -> Path:
    named = getattr(args, "image_root", None)
    if named is not None:
        return Path(named)
    return Path() if job is None else job.image_root


def _load(files: Sequence[Path]) -> MuDistances | None:
    """Read mu of one prompt order, or the mean of both."""
    return load_mu(*files) if files else None

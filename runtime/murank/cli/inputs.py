"""What `murank rerank` re-ranks, from files alone or with an engine's help."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from murank.cli.engine_options import (
    candidates_of_gallery_image,
    candidates_of_query,
    engine_of,
)
from murank.cli.progress import ProgressLine
from murank.cli.rerank_sheet import check_images, check_sheet
from murank.cli.sources import image_root, images_of
from murank.files.atomic import made_folder, readable_errors, sole_writer
from murank.jobs import (
    GivenFeatures,
    Images,
    InMemory,
    Job,
    JobFolder,
    Prepared,
    check_others,
    prepare,
)
from murank.rerank.alignment import Aligned, align
from murank.rerank.features import FeatureSet, load_features
from murank.rerank.mu import MuDistances, load_mu
from murank.rerank.pipeline import Settings, StageClock, check_settings
from murank.rerank.ranking import Ranking, check_output, write_ranking

_MU = ("mu", "mu_swapped", "mu_gallery", "mu_gallery_swapped")
_NAMED = (
    "features", "num_query", "image_root", "query", "gallery", "dataset", "root", "split", "boxes",
    *_MU,
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What there is to re-rank, and where the result goes."""

    features: FeatureSet
    aligned: Aligned
    mu: MuDistances | None
    gallery_mu: MuDistances | None  # between gallery images
    summary: Mapping[str, Any]  # JSON-ready
    write: Callable[[Ranking, Mapping[str, Any]], None]  # into -o


@contextmanager
def open_inputs(
    args: argparse.Namespace, settings: Settings, *, clock: StageClock, line: ProgressLine
) -> Iterator[Inputs]:
    """Yield them; the output folder stays ours inside. Raises what the stages raise."""
    check_sheet(args)
    if args.engine is None:
        yield _from_files(args, settings, clock, line)
        return
    plan, given = _plan(args, settings, clock)
    with _workspace(args, plan) as workspace:
        prepared = prepare(plan, workspace, clock=clock, report=line)
        named = {key: getattr(args, key) for key in _NAMED if getattr(args, key) is not None}
        yield Inputs(
            features=prepared.features,
            aligned=prepared.aligned,
            mu=prepared.mu if given.mu is None else given.mu,
            gallery_mu=prepared.gallery_mu if given.gallery_mu is None else given.gallery_mu,
            summary={**prepared.summary, "inputs": named},
            write=_writer(args, workspace, prepared),
        )


def _from_files(
    args: argparse.Namespace, settings: Settings, clock: StageClock, line: ProgressLine
) -> Inputs:
    if args.output is not None:
        check_output(args.output, overwrite=args.overwrite)
    with clock.stage("load"):
        features = load_features(args.features, args.num_query)
        given = _given_mu(args)
        check_images(args, features)
    check_settings(features, given.mu, settings, gallery_mu=given.gallery_mu)
    with clock.stage("align"):
        aligned = align(features, settings.alignment, progress=line.part("align"))

    def write(ranking: Ranking, summary: Mapping[str, Any]) -> None:
        folder = Path(args.output)
        with readable_errors(folder), made_folder(folder), sole_writer(folder):
            write_ranking(
                folder, ranking, summary, format=args.format or "npz", overwrite=args.overwrite
            )

    inputs = {key: getattr(args, key) for key in ("features", *_MU)}
    return Inputs(features, aligned, given.mu, given.gallery_mu, {"inputs": inputs}, write)


class _Mu(NamedTuple):
    """Mu from files."""

    mu: MuDistances | None
    gallery_mu: MuDistances | None


def _given_mu(args: argparse.Namespace) -> _Mu:
    return _Mu(
        None if args.mu is None else load_mu(args.mu, args.mu_swapped),
        None if args.mu_gallery is None else load_mu(args.mu_gallery, args.mu_gallery_swapped),
    )


def _plan(args: argparse.Namespace, settings: Settings, clock: StageClock) -> tuple[Job, _Mu]:
    """Return what to ask the engine for, and mu from elsewhere; everything cheap is checked."""
    engine = engine_of(args)
    with clock.stage("load"):
        given = _given_mu(args)
        source: Images | GivenFeatures
        if args.features is None:
            source = images_of(args)
            stand_in = source.with_features(np.ones((len(source.paths), 1), np.float32))
        else:
            stand_in = load_features(args.features, args.num_query)
            source = GivenFeatures(stand_in, Path(args.features), image_root(args))
        check_images(args, stand_in)
    plan = Job(
        engine, source, top_k_candidates=candidates_of_query(args),
        gallery_mu=candidates_of_gallery_image(args), order=args.order or "given",
        strict=args.strict, device=args.device, alignment=settings.alignment,
    )  # fmt: skip
    if plan.gallery_mu is not None:
        check_others(stand_in.num_gallery)
    _check_alignment(plan, stand_in)
    expected = _expected_mu(plan, stand_in, given)
    check_settings(stand_in, expected.mu, settings, gallery_mu=expected.gallery_mu)
    return plan, given


def _check_alignment(plan: Job, features: FeatureSet) -> None:
    """Raise what would show once all images are embedded."""
    made = isinstance(plan.source, Images)
    is_given = plan.alignment.given is not None
    plan.alignment.check(
        dim=plan.engine.encoder.dim if made else int(features.features.shape[1]),
        camids=features.gallery.camids,
        encoder_sha256=plan.engine.encoder_sha256 if made and is_given else features.encoder_sha256,
    )


def _expected_mu(plan: Job, features: FeatureSet, given: _Mu) -> _Mu:
    """Return mu as it will be, or of its shape: what does not fit shows before hours of scoring."""
    mu, gallery_mu = given
    if mu is not None and isinstance(plan.source, Images):
        mu = _stand_in_mu(features.num_query, 0)  # images that cannot be read will be left out
    if plan.top_k_candidates is not None:
        mu = _stand_in_mu(features.num_query, 0)
    if plan.gallery_mu is not None:
        gallery_mu = _stand_in_mu(features.num_gallery, 1)
    return _Mu(mu, gallery_mu)


def _stand_in_mu(num_rows: int, step: int) -> MuDistances:
    """Return mu of one candidate a row: the first, and with `step` 1 the next and no row itself."""
    candidates = (np.arange(num_rows) * step + step) % num_rows
    return MuDistances(np.zeros((num_rows, 1), np.float32), candidates[:, None])


def _workspace(args: argparse.Namespace, plan: Job) -> Any:
    if args.output is None:
        return nullcontext(InMemory())
    inputs = [getattr(args, key) for key in ("features", *_MU)]
    return JobFolder(
        Path(args.output),
        plan.job,
        overwrite=args.overwrite,
        writes=plan.writes,
        inputs=[Path(file) for file in inputs if file is not None],
        also_ours=[] if args.sheet is None else [Path(args.sheet)],
    )


def _writer(
    args: argparse.Namespace, workspace: Any, prepared: Prepared
) -> Callable[[Ranking, Mapping[str, Any]], None]:
    def write(ranking: Ranking, summary: Mapping[str, Any]) -> None:
        workspace.finish(
            ranking, summary, features=prepared.fingerprint, format=args.format or "npz"
        )

    return write

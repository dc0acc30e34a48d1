"""What `murank rerank` re-ranks, from files alone or with an engine's help."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from murank._features import FeatureSet, load_features
from murank._mu import MuDistances, load_mu
from murank._pipeline import Clock, Settings, check_settings
from murank._ranking import Ranking, check_output, write_ranking
from murank.batch import GivenFeatures, Images, JobFolder, Memory, Plan, Prepared, prepare
from murank.cli._engine_options import TOP_K_CANDIDATES, engine_of
from murank.cli._progress import ProgressLine
from murank.cli._sheet import check_images, check_sheet
from murank.cli._sources import engine_scores, image_root, images_of

_NAMED = (
    "features", "num_query", "image_root", "query", "gallery", "dataset", "root", "split", "boxes",
    "mu", "mu_swapped",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What there is to re-rank, and where the result goes."""

    features: FeatureSet
    mu: MuDistances | None
    summary: Mapping[str, Any]  # JSON-ready
    write: Callable[[Ranking, Mapping[str, Any]], None]  # into -o


@contextmanager
def open_inputs(
    args: argparse.Namespace, settings: Settings, *, clock: Clock, line: ProgressLine
) -> Iterator[Inputs]:
    """Yield them; the output folder stays ours inside. Raises what the stages raise."""
    check_sheet(args)
    if args.engine is None:
        yield _from_files(args, clock)
        return
    plan, mu = _plan(args, settings, clock)
    with _workspace(args, plan) as workspace:
        prepared = prepare(plan, workspace, clock=clock, report=line)
        named = {key: getattr(args, key) for key in _NAMED if getattr(args, key) is not None}
        yield Inputs(
            features=prepared.features,
            mu=prepared.mu if mu is None else mu,
            summary={**prepared.summary, "inputs": named},
            write=_writer(args, workspace, prepared),
        )


def _from_files(args: argparse.Namespace, clock: Clock) -> Inputs:
    if args.output is not None:
        check_output(args.output, overwrite=args.overwrite)
    with clock.stage("load"):
        features = load_features(args.features, args.num_query)
        mu = None if args.mu is None else load_mu(args.mu, args.mu_swapped)
        check_images(args, features)

    def write(ranking: Ranking, summary: Mapping[str, Any]) -> None:
        write_ranking(
            args.output, ranking, summary, format=args.format or "npz", overwrite=args.overwrite
        )

    inputs = {"features": args.features, "mu": args.mu, "mu_swapped": args.mu_swapped}
    return Inputs(features, mu, {"inputs": inputs}, write)


def _plan(
    args: argparse.Namespace, settings: Settings, clock: Clock
) -> tuple[Plan, MuDistances | None]:
    """Return what to ask the engine for, and mu from elsewhere; everything cheap is checked."""
    engine = engine_of(args)
    with clock.stage("load"):
        mu = None if args.mu is None else load_mu(args.mu, args.mu_swapped)
        source: Images | GivenFeatures
        if args.features is None:
            source = images_of(args)
            stand_in = source.with_features(np.ones((len(source.paths), 1), np.float32))
        else:
            stand_in = load_features(args.features, args.num_query)
            source = GivenFeatures(stand_in, Path(args.features), image_root(args))
        check_images(args, stand_in)
    top_k = (args.top_k_candidates or TOP_K_CANDIDATES) if engine_scores(args) else None
    plan = Plan(
        engine, source, top_k_candidates=top_k, order=args.order or "given", strict=args.strict,
        device=args.device,
    )  # fmt: skip
    check_settings(stand_in, _stand_in_mu(stand_in, top_k if mu is None else 1), settings)
    return plan, mu


def _stand_in_mu(features: FeatureSet, num_candidates: int | None) -> MuDistances | None:
    """Return mu of the right shape: bad parameters show before hours of scoring."""
    if num_candidates is None:
        return None
    shape = (features.num_query, min(num_candidates, features.num_gallery))
    return MuDistances(np.zeros(shape, np.float32), np.tile(np.arange(shape[1]), (shape[0], 1)))


def _workspace(args: argparse.Namespace, plan: Plan) -> Any:
    if args.output is None:
        return nullcontext(Memory())
    inputs = [args.features, args.mu, args.mu_swapped]
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

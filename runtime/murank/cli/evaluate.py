"""`murank evaluate`: metrics of a job, of features, of a distance matrix or of a ranking."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.cli.alignment_options import add_alignment, alignment_flags, alignment_of
from murank.cli.evaluate_job import add_comparison, evaluate_job
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, given_flags, positive
from murank.cli.protocol_options import add_protocol, protocol_of
from murank.cli.ranked_source import add_ranked_source
from murank.cli.table import table
from murank.files.npz import open_npz
from murank.files.parquet import is_parquet
from murank.jobs import is_job
from murank.rerank.alignment import align
from murank.rerank.array_names import NamedArrays
from murank.rerank.distances import load_distances
from murank.rerank.features import FeatureSet, load_features
from murank.rerank.methods import distance_blocks, kernel_errors
from murank.rerank.metrics import Metrics, cmc_metrics, metrics_of
from murank.rerank.parquet_features import has_features
from murank.rerank.ranking import load_ranking, ranking_file
from murank.rerank.truncated import evaluate_truncated
from murank.rerank.verdicts import Verdicts, evaluator_arguments, protocol_json, verdicts_by

_MAX_RANK = 50
_AT_LEAST = "mAP at least"  # of a ranking that was cut
_OF_COMPARISON = (
    "rerankers", "alpha", "propose", "store", "candidates", "no_mu",
    "mu", "mu_swapped", "gallery_mu", "gallery_mu_swapped",
)  # fmt: skip


@dataclass(frozen=True)
class _Result:
    """What a file was found to be worth."""

    name: str  # of the table's row
    metrics: Metrics
    cmc: list[float]
    verdicts: Verdicts
    notes: list[str] = field(default_factory=list)  # what the reader must know
    aligned: "_Result | None" = None  # of the same features after alignment
    alignment: dict[str, Any] | None = None  # what was done, JSON-ready
    why_not: list[str] = field(default_factory=list)  # aligned


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank evaluate",
        description="Evaluate a job: the encoder, aligned features, and k-reciprocal, ECN and "
        "CA-Jaccard with the defaults of the kernels, each without and with mu. Or a features file "
        "(Euclidean, rows scaled to length 1), a distances file (distmat [Q,G], q_pids, g_pids, "
        "q_camids, g_camids) "
        "or a ranking that `murank rerank` wrote. Without --store nothing is written.",
    )
    add_ranked_source(
        result, "JOB|FILE", "a folder of murank score; .npz of features, distances or a ranking, "
        "or the folder of a ranking",
    )  # fmt: skip
    result.add_argument("--max-rank", type=positive, metavar="N", help="of CMC (50)")
    add_comparison(result)
    add_alignment(result)
    add_protocol(result)
    result.add_argument("--json", action="store_true", help="print JSON, no table")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    protocol = protocol_of(args)
    if is_job(args.source):
        return _of_job(args, protocol)
    path = ranking_file(args.source)
    kind = _kind(path)
    flags = [*given_flags(args, ("num_query", *_OF_COMPARISON)).values(), *alignment_flags(args)]
    if kind != "features" and flags:
        raise UsageError(f"{flags[0]} is for features or a job folder; {path} holds {kind}")
    if given_flags(args, _OF_COMPARISON):
        return _of_job(args, protocol)
    if kind == "ranking" and protocol["protocol"] != "market1501":
        raise UsageError("a ranking is evaluated by --protocol market1501 only")
    args.max_rank = args.max_rank or _MAX_RANK
    result = _EVALUATE[kind](path, args, protocol)
    if args.json:
        say_json(_as_json(path, kind, protocol, result))
    else:
        _print_table(result)
    return 0


def _of_job(args: argparse.Namespace, protocol: dict[str, Any]) -> int:
    if args.max_rank is not None:
        raise UsageError("--max-rank is of CMC, which is not shown of re-rankers")
    return evaluate_job(args, protocol)


def _kind(path: Path) -> str:
    if is_parquet(path):
        return "features" if has_features(path) else "ranking"
    with open_npz(path) as archive:
        keys = archive.files
    if "indices" in keys:
        return "ranking"
    sources = NamedArrays.of(keys, path).sources
    for key, kind in (("features", "features"), ("distmat", "distances")):
        if key in sources:
            return kind
    raise InputError(
        f"{path} holds neither features, distmat nor indices, but: {', '.join(keys) or 'nothing'}"
    )


def _features(path: Path, args: argparse.Namespace, protocol: dict[str, Any]) -> _Result:
    features = load_features(path, args.num_query)
    verdicts = verdicts_by(features.labels, protocol, path)
    asked = alignment_of(args)
    blocks = distance_blocks("none", features)  # names the row that cannot be used
    aligned = align(features, asked)
    result = _full("euclidean", blocks, verdicts, args.max_rank)
    result = replace(
        result, notes=[*_shared(features, protocol), *aligned.notes],
        alignment=aligned.to_json(asked), why_not=aligned.fitted.why_not,
    )  # fmt: skip
    if aligned.level == "off":
        return result
    blocks = distance_blocks("none", aligned.features)
    after = _full(aligned.label, blocks, verdicts, args.max_rank)
    return replace(result, aligned=after)


def _shared(features: FeatureSet, protocol: dict[str, Any]) -> list[str]:
    """Note the queries that find themselves, where nothing is dropped."""
    return features.shared_notes if protocol["drop"] == "none" else []


def _distances(path: Path, args: argparse.Namespace, protocol: dict[str, Any]) -> _Result:
    distances, labels = load_distances(path)
    return _full("distances", distances, verdicts_by(labels, protocol, path), args.max_rank)


def _full(name: str, distances: Any, verdicts: Verdicts, max_rank: int) -> _Result:
    from murank_kernels import evaluate_rank

    with kernel_errors():
        evaluation = evaluate_rank(
            distances, max_rank=max_rank, **evaluator_arguments(verdicts.labels, verdicts.protocol)
        )
    cmc = [float(value) for value in evaluation.cmc]
    return _Result(name, metrics_of(evaluation), cmc, verdicts)


def _ranking(path: Path, args: argparse.Namespace, protocol: dict[str, Any]) -> _Result:
    ranking = load_ranking(path)
    rule = {"junk": "keep", **protocol}
    del rule["protocol"]
    evaluation = evaluate_truncated(ranking, args.max_rank, **rule)
    assert ranking.labels is not None  # noqa: S101 - it was evaluated
    key = "mAP" if evaluation.complete else _AT_LEAST
    notes = []
    if not evaluation.complete:
        notes.append(
            f"the ranking lists {evaluation.k} a query, and a match beyond counts as missed: mAP "
            f"is at least what is shown; CMC is exact up to rank {len(evaluation.cmc)}"
        )
    cmc = [float(value) for value in evaluation.cmc]
    metrics: Metrics = {key: evaluation.mAP, **cmc_metrics(evaluation.cmc)}
    return _Result("ranking", metrics, cmc, Verdicts(ranking.labels, protocol), notes)


_EVALUATE: dict[str, Callable[[Path, argparse.Namespace, dict[str, Any]], _Result]] = {
    "features": _features,
    "distances": _distances,
    "ranking": _ranking,
}


def _as_json(path: Path, kind: str, protocol: dict[str, Any], result: _Result) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "file": str(path),
        "kind": kind,
        "protocol": protocol_json(protocol),
        "counts": result.verdicts.counts,
        **_values(result),
        "alignment": result.alignment,
        "aligned": None if result.aligned is None else _values(result.aligned),
        "notes": [*result.verdicts.notes, *result.notes],
    }


def _values(result: _Result) -> dict[str, Any]:
    return {"metrics": result.metrics, "cmc": result.cmc}


def _print_table(result: _Result) -> None:
    say(result.verdicts.summary)
    columns = [name for name in result.metrics if name != "mINP"]
    rows = [result] if result.aligned is None else [result, result.aligned]
    say(*table({row.name: row.metrics for row in rows}, columns))
    say(*result.why_not, *result.verdicts.notes, *result.notes)

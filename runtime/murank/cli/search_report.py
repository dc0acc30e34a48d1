"""What `murank search` shows: a table or JSON, and a picture."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank._version import __version__
from murank.cli.reading_options import image_reading_of
from murank.cli.search_gallery import EmbeddedGallery
from murank.engine.results import Match
from murank.rerank.features import check_file
from murank.rerank.methods import used_parameters
from murank.rerank.pipeline import NOTICE
from murank.search import Searcher, SearchResult

SCHEMA_VERSION = 1
_COLUMNS = f"{'rank':>6}{'distance':>10}{'mu':>8}{'encoder':>10}  image"


def table_of(query: Path, result: SearchResult, paths: Sequence[Path], *, top_k: int) -> list[str]:
    """Return the candidate matches of one query as the lines of a table."""
    rows = [_COLUMNS]
    for rank, match in enumerate(result.matches[:top_k], start=1):
        mu = "-" if match.mu is None else f"{match.mu:.3f}"
        numbers = f"{rank:>6}{match.distance:>10.4f}{mu:>8}{match.encoder_distance:>10.4f}"
        rows.append(f"{numbers}  {paths[match.corpus_id]}")
    return [f"{query}: {seen_by_mllm(result)}", *rows]


def seen_by_mllm(result: SearchResult) -> str:
    """Say how many candidates the MLLM saw, and why no more."""
    milliseconds = f"{1000 * sum(result.seconds.values()):.1f} ms"
    if not result.candidates:
        return f"no MLLM asked, {milliseconds}"
    why = " (deadline)" if result.partial else " (first ranks settled)" if result.settled else ""
    return (
        f"{result.scored} of {result.candidates} candidates seen by the MLLM{why}, {milliseconds}"
    )


def as_json(
    args: argparse.Namespace,
    searcher: Searcher,
    gallery: EmbeddedGallery,
    camids: Sequence[int | None],
    results: Sequence[SearchResult],
) -> dict[str, Any]:
    """Return everything, JSON-ready."""
    engine, settings = searcher.engine, searcher.settings
    return {
        "schema_version": SCHEMA_VERSION,
        "murank_version": __version__,
        "notice": NOTICE,
        "engine": {
            "folder": str(args.engine),
            "sha256": engine.sha256,
            "precision": engine.manifest.precision,
            "providers": dict(engine.providers),
        },
        "gallery": str(args.gallery),
        "num_gallery": searcher.num_gallery,
        "skipped": gallery.skipped,
        "alignment": {
            "asked": searcher.asked_alignment.asked,
            "file": searcher.alignment.file,
            "level": searcher.alignment.level,
            "note": searcher.alignment.note,
        },
        "camid": args.camid,
        "method": settings.method,
        "parameters": used_parameters(
            settings.method, settings.parameters, with_mu=bool(settings.num_candidates)
        ),
        "candidates": settings.num_candidates,
        "deadline_ms": args.deadline_ms,
        "settle_top": settings.settle_top,
        "queries": [
            _query(path, camid, result, gallery.paths, args.top_k)
            for path, camid, result in zip(args.query, camids, results, strict=True)
        ],
    }


def _query(
    path: Path, camid: int | None, result: SearchResult, paths: Sequence[Path], top_k: int
) -> dict[str, Any]:
    matches = [
        {"path": str(paths[match.corpus_id]), **asdict(match)} for match in result.matches[:top_k]
    ]
    return {
        "query": str(path),
        "camid": camid,
        "scored": result.scored,
        "candidates": result.candidates,
        "partial": result.partial,
        "settled": result.settled,
        "seconds": dict(result.seconds),
        "total_seconds": sum(result.seconds.values()),
        "matches": matches,
    }


def check_sheet(args: argparse.Namespace) -> None:
    """Raise UsageError or OutputError if --sheet cannot be written."""
    if args.sheet is None:
        if args.overwrite:
            raise UsageError("--overwrite needs --sheet")
        return
    if args.sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet writes a PNG: name it so, not {args.sheet}")
    check_file(args.sheet, overwrite=args.overwrite)


def write_search_sheet(
    args: argparse.Namespace, paths: Sequence[Path], results: Sequence[SearchResult]
) -> None:
    """Draw the first queries with their candidate matches, before and after; results whole."""
    from murank.sheet import Cell, draw_sheet, write_sheet
    from murank.sheet.sheet_rows import MAX_QUERIES, N_SHOWN, SheetRow

    shown = min(args.top_k, N_SHOWN)

    def cells(matches: Sequence[Match], *, by_encoder: bool) -> tuple[Cell, ...]:
        return tuple(
            Cell(
                str(paths[match.corpus_id]),
                match.encoder_distance if by_encoder else match.distance,
                match.mu,
                None,
            )
            for match in matches[:shown]
        )

    rows = []
    for query, result in list(zip(args.query, results, strict=True))[:MAX_QUERIES]:
        by_encoder = sorted(result.matches, key=lambda one: (one.encoder_distance, one.corpus_id))
        before = cells(by_encoder, by_encoder=True)
        rows.append(SheetRow(str(query), before, cells(result.matches, by_encoder=False)))
    name = args.method if not results[0].candidates else f"{args.method} + mu"
    notes = [f"{len(results):,} queries, {len(paths):,} gallery images."]
    notes += [
        f"{row.query}: {seen_by_mllm(result)}." for row, result in zip(rows, results, strict=False)
    ]
    sheet = draw_sheet(
        rows, before="encoder", after=name, title=f"{name}: candidate matches", notes=notes,
        **image_reading_of(args),
    )  # fmt: skip
    write_sheet(args.sheet, sheet)

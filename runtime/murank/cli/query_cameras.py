"""Cameras of the queries of `murank search`: as told, or by their names where the gallery's are."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from murank.cli.parser import camera_or_unknown
from murank.cli.progress import ProgressLine
from murank.cli.search_gallery import EmbeddedGallery
from murank.datasets.labels import Ids
from murank.datasets.market_style import names_say_cameras, parse_name
from murank.search import Searcher


def add_camid(group: "argparse._ArgumentGroup") -> None:
    """Add --camid."""
    group.add_argument(
        "--camid", type=camera_or_unknown, metavar="N",
        help="camera of the queries, as in the gallery's camids: 0 is c1 of Market-1501 names, -1 "
        "an unknown one (by the queries' names, where those of the gallery say its cameras)",
    )  # fmt: skip


def query_cameras(
    args: argparse.Namespace, searcher: Searcher, gallery: EmbeddedGallery, line: ProgressLine
) -> list[int | None]:
    """Return each query's camera, None where nobody knows it; what names said is told."""
    camids: list[int | None] = [args.camid if (args.camid or 0) >= 0 else None] * len(args.query)
    if gallery.camids is None:
        return camids
    if args.camid is None and names_say_cameras(gallery.paths, gallery.camids):
        labels = [parse_name(query.name) for query in args.query]
        camids = [None if label is None else label[1] for label in labels]
        if told := "; ".join(_by_names(args.query, camids)):
            line.note(f"cameras by the queries' names, as the gallery's: {told} (or --camid N)")
    for note in _strange(args, camids, searcher, gallery.camids):
        line.note(note)
    return camids


def _by_names(queries: Sequence[Path], camids: Sequence[int | None]) -> Iterator[str]:
    """Say which were found; nothing where none was."""
    found = sorted({camid for camid in camids if camid is not None})
    if found:
        yield f"camid {', '.join(map(str, found))}"
        if None in camids:
            first = queries[camids.index(None)]
            yield f"{camids.count(None)} of {len(camids)} say none, the first is {first.name}"


def _strange(
    args: argparse.Namespace, camids: Sequence[int | None], searcher: Searcher, gallery: Ids
) -> Iterator[str]:
    """Say if nobody knows a query's camera: perhaps it has another number there."""
    fitted = searcher.alignment.cameras
    known = set(gallery.tolist()) | set([] if fitted is None else fitted.camids.tolist())
    if strange := sorted({camid for camid in camids if camid is not None} - known):
        which = ", ".join(map(str, strange))
        yield (
            f"{'camid' if args.camid is None else '--camid'} {which} is none of the gallery's "
            f"cameras ({min(known)} to {max(known)}): such queries count as of an unknown one"
        )

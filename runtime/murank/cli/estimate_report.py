"""What `murank score --estimate` says, in lines."""

from collections.abc import Sequence

from murank.jobs import JobEstimate


def estimate_lines(made: JobEstimate) -> list[str]:
    """Return them."""
    total = made.num_query + made.num_gallery
    distinct = "not all read" if made.distinct_images is None else f"{made.distinct_images:,}"
    lines = [
        f"{made.num_query:,} queries, {made.num_gallery:,} gallery images (distinct: {distinct})",
        f"images known: {made.images_known:,} of {total:,}",
    ]
    if made.vision_tokens is not None:
        known = "not before all images are embedded"
        if made.pairs_known is not None:
            known = f"{made.pairs_known:,} of {made.pairs:,}"
        tokens = made.vision_tokens
        fit = (
            "fit" if tokens["bytes"] <= tokens["kept_bytes"] else "do not fit: some are made again"
        )
        lines += [
            f"pairs: {made.pairs:,}; known: {known}",
            f"vision tokens: {_megabytes(tokens['bytes'])}, a cache of "
            f"{_megabytes(tokens['kept_bytes'])} a process: they {fit}",
        ]
    lines += [
        f"memory: about {_megabytes(made.memory_bytes)}; disk: about {_megabytes(made.disk_bytes)}",
        *(f"{name}: {_time(span)}" for name, span in made.seconds.items()),
    ]
    return lines


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def _time(span: Sequence[float]) -> str:
    low, high = span
    if high < 120:
        return f"{low:.1f} to {high:.1f} s"
    if high < 7200:
        return f"{low / 60:.0f} to {high / 60:.0f} min"
    return f"{low / 3600:.1f} to {high / 3600:.1f} h"

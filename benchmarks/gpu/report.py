"""The report's text and its file's name."""

import re
from collections.abc import Sequence

from gpu.rows import Row, table


def report(found: Sequence[tuple[str, Row]], *, seconds: float, how: str) -> str:
    """Title, what was run and found, table; the first row names the device."""
    first = found[0][1]
    named = first.what if first.state == "measured" else "No GPU"
    bad = sum(row.state in ("wrong", "failed") for _, row in found)
    idle = sum(row.state == "cannot run" for _, row in found)
    return (
        f"# {named}\n\n`{how}`, {seconds:.0f} s: {len(found)} rows, {bad} wrong or failed, {idle} "
        "could not run. Times are medians after warm runs: of kernels by CUDA events, of scoring "
        "by a clock around calls that wait for the GPU.\n\n" + table(found)
    )


def file_name(device: str) -> str:
    """Of the results of a device: "NVIDIA H200" -> "nvidia-h200.md"."""
    return re.sub("[^a-z0-9]+", "-", device.lower()).strip("-") + ".md"

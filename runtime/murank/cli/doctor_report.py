"""What `murank doctor` found, for people and for scripts."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from murank.cli.in_flags import OF_OTHERS, in_flags
from murank.doctor import Examination
from murank.doctor.engine_trial import EngineTry, fastest
from murank.doctor.machine_report import MachineReport
from murank.doctor.redact import size
from murank.machine.telemetry import SWITCH

_SCHEMA = 1
_WIDTH = 100
_STATES = {"works": "works", "fails": "FAILS", "absent": "no"}
Rows = Iterable[tuple[str, str]]


def as_json(examination: Examination) -> dict[str, Any]:
    """Return the examination as plain values."""
    values = {"schema_version": _SCHEMA, "cpu_works": examination.cpu_works, **asdict(examination)}
    for attempt in values["engine"] or ():
        attempt["said"] = in_flags(attempt["said"], OF_OTHERS)
    return values


def as_lines(examination: Examination) -> list[str]:
    """Return the examination as the lines of a table."""
    lines = [
        *_section("machine", _machine(examination.machine)),
        *_section("packages", _packages(examination)),
    ]
    lines += [f"  BROKEN: {text}" for text in examination.conflicts]
    lines.append("backends")
    width = max(len(one.title) for one in examination.trials)
    for one in examination.trials:
        lines += _wrapped(f"  {one.title:<{width}}  {_STATES[one.state]:<5}  ", one.said)
        if one.remedy is not None and one.state == "fails":
            lines += _wrapped(" " * (width + 4) + "  -> ", one.remedy)
    lines.append(_telemetry(examination))
    lines += _to_do(examination)
    if examination.engine is not None:
        lines.append("engine")
        for attempt in examination.engine:
            verdict = "runs" if attempt.runs else "no"
            lines += _wrapped(
                f"  {attempt.title:<{width}}  {verdict:<5}  ", in_flags(attempt.said, OF_OTHERS)
            )
        lines += _pace(examination.engine, examination.timed)
    return [*lines, _verdict(examination)]


def _pace(tries: Sequence[EngineTry], timed: str | None) -> Iterator[str]:
    """Yield what a query took with each of the providers, the fastest first."""
    first = fastest(tries)
    if first is None:
        return
    others = [one for one in tries if one.query_ms is not None and one is not first]
    beside = ", ".join(f"{one.title} {one.query_ms:.1f}" for one in others)
    yield from _wrapped(
        "  fastest here: ",
        f"{first.title}, {first.query_ms:.1f} ms for {timed}" + (f" ({beside})" if beside else ""),
    )


def _telemetry(examination: Examination) -> str:
    if examination.telemetry_off:
        return f"telemetry of onnxruntime: off ({SWITCH})"
    return f"telemetry of onnxruntime: ON, by {SWITCH} in the environment -> set it to 1"


def _verdict(examination: Examination) -> str:
    if not examination.cpu_works:
        return "NOT READY: see what fails above"
    gpu = [one.title for one in examination.trials[2:] if one.state == "works"]
    return f"ready: the CPU, and {', '.join(gpu)}" if gpu else "ready, on the CPU"


def _to_do(examination: Examination) -> Iterator[str]:
    """Yield what absent backends would need, each sentence once."""
    remedies: dict[str, list[str]] = {}
    for one in examination.trials:
        if one.state == "absent" and one.remedy is not None:
            remedies.setdefault(one.remedy, []).append(one.title)
    if remedies:
        yield "to have more"
        for remedy, titles in remedies.items():
            yield from _wrapped("  ", f"{', '.join(titles)}: {remedy}")


def _machine(machine: MachineReport) -> Rows:
    if machine.board is not None:
        yield "board", machine.board
    if machine.l4t is not None:
        name = "" if machine.jetpack is None else f"JetPack {machine.jetpack}, "
        yield "JetPack", f"{name}Jetson Linux {machine.l4t}"
    yield "system", f"{machine.system}, Python {machine.python}"
    yield "processor", f"{machine.processor or 'unknown'}, {machine.cores} cores usable"
    if machine.integer_products is not None:
        yield "int8", machine.integer_products
    yield "memory", size(machine.memory_bytes)
    if machine.power_mode is not None:
        yield "power", machine.power_mode
    driver = "" if machine.driver is None else f", driver {machine.driver}"
    for gpu in machine.gpus:
        yield (
            "GPU",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {size(gpu.memory_bytes)}"
            f"{driver}, for CUDA up to {machine.cuda}",
        )
    if machine.why_no_gpu is not None:
        yield "GPU", f"none: {machine.why_no_gpu}"


def _packages(examination: Examination) -> Rows:
    yield "murank", examination.machine.murank
    for name, version in examination.packages.items():
        yield name, version or "-"


def _section(title: str, rows: Rows) -> list[str]:
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    return [title, *(f"  {name:<{width}}  {text}" for name, text in listed)]


def _wrapped(first: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip

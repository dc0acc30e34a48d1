"""`murank inspect`: what an engine folder holds, for a person or for a script."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from murank.backends.protocol import SessionSettings
from murank.cli.engine_options import BACKEND, add_backend, backend_of
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, check_needs
from murank.cli.progress import ProgressLine
from murank.cli.replay_report import check_replayed, replay_lines, replay_row
from murank.engine.golden import Replay, replay
from murank.files.damage import damaged
from murank.files.json_object import read_json
from murank.folder.integrity import check_engine, read_pinned
from murank.folder.manifest import (
    Calibration,
    EncoderPart,
    Manifest,
    ScorerPart,
    Sources,
)
from murank.images.preprocess import Preprocessing
from murank.prompt import PromptTemplate

_NOTE = "every file is as the manifest says; --verify: whether it answers here as at export"

Rows = Iterator[tuple[str, str]]


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank inspect",
        description="Check every file of an engine folder against its manifest, and show what is "
        "in it. With --verify, load its graphs and replay on this machine the golden images that "
        "export measured: exit code 4 if an answer differs by more than its tolerance, or depends "
        "on what else is in its batch.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="the folder")
    result.add_argument("--sha256", metavar="HEX", help="what the engine's must be")
    result.add_argument("--verify", action="store_true", help="whether it answers as at export")
    add_backend(result, "of --verify: ")
    result.add_argument("--json", action="store_true", help="print the manifest and more as JSON")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    check_needs(args, dict.fromkeys(BACKEND, ("verify",)))
    manifest, sha256 = read_pinned(args.engine, args.sha256)
    with ProgressLine(quiet=args.quiet) as line:
        check_engine(args.engine, manifest=manifest, progress=line.part("inspect"))
    parity = _parity(args.engine, manifest)
    replays = None
    if args.verify:
        replays = replay(args.engine, manifest, SessionSettings(**backend_of(args)))
    if args.json:
        say_json(_as_json(args.engine, sha256, manifest, parity, replays))
    else:
        _print_sections(args.engine, sha256, manifest, parity)
        say(*([_NOTE] if replays is None else replay_lines(replays)))
    check_replayed(args.engine, replays or ())
    return 0


def _parity(folder: Path, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return what export measured of each part, where it did."""
    if manifest.parity is None:
        return {}
    path = folder / manifest.parity
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(part, dict) for part in data.values()):
        raise damaged(path, "it must be an object that holds an object a part")
    return data


def _as_json(
    folder: Path, sha256: str, manifest: Manifest, parity: dict[str, dict[str, Any]],
    replays: Sequence[Replay] | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "schema_version": 1,
        "engine": str(folder),
        "sha256": sha256,
        "manifest": manifest.to_json(),
        "parity": parity,
        "replay": None if replays is None else [replay_row(one) for one in replays],
        "bytes": {
            "files": manifest.size,
            **({} if manifest.scorer is None else _memory(manifest.scorer, manifest)),
        },
    }


def _memory(part: ScorerPart, manifest: Manifest) -> dict[str, int]:
    """Bytes that scoring keeps."""
    return {
        "kv_a_query": part.shapes.kv_values * manifest.arithmetic.item_bytes,
        "vision_tokens_an_image": part.shapes.vision_values * manifest.arithmetic.token_bytes,
    }


def _print_sections(
    folder: Path, sha256: str, manifest: Manifest, parity: dict[str, dict[str, Any]]
) -> None:
    say(f"{folder}: {manifest.precision}, of murank {manifest.murank_version}")
    say(f"sha256 {sha256}")
    _section("sources", _sources(manifest.sources))
    if manifest.encoder is not None:
        _section("encoder", _encoder(manifest.encoder))
    if manifest.scorer is not None:
        _section("scorer", _scorer(manifest.scorer, _memory(manifest.scorer, manifest)))
    if manifest.calibration is not None:
        _section("calibration", _calibration(manifest.calibration))
    _section("mu by default", _mu_defaults(manifest))
    _section("parity", _measured(parity))
    _section("files", _files(manifest))


def _section(title: str, rows: Rows) -> None:
    lines = list(rows)
    if lines:
        width = max(len(name) for name, _ in lines)
        say(title, *(f"  {name:<{width}}  {text}" for name, text in lines))


def _sources(sources: Sources) -> Rows:
    mllm, adapter, encoder = sources.mllm, sources.adapter, sources.encoder
    if mllm is not None:
        yield "mllm", f"{mllm.name} ({mllm.model_type}) {_short(mllm.sha256)}"
    if mllm is not None and adapter is None:
        yield "adapter", "none"
    if adapter is not None:
        yield "adapter", f"{adapter.name} ({adapter.kind}) {_short(adapter.sha256)}"
    if encoder is not None:
        yield "encoder", f"{encoder.name} {_short(encoder.sha256)}"


def _encoder(part: EncoderPart) -> Rows:
    yield "image", _image(part.preprocessing)
    yield "feature", f"{part.dim} values"


def _scorer(part: ScorerPart, memory: dict[str, int]) -> Rows:
    shapes = part.shapes
    yield "image", f"{_image(part.preprocessing)}; {shapes.vision_tokens} tokens"
    yield "layout", f"{part.layout}, template {_short(part.template_sha256)}"
    yield (
        "tokens",
        f"{shapes.static_tokens} static, {shapes.prefill_tokens} prefill a query, "
        f"{shapes.suffix_tokens} suffix a pair",
    )
    yield (
        "decoder",
        f"{shapes.layers} layers, hidden {shapes.hidden}, "
        f"{shapes.kv_heads} K/V heads of {shapes.head_dim}",
    )
    words = PromptTemplate.from_json(part.template).answers
    yield (
        "answer",
        f'"{words.same}" or "{words.different}", tau {part.tau:g}, at most {part.max_pairs} pairs '
        "a run",
    )
    yield (
        "memory",
        f"{_size(memory['kv_a_query'])} of K/V a query, "
        f"{_size(memory['vision_tokens_an_image'])} of vision tokens an image",
    )


def _image(how: Preprocessing) -> str:
    size = f"{how.height}x{how.width} (height x width), {how.resample}"
    if how.shortest_edge is None:
        return size
    return f"{size}, cropped after the shorter side became {how.shortest_edge}"


def _calibration(fit: Calibration) -> Rows:
    chosen = "FMR = FNMR"
    if fit.target_value is not None:
        chosen = f"{fit.target.upper()} at most {100 * fit.target_value:g} %"
    yield "temperature", f"{fit.temperature:.6g}, at export {fit.exported_tau:g}"
    yield "threshold", f"mu <= {fit.threshold:.6g} ({chosen})"
    yield "errors", f"FMR {100 * fit.fmr:.2f} %, FNMR {100 * fit.fnmr:.2f} %"
    yield (
        "pairs",
        f"{fit.same_pairs} of one person (prior {fit.prior:g}), {fit.different_pairs} of "
        f"two, {_short(fit.pairs_sha256)}; {fit.precision}, murank {fit.murank_version}",
    )


def _mu_defaults(manifest: Manifest) -> Rows:
    for method, kept in manifest.mu_defaults.items():
        what = f"alpha {kept.alpha:g}, {kept.candidates} candidates" if kept.alpha else "none"
        yield (
            method,
            f"{what}; held out {100 * kept.gain:+.1f} mAP, 95 % interval {100 * kept.low:+.1f} "
            f"to {100 * kept.high:+.1f}, {kept.queries} queries of {kept.people} people",
        )


def _measured(parity: Mapping[str, Mapping[str, Any]]) -> Rows:
    for part, values in parity.items():
        numbers = [
            f"{key} {_number(value)}"
            for key, value in values.items()
            if isinstance(value, int | float)
        ]
        yield part, ", ".join(numbers)


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _files(manifest: Manifest) -> Rows:
    for name, entry in manifest.files.items():
        yield name, f"{_size(entry.size):>10}  {_short(entry.sha256)}"
    yield "total", f"{_size(manifest.size):>10}"


def _size(count: int) -> str:
    """Return bytes for a person."""
    power = min(max(count.bit_length() - 1, 0) // 10, 3)
    if power == 0:
        return f"{count} B"
    return f"{count / (1 << 10 * power):.1f} {'KMG'[power - 1]}iB"


def _short(sha256: str) -> str:
    return sha256[:12]

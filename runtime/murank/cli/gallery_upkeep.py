"""The verbs of `murank gallery` that keep a gallery in order; none needs an engine."""

import argparse
from dataclasses import asdict
from pathlib import Path

from murank._exceptions import InputError, UsageError
from murank.cli.gallery_options import MOMENT, add_file, add_json, moment
from murank.cli.output import say, say_json
from murank.engine.engine import Engine
from murank.gallery import Erasure, Gallery
from murank.gallery.gallery import Mode

_NOT_CLEAN = 4  # as an engine that is not what it was


def _erase(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("--id", nargs="+", metavar="ID", help="of shots")
    parser.add_argument("--track", metavar="NAME", help="of all cameras")
    parser.add_argument("--subject", metavar="NAME")
    _cache(parser)
    add_json(parser)


def _purge(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("--older-than", type=moment, metavar="T", help=MOMENT)
    _cache(parser)
    add_json(parser)


def _cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", type=Path, metavar="ENGINE", help="whose --cache-dir is to forget them, too"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="that the engine kept tokens in")


def _plain(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    add_json(parser)


def _output(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_json(parser)


def _import(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("rows", type=Path, metavar="F.npz", help="what export wrote")
    parser.add_argument(
        "--engine", type=Path, metavar="ENGINE", help="to make the gallery where there is none"
    )
    add_json(parser)


VERBS = {
    "erase": ("shots, from the file, memory and caches; a receipt says what", _erase),
    "purge": ("shots from before a time; and what an open reader kept from being erased", _purge),
    "align": ("fit the cameras' alignment anew", _plain),
    "verify": ("read every byte: damage, and what is left of the erased (exit 4)", _plain),
    "stats": ("how large it is, and what is due", _plain),
    "backup": ("a copy that can be opened, while it is in use", _output),
    "export": ("features, ids, cameras, times and tracks, to an .npz", _output),
    "import": ("add what export wrote", _import),
}


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    mode: Mode = "r" if args.verb in ("verify", "stats", "backup", "export") else "rw"
    if args.verb == "erase" and [args.id, args.track, args.subject].count(None) != 2:
        raise UsageError("name --id, --track or --subject, one of them")
    with Gallery.open(args.file, _engine(args), mode=mode) as gallery:
        return _DO[args.verb](gallery, args)


def _engine(args: argparse.Namespace) -> Engine | None:
    folder, cache = getattr(args, "engine", None), getattr(args, "cache_dir", None)
    if folder is None:
        if cache is not None:
            raise UsageError("--cache-dir needs --engine")
        return None
    return Engine.from_pretrained(folder, cache_dir=cache)


def _erased(args: argparse.Namespace, receipt: Erasure) -> int:
    if args.json:
        say_json({"schema_version": 1, **asdict(receipt)})
        return 0
    crops = f"{receipt.crops} crops, {receipt.vision_tokens} vision tokens, {receipt.pairs} pairs"
    say(f"erased {receipt.rows} rows: {receipt.vectors} vectors, {crops}")
    if not receipt.complete:
        say("not complete: another process holds the file open; `murank gallery purge` finishes it")
    if not receipt.alignment_rebuilt:
        say(
            "the alignment's directions were fitted with them: `murank gallery align` fits new ones"
        )
    return 0


def _do_erase(gallery: Gallery, args: argparse.Namespace) -> int:
    receipt = gallery.erase(ids=args.id, track=args.track, subject=args.subject)
    if not receipt.rows:  # a slip of the pen must not pass for an erasure
        raise InputError(f"nothing was erased: {args.file} holds no shot of that name")
    return _erased(args, receipt)


def _do_purge(gallery: Gallery, args: argparse.Namespace) -> int:
    return _erased(args, gallery.purge(args.older_than))


def _do_align(gallery: Gallery, args: argparse.Namespace) -> int:
    level = gallery.align()
    why = gallery.alignment_note if gallery.stats().tracks else "the gallery has no tracks"
    if args.json:
        say_json({"schema_version": 1, "alignment": level, "why": why})
    else:
        say(f"alignment: {level}" + (f" ({why})" if why else ""))
    return 0


def _do_verify(gallery: Gallery, args: argparse.Namespace) -> int:
    check = gallery.verify()
    if args.json:
        say_json({"schema_version": 1, "clean": check.is_clean, **asdict(check)})
    else:
        say(*(f"damaged: shot {one}" for one in check.damaged), *check.remains)
        say("clean" if check.is_clean else "not clean")
    return 0 if check.is_clean else _NOT_CLEAN


def _do_stats(gallery: Gallery, args: argparse.Namespace) -> int:
    stats = asdict(gallery.stats())
    if args.json:
        say_json({"schema_version": 1, **stats})
    else:
        say(*(f"{name.replace('_', ' ')}: {value}" for name, value in stats.items()))
    return 0


def _do_backup(gallery: Gallery, args: argparse.Namespace) -> int:
    gallery.backup(args.output, overwrite=args.overwrite)
    return _written(args, gallery.stats().rows)


def _do_export(gallery: Gallery, args: argparse.Namespace) -> int:
    return _written(args, gallery.export(args.output, overwrite=args.overwrite))


def _written(args: argparse.Namespace, rows: int) -> int:
    if args.json:
        say_json({"schema_version": 1, "file": str(args.output), "rows": rows})
    else:
        say(f"{args.output}: {rows} rows")
    return 0


def _do_import(gallery: Gallery, args: argparse.Namespace) -> int:
    results = gallery.import_(args.rows)
    refused = [f"{one.id}: {one.reason}" for one in results if one.status == "refused"]
    added = sum(one.status == "added" for one in results)
    if args.json:
        known = len(results) - added - len(refused)
        say_json({"schema_version": 1, "added": added, "known": known, "refused": refused})
    else:
        say(*refused, f"added {added} of {len(results)} rows")
    return 0


_DO = {
    "erase": _do_erase, "purge": _do_purge, "align": _do_align, "verify": _do_verify,
    "stats": _do_stats, "backup": _do_backup, "export": _do_export, "import": _do_import,
}  # fmt: skip

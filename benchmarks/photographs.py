"""What camera alignment, re-ranking and an MLLM are worth on photographs of your own.

    python benchmarks/photographs.py --encoder osnet.onnx -o try/photographs \
        --test cuhk01:CUHK01/campus pku-reid:PKU/data market-train:market/bounding_box_train
    python benchmarks/photographs.py --encoder osnet.onnx -o try/photographs \
        --train market1501:market --test cuhk03:CUHK03/labeled/val --mllm BASE --seeds 0 1 2
    python benchmarks/photographs.py --protocol 'M->MS' --encoder E.onnx --mllm Qwen2-VL-2B \
        --sets market1501:/data/market msmt17:/data/msmt17 -o try/M-MS

NAME is one that `murank score --dataset` knows, which is read as published; cuhk01, cuhk03 or
pku-reid, of which the first image of each person and camera is a query; or a word of yours for a
folder in Market-1501 names or a .csv (path,pid,camid), split in the same way.

Every stage keeps its output under -o and is skipped as long as it fits: a run that was stopped goes
on where it stood. Figures come from images of people: keep the folder as you keep them.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from photos.alternatives import alternatives, crops_needed, few_in_two_cameras, small_galleries
from photos.figures import LEVELS, METHODS, Score, aligned, evaluate
from photos.kept import Kept
from photos.one_query import QUERIES, one_query
from photos.protocols import PROTOCOLS
from photos.room import room, room_table
from photos.sets import Test, as_csv, joined, read_tests, read_training
from photos.stages import CANDIDATES, Embedding
from photos.tables import auc_table, by_set, gains_table, mean_of, scores_table

from murank import FeatureSet, UserError, __version__
from murank.datasets import ImageList

STAGES = ("table", "one-query", "alternatives", "room")
Figures = dict[str, dict[str, Score]]
Roots = list[tuple[str, Path]]


@dataclass(frozen=True)
class Sets:
    """What is read before any work."""

    tests: list[Test]
    training: ImageList | None


def main(argv: Sequence[str] | None = None) -> None:
    """Read the sets, make what is missing, print the tables."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    train, test = _roots(parser, arguments)
    try:
        sets = _read(train, test)
        print("\n\n".join(report(arguments, sets)))
    except UserError as error:
        parser.error(str(error))


def report(arguments: argparse.Namespace, sets: Sets) -> list[str]:
    """Measure, and return tables."""
    embedding = Embedding(
        _work(arguments), arguments.encoder, shlex.split(arguments.export_encoder)
    )
    features = {test.folder: embedding.embed(test.data, test.folder) for test in sets.tests}
    parts = []
    for stage in arguments.stages:
        parts += _STAGES[stage](_Run(embedding, sets.tests, features))
    if sets.training is not None:
        parts += _mllm(arguments, embedding, sets.training, _Run(embedding, sets.tests, features))
    return parts


@dataclass(frozen=True)
class _Run:
    """Sets with their features."""

    embedding: Embedding
    tests: list[Test]
    features: Mapping[str, FeatureSet]

    def kept(self, test: Test, stage: str, **more: object) -> Kept:
        """Figures of a stage; they are of these features and this program."""
        folder = self.embedding.work / test.folder
        file = (folder / "embedded" / "features.npz").read_bytes()
        of = {"features": hashlib.sha256(file).hexdigest(), "murank": __version__, **more}
        return Kept(folder / f"{stage}.json", of)

    def measure(
        self, stage: str, measured: Callable[[FeatureSet, Kept], Figures]
    ) -> dict[str, Figures]:
        """Return figures by set; those of its random halves averaged."""
        found: dict[str, list[Figures]] = {}
        for test in self.tests:
            print(f"{stage}: {test.folder}", flush=True)
            kept = self.kept(test, stage)
            found.setdefault(test.name, []).append(measured(self.features[test.folder], kept))
        return {name: mean_of(figures) for name, figures in found.items() if figures[0]}

    def sizes(self) -> str:
        """What was measured on."""
        lines = []
        for test in self.tests:
            one = self.features[test.folder]
            assert one.camids is not None
            cameras = len(set(one.camids.tolist()))
            lines.append(
                f"* {test.folder}: {one.num_query:,} queries, {one.num_gallery:,} gallery images, "
                f"{cameras} cameras"
            )
        return "\n".join(lines)


def _table(run: _Run) -> list[str]:
    def measured(features: FeatureSet, kept: Kept) -> Figures:
        found: Figures = {}
        for level in LEVELS:
            for method in METHODS:
                found.setdefault(level, {})[method] = kept.row(
                    f"{level}: {method}",
                    partial(_aligned_score, features, level, method),
                )
        return found

    return [run.sizes()] + [
        scores_table(f"{name}: mAP/rank-1, percent", figures)
        for name, figures in run.measure("table", measured).items()
    ]


def _aligned_score(features: FeatureSet, level: str, method: str) -> Score:
    return evaluate(aligned(features, level), method).score


def _one_query(run: _Run) -> list[str]:
    return [
        scores_table(f"{name}, one query at a time (up to {QUERIES} queries)", figures)
        for name, figures in run.measure("one-query", one_query).items()
    ]


def _alternatives(run: _Run) -> list[str]:
    ways = run.measure("alternatives", alternatives)
    crops = run.measure("crops", crops_needed)
    few = run.measure("few", few_in_two_cameras)
    small = run.measure("small", small_galleries)
    return [
        *(
            scores_table(f"ways to fit, {one}", by_set(ways, one))
            for one in ("encoder", "CA-Jaccard")
        ),
        *(
            scores_table(f"{name}: images a camera that are fitted, k-reciprocal", one)
            for name, one in crops.items()
        ),
        *(
            scores_table(f"{name}: images a camera in all, k-reciprocal", one)
            for name, one in small.items()
        ),
        *(scores_table(f"{name}: people in two cameras", one) for name, one in few.items()),
    ]


def _room(run: _Run) -> list[str]:
    return [room_table(run.measure("room", room))]


_STAGES: Mapping[str, Callable[[_Run], list[str]]] = {
    "table": _table, "one-query": _one_query, "alternatives": _alternatives, "room": _room,
}  # fmt: skip


def _mllm(
    arguments: argparse.Namespace, embedding: Embedding, training: ImageList, run: _Run
) -> list[str]:
    from photos.lora import AUCS, Lora, mu_figures

    name = hashlib.sha256(as_csv(training).encode()).hexdigest()[:12]
    lora = Lora(
        embedding, arguments.mllm, embedding.embed_training(training, f"training-{name}"),
        shlex.split(arguments.question), shlex.split(arguments.adapt_train),
        shlex.split(arguments.export_mllm),
    )  # fmt: skip
    found: dict[str, Any] = {}
    for test in run.tests:
        kept = run.kept(test, "mu", mllm=lora.work.name, aucs=list(AUCS))
        features = run.features[test.folder]
        found[test.folder] = mu_figures(features, test.folder, lora, arguments.seeds, kept)
    title = f"what mu of {CANDIDATES} candidates adds to mAP, with 95 % intervals over queries"
    return [
        gains_table(title, found),
        auc_table(f"AUC of match against other, percent: {' / '.join(AUCS)}", found),
    ]


def _work(arguments: argparse.Namespace) -> Path:
    """A folder of its own for each encoder."""
    from murank_export.sources.hashing import checkpoint_sha256, file_sha256

    encoder: Path = arguments.encoder
    made = file_sha256(encoder) if encoder.is_file() else checkpoint_sha256(encoder)
    digest = hashlib.sha256(f"{made} {arguments.export_encoder}".encode()).hexdigest()[:12]
    work: Path = arguments.output / f"encoder-{digest}"
    return work


def _read(train: Roots, test: Roots) -> Sets:
    tests = [one for name, root in test for one in read_tests(name, root)]
    lists = [read_training(name, root) for name, root in train]
    return Sets(tests, joined(lists) if lists else None)


def _roots(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> tuple[Roots, Roots]:
    """What to train on and to test on; ends the program where they do not fit together."""
    train, test = arguments.train, arguments.test
    if arguments.protocol is not None:
        if train or test:
            parser.error("--protocol says what to train and test on: pass --sets with the roots")
        protocol, given = PROTOCOLS[arguments.protocol], dict(arguments.sets)
        missing = [name for name in protocol.sets if name not in given]
        if missing:
            parser.error(
                f"--protocol {arguments.protocol} needs --sets with "
                + " ".join(f"{name}:ROOT" for name in missing)
            )
        # Without an MLLM nothing is trained here: the encoder comes trained.
        train = [(name, given[name]) for name in protocol.train] if arguments.mllm else []
        test = [(name, given[name]) for name in protocol.test]
    elif arguments.sets:
        parser.error("--sets are of a --protocol; pass --test")
    if not test:
        parser.error("nothing to test on: pass --test NAME:ROOT, or --protocol and --sets")
    for option, roots in (("--train", train), ("--test", test)):
        names = [name for name, _ in roots]
        if len(set(names)) < len(names):
            parser.error(f"{option}: each NAME once; a set of yours may have any name")
    if bool(train) != (arguments.mllm is not None):
        parser.error("--train and --mllm need each other")
    return train, test


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="protocols (with M market1501, D dukemtmc, MS msmt17, C3 cuhk03-np, CS cuhk-sysu, a "
        "folder in Market-1501 names or a .csv; small is prid, grid, viper and ilids): "
        + ", ".join(PROTOCOLS),
    )
    roots: dict[str, Any] = {"type": _root, "nargs": "+", "default": [], "metavar": "NAME:ROOT"}
    parser.add_argument("--test", help="sets to measure on", **roots)
    parser.add_argument("--train", help="sets to mine pairs in, for the LoRA", **roots)
    parser.add_argument("--protocol", choices=PROTOCOLS, metavar="TRAIN->TEST")
    parser.add_argument("--sets", help="of the protocol", **roots)
    parser.add_argument("--encoder", type=Path, required=True, metavar="DIR|FILE.onnx")
    parser.add_argument("--mllm", type=Path, metavar="DIR", help="base of the LoRA")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of pairs and LoRA (0)")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES, help="(all)")
    for option, what in (
        ("--export-encoder", "murank export, on the encoder"),
        ("--question", "murank adapt train and murank export: --prompt, --layout, --image-size"),
        ("--adapt-train", "murank adapt train"),
        ("--export-mllm", "murank export, on the MLLM"),
    ):
        parser.add_argument(option, default="", metavar="'...'", help=f"more options of {what}")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    return parser


def _root(text: str) -> tuple[str, Path]:
    name, colon, root = text.partition(":")
    if not (name and colon and root) or "/" in name:
        raise argparse.ArgumentTypeError(f"NAME:ROOT is needed, got {text!r}")
    return name, Path(root)


if __name__ == "__main__":
    main()

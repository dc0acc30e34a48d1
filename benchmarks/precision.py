"""What lower precision costs in ranks, and what it gives in seconds and bytes.

    python benchmarks/precision.py                  trained miniature: ranks; middle size: speed
    python benchmarks/precision.py --skip-speed --seeds 1
    python benchmarks/precision.py --skip-speed --precisions int8-qdq fp8 int4

Ranks: the trained miniatures of benchmarks/adaptation.py (made here where they are missing), 400
queries of each of four domains, 20 candidates, k-reciprocal with mu; every precision is compared
with float32. `first image`: share of queries whose first gallery image is another one; `first
person`: whose first image shows another person; `right/wrong`: where that made a right answer
wrong or a wrong one right.

Speed: 20 candidates of one query, vision tokens known, in the middle-sized Qwen2-VL of
benchmarks/scoring.py (random weights), two threads, rounds in turn.

`weights 8/4 bit`: float arithmetic on weights stored in blocks of 32 with a scale each, made by
onnxruntime's own quantiser (MatMulNBits): a trial for devices that wait for memory; `a8`: the same
with activations in 8 bits a block. Not something that murank exports.

`--precisions` asks other engines than int8, w8a16 and those trials about ranks: int8-qdq, fp8 and
int4 are for TensorRT, and onnxruntime's CPU computes what they mean in float. Their ranks are
those of a GPU but for the order of sums; their speed here would say nothing.

`OpenVINO bf16`, `OpenVINO float32`: the float32 engine with --providers openvino. A CPU without
bf16 products cannot run the first; its row says so. `products in bf16` is the float32 engine in
onnxruntime with what goes into its products, and what comes out, rounded to bf16, but for the
answer head, as OpenVINO is asked to: what that costs in ranks, on any CPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import Engine, MachineError
from murank.backends.protocol import Products
from murank.folder.integrity import hash_files
from murank.folder.manifest import manifest_bytes, read_manifest
from murank.folder.manifest_fields import MANIFEST
from murank.folder.precision import ARITHMETIC, INTEGER

CANDIDATES, THREADS = 20, 2
WEIGHT_ONLY = {"weights 8 bit": (8, 1), "weights 8 bit, a8": (8, 4), "weights 4 bit": (4, 1)}
OPENVINO: dict[str, Products] = {"OpenVINO bf16": "bf16", "OpenVINO float32": "float32"}
ROUNDED = "products in bf16"
_BLOCK = 32
RANKED = (
    *(name for name, how in ARITHMETIC.items() if how.rounded), *WEIGHT_ONLY, *OPENVINO, ROUNDED,
)  # fmt: skip
USUAL = (*INTEGER, *WEIGHT_ONLY, ROUNDED, "OpenVINO bf16")


def weight_only(source: Path, folder: Path, bits: int, accuracy_level: int) -> Path:
    """Copy a float32 engine with its MLLM's weights in a few bits; return the folder."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.disable(logging.INFO)  # it would name each node that it leaves alone

    def narrow(file: Path) -> None:
        model = onnx.load(file)
        wide = {one.name for one in model.graph.initializer if len(one.dims) == 2}
        wide -= {one.name for one in model.graph.initializer if 2 in one.dims}  # answer rows
        others = [n.name for n in model.graph.node if not wide.intersection(n.input)]
        made = MatMulNBitsQuantizer(
            model, bits=bits, block_size=_BLOCK, is_symmetric=True, accuracy_level=accuracy_level,
            nodes_to_exclude=others,
        )  # fmt: skip
        made.process()
        file.with_name(f"{file.name}.data").unlink(missing_ok=True)
        made.model.save_model_to_file(str(file), use_external_data_format=True)

    return _with_other_graphs(source, folder, narrow)


def rounded_products(source: Path, folder: Path) -> Path:
    """Copy a float32 engine whose products round as bf16 ones do; return the folder."""
    import onnx

    def round_products(file: Path) -> None:
        model = onnx.load(file, load_external_data=False)
        nodes = [made for node in model.graph.node for made in _rounding(node)]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        file.write_bytes(model.SerializeToString())

    return _with_other_graphs(source, folder, round_products)


def _with_other_graphs(source: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """Copy an engine, unless it is there, with the MLLM's graphs changed; return the folder."""
    if folder.exists():
        return folder
    aside = folder.with_name(f"{folder.name}-unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    manifest = read_manifest(source)
    assert manifest.scorer is not None
    for name in (manifest.scorer.vision, manifest.scorer.decoder):
        change(aside / name)
    files = hash_files(aside, sorted(manifest.files))
    (aside / MANIFEST).write_bytes(manifest_bytes(replace(manifest, files=files)))
    aside.rename(folder)
    return folder


def _rounding(node: Any) -> list[Any]:
    """Return a node as it is, or a product between casts to bf16 and back."""
    from onnx import TensorProto, helper

    if node.op_type not in ("MatMul", "Gemm") or "logits" in node.output:
        return [node]

    def through(start: str, end: str) -> list[Any]:
        narrow = f"{end}_bf16"
        return [
            helper.make_node("Cast", [start], [narrow], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", [narrow], [end], to=TensorProto.FLOAT),
        ]

    (output,) = node.output
    factors = [f"{output}_factor_{place}" for place in range(2)]
    casts = [
        cast for one in zip(node.input[:2], factors, strict=True) for cast in through(*one)
    ]  # fmt: skip
    node.input[:] = [*factors, *node.input[2:]]
    node.output[:] = [f"{output}_exact"]
    return [*casts, node, *through(node.output[0], output)]


@dataclass
class Change:
    """What a precision changed, of one seed and domain."""

    image: NDArray[np.bool_]  # [Q]
    person: NDArray[np.bool_]
    rightness: NDArray[np.bool_]
    mean_ap: float  # points
    rank1: float
    log_odds: float  # root mean square difference


def ranks(work: Path, seeds: int, names: Sequence[str]) -> dict[str, list[Change] | str]:
    """Ask the engines of `names` (of `RANKED`) about the same pairs; str: why one cannot run."""
    from adaptation import DOMAINS, ask, load_test
    from miniature.recipe import Recipe

    found: dict[str, list[Change]] = {}
    cannot: dict[str, str] = {}
    for seed in range(seeds):
        recipe = Recipe(work / f"seed-{seed}", seed)
        hard = recipe.adapter()
        exact = recipe.engine(adapter=hard)
        engines: dict[str, Path] = {}
        for name in names:
            if name in WEIGHT_ONLY:
                bits, level = WEIGHT_ONLY[name]
                to = recipe.work / f"weights-{bits}-{level}"
                engines[name] = weight_only(exact, to, bits, level)
            elif name == ROUNDED:
                engines[name] = rounded_products(exact, recipe.work / "products-bf16")
            elif name in OPENVINO:
                engines[name] = exact
            else:
                engines[name] = recipe.engine(adapter=hard, dtype=name)
        reference = Engine.from_pretrained(exact, providers="cpu")
        tests = {domain: load_test(recipe, domain, reference) for domain in DOMAINS}
        wanted = {domain: ask(reference, test, CANDIDATES) for domain, test in tests.items()}
        for name, folder in engines.items():
            try:
                engine = Engine.from_pretrained(folder, parts=["scorer"], **_running(name))
            except MachineError as error:
                cannot[name] = str(error)
                continue
            for domain, test in tests.items():
                recipe.say(f"seed {seed} {name} {domain}")
                mu = ask(engine, test, CANDIDATES)
                found.setdefault(name, []).append(_change(test, wanted[domain], mu))
    return {**found, **cannot}


def _running(name: str) -> dict[str, Any]:
    """What runs an engine of this name."""
    if name in OPENVINO:
        return {"providers": "openvino", "products": OPENVINO[name]}
    return {"providers": "cpu"}


def _change(test: Any, wanted: NDArray[Any], mu: NDArray[Any]) -> Change:
    from adaptation import k_reciprocal

    candidates = test.candidates[:, :CANDIDATES]
    both = [
        k_reciprocal(test.features, test.num_query, mu=one, candidates=candidates)
        for one in (wanted, mu)
    ]
    first, second = (one.argmin(1) for one in both)
    query, gallery = test.pids[: test.num_query], test.pids[test.num_query :]
    scores = [test.score(one) for one in both]
    odds = [_log_odds(one) for one in (wanted, mu)]
    return Change(
        image=first != second,
        person=gallery[first] != gallery[second],
        rightness=(gallery[first] == query) != (gallery[second] == query),
        mean_ap=scores[1][0] - scores[0][0],
        rank1=scores[1][1] - scores[0][1],
        log_odds=float(np.sqrt(np.mean((odds[1] - odds[0]) ** 2))),
    )


def _log_odds(mu: NDArray[Any]) -> NDArray[np.float64]:
    """Of float32 probabilities; those that were rounded to 0 or 1 count as the next value."""
    held = np.finfo(np.float32)
    inside = np.clip(mu.astype(np.float64), float(held.tiny), 1 - float(held.epsneg))
    found: NDArray[np.float64] = np.log(inside / (1 - inside))
    return found


def rank_table(found: dict[str, list[Change] | str]) -> str:
    """Return the table of ranks."""
    heads = ["", "first image %", "first person %", "right/wrong %", "mAP, mean", "mAP, largest"]
    heads += ["rank-1, largest", "log-odds, rms"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name, changes in found.items():
        if isinstance(changes, str):
            lines.append(f"| {name} | not here: {changes} |{' |' * (len(heads) - 2)}")
            continue
        shares = [
            100 * np.concatenate([getattr(one, key) for one in changes]).mean()
            for key in ("image", "person", "rightness")
        ]
        cells = [f"{share:.2f}" for share in shares]
        cells.append(f"{np.mean([one.mean_ap for one in changes]):+.2f}")
        cells.append(f"{max(abs(one.mean_ap) for one in changes):.2f}")
        cells.append(f"{max(abs(one.rank1) for one in changes):.2f}")
        cells.append(f"{np.mean([one.log_odds for one in changes]):.4f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(name: str, folder: Path, seed: int) -> None:
    """Run in a child: load, score one query three times, print one JSON line."""
    from scoring import memory, pixels

    try:
        engine = Engine.from_pretrained(folder, threads=THREADS, parts=["scorer"], **_running(name))
    except MachineError as error:
        print(json.dumps({"cannot": str(error)}))
        return
    scorer = engine.scorer
    assert scorer is not None
    known = scorer.vision.of(list(pixels(CANDIDATES, 1)))
    times: list[tuple[float, float]] = []
    for turn in range(4):
        query = scorer.vision.of(list(pixels(1, 100 * seed + turn)))
        start = time.perf_counter()
        prefix = scorer.decoder.prefill(query)
        middle = time.perf_counter()
        scorer.decoder.logits(prefix, known[None])
        times.append((middle - start, time.perf_counter() - middle))
    prefill, score = np.median(times[1:], axis=0).tolist()
    print(json.dumps({"prefill": prefill, "score": score, "GiB": memory("VmRSS")}))


def speed_table(work: Path, rounds: int) -> str:
    """Time the precisions in turn."""
    from scoring import make_engines

    make_engines(work, ["prefix_first"], ["fp32", *INTEGER])
    exact = work / "prefix_first-fp32"
    folders: dict[str, Path] = {name: work / f"prefix_first-{name}" for name in ("fp32", *INTEGER)}
    folders |= {
        name: weight_only(exact, work / f"weights-{bits}-{level}", bits, level)
        for name, (bits, level) in WEIGHT_ONLY.items()
    }
    folders |= dict.fromkeys(OPENVINO, exact)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in folders}
    for turn in range(rounds):
        for name, folder in folders.items():
            print(f"round {turn + 1} {name}", file=sys.stderr)
            command = [sys.executable, __file__, "--measure", name, str(folder), str(turn)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    lines = ["| | decoder MB | prefill s | score s | fp32 / score | loaded GiB |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    cannot = {name: of[0]["cannot"] for name, of in runs.items() if "cannot" in of[0]}
    middle = {
        name: {key: statistics.median(run[key] for run in of) for key in of[0]}
        for name, of in runs.items()
        if name not in cannot
    }
    for name, one in middle.items():
        size = sum(file.stat().st_size for file in (folders[name] / "onnx").glob("decoder.*"))
        ratio = middle["fp32"]["score"] / one["score"]
        lines.append(
            f"| {name} | {size / 1e6:.0f} | {one['prefill']:.3f} | {one['score']:.3f} | "
            f"{ratio:.2f} | {one['GiB']:.2f} |"
        )
    lines += [f"| {name} | not here: {why} | | | | |" for name, why in cannot.items()]
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("try/miniature"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--precisions", nargs="+", choices=RANKED, default=USUAL, metavar="NAME",
        help=f"whose ranks to compare: {', '.join(RANKED)}",
    )  # fmt: skip
    parser.add_argument("--skip-ranks", action="store_true")
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--speed-work", type=Path, help="of benchmarks/scoring.py (temporary)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, folder, seed = arguments.measure
        measure(name, Path(folder), int(seed))
        return
    if not arguments.skip_ranks:
        found = ranks(arguments.work, arguments.seeds, arguments.precisions)
        print(rank_table(found), flush=True)
    if not arguments.skip_speed:
        with tempfile.TemporaryDirectory() as temporary:
            work = arguments.speed_work or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            print("\n" + speed_table(work, arguments.rounds))


if __name__ == "__main__":
    main()

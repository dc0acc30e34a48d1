"""The whole way from a query's file to its ranking: the released way against murank.

    python benchmarks/end_to_end.py                          both models; half an hour
    python benchmarks/end_to_end.py --model miniature --rounds 1

released   PyTorch: encoder, then whole two-image prompts in one batch a query, one token generated;
           dense NumPy k-reciprocal (tests/dense_reference.py in float32)
murank     an engine of the same weights, prefix_first, in each precision

Models: `miniature` is the trained one of benchmarks/miniature; `middle` is a Qwen2-VL of hidden
size 768 with 12 layers beside a CLIP ViT-B/16 encoder, random weights. Images are drawn (crowd).

query      one query against a gallery of 2,000 whose features are known; 20 candidates, whose
           vision tokens murank keeps. From the JPEG file to the ranking.
job        200 queries x 2,000 gallery images, nothing known: embed all, ask about 10 candidates a
           query, fuse, re-rank. Miniature only: the released way would take an hour otherwise.

Two threads everywhere; contenders take turns, each in a process of its own; medians of the rounds.
Loading and a first query are outside. `same first`: queries whose first gallery image is that of
`released`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.images import Preprocessing, load_image, to_pixels

THREADS = 2
GALLERY, QUERIES = 2000, 200
CANDIDATES = {"query": 20, "job": 10}
PRECISIONS = ("fp32", "w8a16", "int8")
CONTENDERS = ("released", *(f"murank {name}" for name in PRECISIONS))
MODELS = ("miniature", "middle")
HERE = Path(__file__).resolve().parent
MINIATURE = HERE / "miniature"
_ASKED = {"miniature": 20, "middle": 1}  # queries a process times, of task "query"
Pixels = NDArray[np.uint8]


def make_world(work: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of queries and gallery, drawn where they are not there yet."""
    from murank.datasets import load_dataset
    from murank_export.world.market import WorldSettings, write_world

    folder = work / "crowd"
    if not folder.exists():
        print("draw a world", file=sys.stderr)
        write_world(folder, WorldSettings("crowd", people=50, distractors=200, shots=10, seed=5))
    data = load_dataset("market1501", folder)
    queries, gallery = list(data.query.paths)[:QUERIES], list(data.gallery.paths)[:GALLERY]
    assert (len(queries), len(gallery)) == (QUERIES, GALLERY), (len(queries), len(gallery))
    return queries, gallery


def export(work: Path, model: str) -> None:
    """Write what is missing: checkpoints and an engine of each precision."""
    from miniature.encoder import MEAN, STD

    from murank_export import EncoderSettings, ExportSettings, export_engine

    for precision in PRECISIONS:
        folder = work / f"{model}-{precision}"
        if folder.exists():
            continue
        print(f"export {folder.name}", file=sys.stderr)
        common: dict[str, Any] = {
            "layout": "prefix_first", "precision": precision, "parity_pairs": 2
        }  # fmt: skip
        if model == "middle":
            settings = ExportSettings(folder, _checkpoint(work), encoder=_clip(work), **common)
        else:
            settings = ExportSettings(
                folder, MINIATURE / "base", MINIATURE / "adapter",
                prompt=MINIATURE / "prompt.json", image_size=(112, 56), encoder=_onnx(work),
                encoder_settings=EncoderSettings((112, 56), "bilinear", MEAN, STD), **common,
            )  # fmt: skip
        export_engine(settings)


def _onnx(work: Path) -> Path:
    """Return the miniature's encoder as murank export takes it."""
    from miniature.encoder import save_onnx

    file = work / "encoder.onnx"
    if not file.exists():
        save_onnx(torch_encoder(), file)
    return file


def _checkpoint(work: Path) -> Path:
    from random_checkpoint import make_checkpoint

    folder = work / "checkpoint"
    if not folder.exists():
        make_checkpoint(folder, "qwen2_vl", "mid")
    return folder


def _clip(work: Path) -> Path:
    """CLIP ViT-B/16 for crops of 256 x 128, as the paper's encoder, with random weights."""
    import torch
    import transformers

    hf: Any = transformers  # whose configs carry no types
    folder = work / "clip"
    if not folder.exists():
        torch.manual_seed(0)
        config = hf.CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            image_size=224, patch_size=16, projection_dim=512,
        )  # fmt: skip
        hf.CLIPVisionModelWithProjection(config).eval().save_pretrained(folder)
        how = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
        how |= {"size": {"height": 224, "width": 224}, "do_center_crop": False}
        (folder / "preprocessor_config.json").write_text(json.dumps(how))
    return folder


def torch_encoder() -> Any:
    """Return the miniature's encoder in PyTorch; batch norms are folded into what is shipped."""
    import onnx
    import torch
    from miniature.encoder import Encoder

    model = onnx.load(MINIATURE / "engine" / "onnx" / "encoder.onnx")
    held = {
        one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy())
        for one in model.graph.initializer
    }
    encoder = Encoder().eval()
    state = {name: value for name, value in held.items() if name in encoder.state_dict()}
    for name, module in encoder.named_modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            variance = torch.full((module.num_features,), 1 - module.eps)
            state[f"{name}.running_var"] = variance
            convolution = name.removesuffix("1") + "0"
            if f"{convolution}.weight_bias" in held:
                state[f"{name}.bias"] = held[f"{convolution}.weight_bias"]
    missing, unknown = encoder.load_state_dict(state, strict=False)
    assert not unknown
    assert all(".1." in name or name.startswith("neck.") for name in missing), missing
    return encoder


class Released:
    """The released way, in PyTorch and NumPy."""

    def __init__(self, work: Path, model: str) -> None:
        import torch
        from scoring import Torch

        from murank.prompt import default_template, load_template
        from murank_export.mllm.adapter import read_adapter
        from murank_export.mllm.checkpoint import load_checkpoint
        from murank_export.mllm.merge import merge_adapter

        torch.set_num_threads(THREADS)
        self._torch = torch
        self._encode: Any  # images [B,3,H,W] -> features
        if model == "middle":
            import transformers

            hf: Any = transformers
            checkpoint, template = load_checkpoint(work / "checkpoint"), default_template()
            clip = hf.CLIPVisionModelWithProjection.from_pretrained(work / "clip").eval()
            self._encode = lambda images: clip(pixel_values=images).image_embeds
            self._encoder_size, self._mean, self._std = Preprocessing(224, 224), 0.5, 0.5
        else:
            checkpoint = load_checkpoint(MINIATURE / "base")
            template = load_template(MINIATURE / "prompt.json")
            adapter = read_adapter(MINIATURE / "adapter")
            checkpoint.model = merge_adapter(
                checkpoint.model, adapter, lora_alpha=None, lora_rank=None
            )
            self._encode = torch_encoder()
            self._encoder_size = Preprocessing(112, 56, "bilinear")
            self._mean, self._std = 0.45, 0.25
        size = (112, 56) if model == "miniature" else None
        self._mllm = Torch(checkpoint, template, "prefix_first", size)
        height, width = self._mllm.size
        self._mllm_size = Preprocessing(height, width, "bicubic")

    def embed(self, files: Sequence[Path]) -> NDArray[np.float32]:
        """Return features [n,D] of unit length."""
        torch, rows = self._torch, []
        for start in range(0, len(files), 32):
            images = np.stack(
                [to_pixels(load_image(f), self._encoder_size) for f in files[start : start + 32]]
            )
            x = (torch.from_numpy(images).float() / 255 - self._mean) / self._std
            with torch.inference_mode():
                rows.append(torch.nn.functional.normalize(self._encode(x)).numpy())
        return np.concatenate(rows)

    def mu(self, query: Path, candidates: Sequence[Path]) -> NDArray[np.float64]:
        """Return p("different person") [K]."""
        pixels = [to_pixels(load_image(one), self._mllm_size) for one in (query, *candidates)]
        logits = self._mllm.released(pixels[0], np.stack(pixels[1:])).astype(np.float64)
        mu: NDArray[np.float64] = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
        return mu

    def rank(
        self, queries: Sequence[Path], gallery: Sequence[Path], known: NDArray[Any] | None, k: int
    ) -> NDArray[np.int64]:
        """Return the first gallery image of each query."""
        sys.path.append(str(HERE.parent / "tests"))
        from dense_reference import ref_k_reciprocal

        of_gallery = self.embed(gallery) if known is None else known
        of_queries = self.embed(queries)
        candidates = np.argsort(-(of_queries @ of_gallery.T), 1, kind="stable")[:, :k]
        mu = np.stack(
            [
                self.mu(query, [gallery[j] for j in row])
                for query, row in zip(queries, candidates.tolist(), strict=True)
            ]
        )
        found = ref_k_reciprocal(
            np.concatenate([of_queries, of_gallery]), len(queries), mu=mu, candidates=candidates,
            dtype=np.float32,
        )  # fmt: skip
        first: NDArray[np.int64] = found.argmin(1)
        return first


def run_query(contender: str, model: str, work: Path, turn: int) -> dict[str, Any]:
    """Time single queries."""
    queries, gallery = make_world(work)
    known = np.load(work / f"{model}-features.npy")
    k, count = CANDIDATES["query"], _ASKED[model]
    asked = queries[turn * count : (turn + 1) * count]
    if contender == "released":
        way = Released(work, model)
        way.rank([queries[-1]], gallery, known, 2)

        def ask(query: Path) -> int:
            return int(way.rank([query], gallery, known, k)[0])
    else:
        from murank import Engine, Searcher

        engine = Engine.from_pretrained(
            _engine(work, model, contender), providers="cpu", threads=THREADS
        )
        searcher = Searcher(engine, known, gallery, candidates=k)
        nearest = np.argsort(-(engine.embed(asked) @ known.T), 1, kind="stable")[:, :k]
        searcher.warm(sorted(set(nearest.ravel().tolist())))
        searcher.search(queries[-1])

        def ask(query: Path) -> int:
            return searcher.search(query).matches[0].corpus_id

    return _timed(lambda: [ask(query) for query in asked], per=count)


def run_job(contender: str, model: str, work: Path, _turn: int) -> dict[str, Any]:
    """Time the off-line job; murank's is what `murank score` and `murank rerank` run."""
    queries, gallery = make_world(work)
    if contender == "released":
        way = Released(work, model)
        return _timed(lambda: way.rank(queries, gallery, None, CANDIDATES["job"]).tolist())
    from murank import Engine
    from murank_kernels import k_reciprocal, smallest_k

    engine = Engine.from_pretrained(
        _engine(work, model, contender), providers="cpu", threads=THREADS
    )
    k_reciprocal(np.eye(40, dtype=np.float32), 4, k1=4, k2=2)  # compiled before

    def job() -> list[int]:
        features = engine.embed([*queries, *gallery])
        distances = 1 - features[:QUERIES] @ features[QUERIES:].T
        candidates = smallest_k(distances, CANDIDATES["job"])[1]
        rows = [[gallery[j] for j in row] for row in candidates.tolist()]
        mu = engine.mu_many(queries, rows)
        found = k_reciprocal(features, QUERIES, mu=mu, candidates=candidates, top_k=50)
        return [int(one) for one in found[1][:, 0]]

    return _timed(job)


def most_rounds(model: str) -> int:
    """Rounds that have queries of their own; the last query is the one that warms up."""
    return (QUERIES - 1) // _ASKED[model]


def _engine(work: Path, model: str, contender: str) -> Path:
    return work / f"{model}-{contender.removeprefix('murank ')}"


def _timed(work: Any, per: int = 1) -> dict[str, Any]:
    from scoring import memory

    cpu, wall = time.process_time(), time.perf_counter()
    first = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall / per, "cpu": cpu / per, "peak": memory("VmHWM"), "first": first}


TASKS = {"query": run_query, "job": run_job}


def run_child(task: str, contender: str, model: str, work: Path, turn: int) -> dict[str, Any]:
    """Measure one contender in a process of its own."""
    print(f"{model} {task}: round {turn + 1} {contender}", file=sys.stderr)
    command = [sys.executable, __file__, "--measure", task, contender, model, str(work), str(turn)]
    threads = {f"{name}_NUM_THREADS": str(THREADS) for name in ("OMP", "OPENBLAS", "NUMBA")}
    environment = os.environ | threads
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(model: str, task: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print one table."""
    what = "a query" if task == "query" else f"{QUERIES} x {GALLERY}"
    print(f"\n**{model}, {what}, {CANDIDATES[task]} candidates a query**\n")
    print("| | wall s | CPU s | released / wall | spread | peak GiB | same first % |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    released = runs["released"]
    for name, rows in runs.items():
        ratios = [one["wall"] / row["wall"] for one, row in zip(released, rows, strict=True)]
        same = [
            np.mean(np.array(one["first"]) == np.array(row["first"]))
            for one, row in zip(released, rows, strict=True)
        ]
        print(
            f"| {name} | {statistics.median(row['wall'] for row in rows):.3g} "
            f"| {statistics.median(row['cpu'] for row in rows):.3g} "
            f"| {statistics.median(ratios):.1f} | {min(ratios):.1f} to {max(ratios):.1f} "
            f"| {max(row['peak'] for row in rows):.2f} | {100 * np.mean(same):.1f} |"
        )


def prepare(work: Path, model: str) -> None:
    """Make world, engines and gallery features, where they are missing."""
    from murank import Engine

    work.mkdir(parents=True, exist_ok=True)
    _, gallery = make_world(work)
    export(work, model)
    file = work / f"{model}-features.npy"
    if not file.exists():
        engine = Engine.from_pretrained(work / f"{model}-fp32", providers="cpu", parts=["encoder"])
        np.save(file, engine.embed(gallery))


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, help="one of them (both)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder to keep things in (temporary)")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        task, contender, model, work, turn = arguments.measure
        print(json.dumps(TASKS[task](contender, model, Path(work), int(turn))))
        return
    models = [arguments.model] if arguments.model else MODELS
    most = min(map(most_rounds, models))
    if not 1 <= arguments.rounds <= most:
        parser.error(
            f"--rounds must be in 1..{most}, got {arguments.rounds}: each asks other queries of "
            f"the {QUERIES} there are"
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for model in models:
            prepare(work, model)
            for task in ("query", "job") if model == "miniature" else ("query",):
                runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
                for turn in range(arguments.rounds):
                    for name in CONTENDERS:
                        runs[name].append(run_child(task, name, model, work, turn))
                report(model, task, runs)


if __name__ == "__main__":
    main()

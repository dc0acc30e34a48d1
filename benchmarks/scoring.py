"""Score 20 candidates of a query: murank against two honest PyTorch baselines, in one table.

    python benchmarks/scoring.py                     both layouts, fp32, w8a16 and int8, five rounds
    python benchmarks/scoring.py --rounds 1 --layout prefix_first
    python benchmarks/scoring.py --work DIR          keep checkpoint and engines there for next time
    python benchmarks/scoring.py --peers             and those of the last four rows below

A Qwen2-VL of middle size (hidden 768, 12 layers, 12/2 heads, vision depth 8 x 512) with random
weights: the same weights everywhere, two threads everywhere, and everybody starts at resized pixels
and ends at p("No").

released   whole two-image prompts in one batch, generate one token (the released way)
reuse      PyTorch, the prefix's K/V computed once and shared, answer rows of the last token only
murank     the engine, nothing known of any image
...cached  vision tokens of the candidates known (they are computed once per gallery image)
openvino   the same float32 engine with --providers openvino, also with --products bf16; shapes seen
           before anything is timed
compiled   `reuse` under torch.compile, compiled before it is timed
reuse bf16 `reuse` with weights and activations in bfloat16, vision tower and answer rows too
llama.cpp  the decoder in llama.cpp, float32, the tower in murank;
           the row wants `pip install llama-cpp-python gguf` (cmake and a C++ compiler build it)

Each figure is taken in a process of its own; contenders take turns, round by round. CPU is the
least of the rounds, wall the median. `floor` is what the matrix products of a float32 murank row
(cached or not) would take at the rate of one large sgemm, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import MurankError
from murank.folder.manifest import ScorerPart, read_manifest
from murank.folder.precision import INTEGER
from murank.prompt import LAYOUTS

CANDIDATES = 20
THREADS = 2
ROWS = ("released", "reuse", "reuse cached", "murank", "murank cached")
INTEGER_ROWS = ("murank w8a16 cached", "murank int8", "murank int8 cached")
PEERS = (
    "murank openvino", "murank openvino cached", "murank openvino bf16",
    "murank openvino bf16 cached", "reuse compiled cached", "reuse bf16 cached",
    "llama.cpp cached",
)  # fmt: skip


def pixels(count: int, seed: int) -> NDArray[np.uint8]:
    """Resized images [count,3,280,140]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 3, 14, 7), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 1, 20, 20), np.uint8))


class Torch:
    """A PyTorch model, asked as an engine of the same prompt is asked."""

    def __init__(
        self, checkpoint: Any, template: Any, layout: str, size: tuple[int, int] | None = None
    ) -> None:
        import torch

        from murank_export.mllm.reference import pixel_values
        from murank_export.mllm.tokens import answer_ids, prompt_tokens

        torch.set_num_threads(THREADS)
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.grid, self.size = checkpoint.grid(size)
        self.tokens = prompt_tokens(checkpoint, template, layout)  # type: ignore[arg-type]
        self.answers = list(answer_ids(self.checkpoint.tokenizer))
        self._pixel_values = pixel_values
        self._torch = torch
        # In the baselines' favour: transformers 4 has this model compute the logits of all tokens.
        self.model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],))
        config = self.model.generation_config
        config.eos_token_id, config.pad_token_id, config.do_sample = None, 0, False

    def narrow(self) -> None:
        """Compute in bfloat16."""
        self.model.to(self._torch.bfloat16)

    def compile(self) -> None:
        """Let PyTorch compile the language model."""
        language = self.model.model.language_model
        language.forward = self._torch.compile(language.forward)

    def released(self, query: NDArray[np.uint8], candidates: NDArray[np.uint8]) -> Any:
        """Generate one token behind each of the whole prompts."""
        torch, grid = self._torch, self.grid
        ids = torch.tensor([self.tokens.full(grid.num_tokens)] * len(candidates))
        images = np.stack([x for c in candidates for x in (query, c)])
        self.model.model.rope_deltas = None
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=self._pixel_values(images, grid, self.checkpoint),
                image_grid_thw=torch.tensor([[1, grid.rows, grid.columns]] * len(images)),
                max_new_tokens=1,
                output_scores=True,
                return_dict_in_generate=True,
            )
        return out.scores[0][:, self.answers].numpy()

    def vision(self, images: NDArray[np.uint8]) -> Any:
        """Vision tokens [n,T,H]."""
        torch, grid = self._torch, self.grid
        values = self._pixel_values(images, grid, self.checkpoint)
        shape = torch.tensor([[1, grid.rows, grid.columns]] * len(images))
        with torch.inference_mode():
            found = self.model.model.get_image_features(values, shape)
        found = getattr(found, "pooler_output", found)
        return torch.stack(list(found)) if isinstance(found, (tuple, list)) else found

    def reuse(
        self, query: NDArray[np.uint8], candidates: NDArray[np.uint8], known: Any = None
    ) -> Any:
        """Prefix once, its K/V repeated for the batch of suffixes."""
        torch, model, grid = self._torch, self.model, self.grid
        from transformers import DynamicCache

        known = self.vision(candidates) if known is None else known
        seen = self.vision(query[None])
        embed = model.get_input_embeddings()
        static, prefill, suffix = self.tokens.positions(grid)
        with torch.inference_mode():
            text = [embed(torch.tensor([ids])) for ids in (self.tokens.static, self.tokens.between)]
            before = torch.cat([text[0], seen, text[1]], 1)
            behind = embed(torch.tensor([self.tokens.behind])).expand(len(candidates), -1, -1)
            cache = DynamicCache(config=model.config.text_config)
            language = model.model.language_model
            places = torch.cat([static, prefill], 1)[:, None]
            language(
                inputs_embeds=before, position_ids=places, past_key_values=cache, use_cache=True
            )
            cache.batch_repeat_interleave(len(candidates))
            hidden = language(
                inputs_embeds=torch.cat([known, behind], 1),
                position_ids=suffix[:, None].expand(-1, len(candidates), -1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            head = model.lm_head.weight[self.answers]
            return torch.nn.functional.linear(hidden[:, -1], head).float().numpy()


def prepare(name: str, layout: str, work: Path) -> Callable[[int], Any]:
    """Load a contender; what comes back scores with a query of the given seed."""
    candidates = pixels(CANDIDATES, 1)
    if name == "sgemm":
        return sgemm()
    if name.startswith("murank"):
        from murank import Engine

        precision = next((one for one in INTEGER if one in name), "fp32")
        engine = Engine.from_pretrained(
            work / f"{layout}-{precision}", threads=THREADS, parts=["scorer"],
            providers="openvino" if "openvino" in name else "cpu",
            products="bf16" if "bf16" in name else "float32",
        )  # fmt: skip
        scorer = engine.scorer
        assert scorer is not None

        def score(seed: int) -> Any:
            # A query never seen: its vision tokens and prefix are always computed.
            if "cached" not in name:
                engine.clear_cache()
            return scorer.logits(pixels(1, seed)[0], list(candidates))

        scorer.logits(pixels(1, 99)[0], list(candidates[:2]))
        if "openvino" in name:  # which makes kernels for each shape, as torch.compile does
            scorer.logits(pixels(1, 98)[0], list(pixels(CANDIDATES, 2)))
        if "cached" in name:
            scorer.vision.of(list(candidates))
        return score
    if name.startswith("llama.cpp"):
        return llama_cpp(layout, work, candidates)
    from murank.prompt import default_template
    from murank_export.mllm.checkpoint import load_checkpoint

    model = Torch(load_checkpoint(work / "checkpoint"), default_template(), layout)
    if name == "released":
        model.released(pixels(1, 99)[0], candidates[:2])
        return lambda seed: model.released(pixels(1, seed)[0], candidates)
    if "bf16" in name:
        model.narrow()
    known = model.vision(candidates) if "cached" in name else None
    if "compiled" in name:
        model.compile()
        for seed in (97, 98):  # all shapes are compiled before anything is timed
            model.reuse(pixels(1, seed)[0], candidates, known)
    else:
        model.reuse(pixels(1, 99)[0], candidates[:2])
    return lambda seed: model.reuse(pixels(1, seed)[0], candidates, known)


def llama_cpp(layout: str, work: Path, candidates: NDArray[np.uint8]) -> Callable[[int], Any]:
    """Load the decoder in llama.cpp; the candidates' vision tokens are known."""
    from llama_cpp_peer import LlamaCpp

    model = LlamaCpp(work, layout, threads=THREADS, count=len(candidates))
    known = model.vision(candidates)
    model.score(pixels(1, 99)[0], known)
    return lambda seed: model.score(pixels(1, seed)[0], known)


def sgemm() -> Callable[[int], Any]:
    """Multiply 2 GFLOP x 50 in onnxruntime; the rate is what it returns."""
    import onnxruntime
    from onnx import TensorProto, helper

    size = 1024
    shape = [size, size]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("a", "b", "c")]
    graph = helper.make_graph(nodes, "sgemm", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name in ("a", "b")}
    session.run(None, feeds)

    def run(_seed: int) -> Any:
        for _ in range(50):
            session.run(None, feeds)
        return np.zeros((0, 2))

    return run


def memory(key: str) -> float:
    """GiB of this process from the kernel's own account."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 2**20
    raise SystemExit("memory is read from /proc, which this machine does not have")


def measure(name: str, layout: str, work: Path, seed: int) -> None:
    """Run in a child: load, score once, print one JSON line."""
    try:
        score = prepare(name, layout, work)
    except MurankError as error:  # not on this machine
        print(json.dumps({"cannot": str(error)}))
        return
    loaded = memory("VmRSS")
    cpu, wall = time.process_time(), time.perf_counter()
    logits = score(seed)
    figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    figures |= {"loaded": loaded, "peak": memory("VmHWM")}
    print(json.dumps({**figures, "logits": np.asarray(logits, np.float64).tolist()}))


def run_child(name: str, layout: str, work: Path, seed: int) -> dict[str, Any]:
    """Measure one contender in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, layout, str(work), str(seed)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_engines(work: Path, layouts: Sequence[str], precisions: Sequence[str]) -> None:
    """Make the checkpoint and export it, where that was not done before."""
    from random_checkpoint import make_checkpoint

    from murank_export import ExportSettings, export_engine

    if not (work / "checkpoint").exists():
        make_checkpoint(work / "checkpoint", "qwen2_vl", "mid")
    for layout in layouts:
        for precision in precisions:
            folder = work / f"{layout}-{precision}"
            if not folder.exists():
                print(f"export {folder.name}", file=sys.stderr)
                settings = ExportSettings(
                    folder, work / "checkpoint", layout=layout, precision=precision,  # type: ignore[arg-type]
                    parity_pairs=3,
                )  # fmt: skip
                export_engine(settings)


def gflop(part: ScorerPart, work: Path, *, cached: bool) -> float:
    """Matrix products of one murank call: two operations a weight and token, and attention."""
    config = json.loads((work / "checkpoint" / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    s = part.shapes
    heads = text["num_attention_heads"] * s.head_dim
    weights = s.hidden * (2 * heads + 2 * s.kv_heads * s.head_dim)
    weights += 3 * s.hidden * text["intermediate_size"]
    tokens = s.prefill_tokens + CANDIDATES * s.suffix_tokens
    prefix = s.static_tokens + s.prefill_tokens
    seen = s.prefill_tokens * (s.static_tokens + s.prefill_tokens / 2)
    seen += CANDIDATES * s.suffix_tokens * (prefix + s.suffix_tokens / 2)
    decoder = s.layers * (2 * weights * tokens + 4 * heads * seen)
    patches, width = 4 * s.vision_tokens, vision["embed_dim"]
    per_patch = 2 * width * width * (4 + 2 * vision["mlp_ratio"]) + 4 * width * patches
    image = patches * vision["depth"] * per_patch
    return float(decoder + image * (1 if cached else 1 + CANDIDATES)) / 1e9


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's, of the logit differences."""
    ranks = [np.argsort(np.argsort(x[:, 0] - x[:, 1])) for x in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def report(layout: str, runs: dict[str, list[dict[str, Any]]], work: Path) -> None:
    """Print one layout's table."""
    part = read_manifest(work / f"{layout}-fp32").scorer
    assert part is not None
    shapes = part.shapes
    rate = 50 * 2 * 1024**3 / 1e9 / statistics.median(run["wall"] for run in runs["sgemm"])
    print(
        f"\n**{layout}**: {shapes.static_tokens} static tokens, {shapes.prefill_tokens} a query, "
        f"{shapes.suffix_tokens} a pair; sgemm {rate:.0f} GFLOP/s\n"
    )
    heads = ["", "wall s", "CPU s", "released / wall", "reuse / wall", "wall / floor"]
    heads += ["loaded GiB", "scoring adds GiB", "logit difference", "rank correlation"]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    cannot = {name: rows[0]["cannot"] for name, rows in runs.items() if "cannot" in rows[0]}
    runs = {name: rows for name, rows in runs.items() if name not in cannot}
    wall = {name: statistics.median(run["wall"] for run in runs[name]) for name in runs}
    for name in runs:
        if name == "sgemm":
            continue
        rows = runs[name]
        against = wall["reuse cached" if "cached" in name else "reuse"]
        pairs = list(zip(runs["released"], rows, strict=True))
        logits = [(np.array(one["logits"]), np.array(two["logits"])) for one, two in pairs]
        floor = gflop(part, work, cached="cached" in name) / rate
        cells = [
            name, f"{wall[name]:.2f}", f"{min(run['cpu'] for run in rows):.2f}",
            f"{wall['released'] / wall[name]:.2f}", f"{against / wall[name]:.2f}",
            f"{wall[name] / floor:.2f}" if name in ("murank", "murank cached") else "",
            f"{statistics.median(run['loaded'] for run in rows):.2f}",
            f"{statistics.median(run['peak'] - run['loaded'] for run in rows):.2f}",
            f"{max(abs(one - two).max() for one, two in logits):.0e}",
            f"{statistics.mean(rank_correlation(one, two) for one, two in logits):.3f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    for name, why in cannot.items():
        print(f"| {name} | not here: {why} |{' |' * (len(heads) - 2)}")
    prefix = 4 * shapes.kv_values / 2**30
    print(
        f"\nK/V of the prefix: {prefix:.3f} GiB once; {CANDIDATES} copies would be "
        f"{CANDIDATES * prefix:.2f} GiB."
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layout", choices=LAYOUTS, help="one of them (both)")
    parser.add_argument("--skip-int8", action="store_true", help="and w8a16")
    parser.add_argument(
        "--peers", action="store_true", help="OpenVINO, llama.cpp, PyTorch compiled"
    )
    parser.add_argument("--work", type=Path, help="folder for checkpoint and engines (temporary)")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, layout, work, seed = arguments.measure
        measure(name, layout, Path(work), int(seed))
        return
    layouts = [arguments.layout] if arguments.layout else list(LAYOUTS)
    names = ["sgemm", *ROWS, *(() if arguments.skip_int8 else INTEGER_ROWS)]
    names += PEERS if arguments.peers else ()
    precisions = ["fp32", *(() if arguments.skip_int8 else INTEGER)]
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        make_engines(work, layouts, precisions)
        if arguments.peers:
            from llama_cpp_peer import write_files

            write_files(work, layouts)
        for layout in layouts:
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for turn in range(arguments.rounds):
                for name in names:
                    print(f"{layout}: round {turn + 1} {name}", file=sys.stderr)
                    runs[name].append(run_child(name, layout, work, 1000 + turn))
            report(layout, runs, work)


if __name__ == "__main__":
    main()

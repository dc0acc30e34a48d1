"""Does it help? The method's questions, answered on the miniature, several seeds.

    python benchmarks/adaptation.py --work try/miniature --seeds 3

Trains what is missing (benchmarks/miniature/recipe.py; a quarter of an hour for the base, as much a
seed), then tests in domain and on three unseen ones. A seed draws places, people, encoder, mined
pairs and LoRA; the MLLM's base is one for all. Everything is synthetic and small: the figures say
whether the program does what the method promises, not how well it does on real cameras.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from miniature.model import BARE_PROMPT
from miniature.recipe import Recipe, evaluation_world
from numpy.typing import NDArray

import murank_kernels
from murank import Engine
from murank.datasets import load_dataset
from murank.images import prepare
from murank.world import TRAINING, UNSEEN
from murank.world.market import write_world
from murank_kernels import evaluate_rank, smallest_k

DOMAINS = (TRAINING, *UNSEEN)
K, ALPHA = 10, 0.2
KS, ALPHAS = (5, 10, 20, 50), (0.05, 0.1, 0.2, 0.3, 0.5)
Array = NDArray[Any]
# Without top_k these give one matrix [Q,G].
simple: Callable[..., Array] = cast("Any", murank_kernels.simple)
k_reciprocal: Callable[..., Array] = cast("Any", murank_kernels.k_reciprocal)
ecn: Callable[..., Array] = cast("Any", murank_kernels.ecn)
ca_jaccard: Callable[..., Array] = cast("Any", murank_kernels.ca_jaccard)
Score = tuple[float, float]  # mAP and rank-1, percent
Figures = Mapping[str, Mapping[str, Score]]  # by domain and row, of one seed


@dataclass
class Test:
    """One domain as one seed's encoder sees it."""

    paths: Sequence[Path]
    pids: Array
    camids: Array
    num_query: int
    features: Array

    @cached_property
    def candidates(self) -> Array:
        """The nearest gallery images of each query, nearest first: [Q,50]."""
        found: Array = smallest_k(simple(self.features, self.num_query), max(KS))[1]
        return found

    @cached_property
    def neighbours(self) -> Array:
        """The nearest other gallery images of each gallery image: [G,10]."""
        gallery = self.features[self.num_query :]
        distances = simple(np.concatenate([gallery, gallery]), len(gallery)).copy()
        np.fill_diagonal(distances, 9)  # beyond any distance of unit rows: not itself
        found: Array = smallest_k(distances, K)[1]
        return found

    def score(self, distances: Array) -> Score:
        """Evaluate [Q,G]."""
        q = self.num_query
        found = evaluate_rank(
            distances, self.pids[:q], self.pids[q:], self.camids[:q], self.camids[q:]
        )
        return 100 * found.mAP, 100 * float(found.cmc[0])

    def k_reciprocal(self, mu: Array | None = None, k: int = K, **more: Any) -> Score:
        """Evaluate k-reciprocal, with mu of the first k candidates fused."""
        if mu is not None:
            more |= {"mu": mu[:, :k], "candidates": self.candidates[:, :k]}
        return self.score(k_reciprocal(self.features, self.num_query, **more))


def load_test(recipe: Recipe, domain: str, engine: Engine) -> Test:
    """Draw a domain's query and gallery images, and embed them."""
    folder = recipe.work / f"test-{domain}"
    if not folder.exists():
        write_world(folder, evaluation_world(domain, recipe.seed))
    data = load_dataset("market1501", folder)
    labels = (data.query.pids, data.gallery.pids, data.query.camids, data.gallery.camids)
    q_pids, g_pids, q_camids, g_camids = (np.asarray(one) for one in labels)
    paths = [*data.query.paths, *data.gallery.paths]
    return Test(
        paths, np.concatenate([q_pids, g_pids]), np.concatenate([q_camids, g_camids]),
        len(data.query.paths), engine.embed(paths),
    )  # fmt: skip


def ask(engine: Engine, test: Test, k: int, order: Any = "given") -> Array:
    """Mu of the first k candidates: [Q,k]."""
    return _asked(engine, test.paths, test.candidates[:, :k] + test.num_query, 0, order)


def ask_gallery(engine: Engine, test: Test) -> Array:
    """Mu of each gallery image's neighbours: [G,10]."""
    return _asked(engine, test.paths, test.neighbours + test.num_query, test.num_query, "given")


def _asked(engine: Engine, paths: Sequence[Path], rows: Array, first: int, order: Any) -> Array:
    assert engine.scorer is not None
    how = engine.scorer.part.preprocessing
    images = [prepare(path, how) for path in paths]
    parts = [
        engine.mu_many(
            images[first + start : first + start + 50],
            [[images[row] for row in line] for line in rows[start : start + 50].tolist()],
            order=order,
        )
        for start in range(0, len(rows), 50)
    ]
    return np.concatenate(parts)


def measure(recipe: Recipe) -> dict[str, dict[str, Score]]:
    """Return every figure of one seed: domain -> row -> mAP and rank-1."""
    recipe.say(f"seed {recipe.seed}")
    hard = recipe.adapter()
    engines: Mapping[str, Callable[[], Path]] = {
        "hard mining": lambda: recipe.engine(adapter=hard),
        "no LoRA": lambda: recipe.engine("base", adapter=None),
        "random pairs": lambda: recipe.engine(
            "random", adapter=recipe.adapter("random", pairs=recipe.random_pairs)
        ),
        "bare prompt": lambda: recipe.engine(
            "bare", adapter=recipe.adapter("bare", prompt=BARE_PROMPT), prompt=BARE_PROMPT
        ),
        "paper layout": lambda: recipe.engine(
            "paper", adapter=recipe.adapter("paper", layout="paper"), layout="paper"
        ),
        "int8": lambda: recipe.engine(adapter=hard, dtype="int8"),
    }
    loaded = {
        name: Engine.from_pretrained(make(), providers="cpu") for name, make in engines.items()
    }
    main = loaded["hard mining"]
    found: dict[str, dict[str, Score]] = {}
    for domain in DOMAINS:
        recipe.say(f"  {domain}")
        test = load_test(recipe, domain, main)
        mu = ask(main, test, max(KS))
        rows = _main_rows(main, test, mu)
        for name, engine in loaded.items():
            own = mu if engine is main else ask(engine, test, K)
            rows[f"variant: {name}"] = test.k_reciprocal(own)
            rows[f"auc: {name}"] = _auc(test, own[:, :K]), 0.0
        swapped = ask(main, test, K, "swapped")
        rows["variant: swapped order"] = test.k_reciprocal(swapped)
        rows["variant: both orders"] = test.k_reciprocal((mu[:, :K] + swapped) / 2)
        rows |= {f"K: {k}": test.k_reciprocal(mu, k) for k in KS}
        rows |= {f"alpha: {a}": test.k_reciprocal(mu, alpha=a) for a in ALPHAS}
        found[domain] = rows
    return found


def _main_rows(engine: Engine, test: Test, mu: Array) -> dict[str, Score]:
    x, q, cams = test.features, test.num_query, test.camids
    fused = {"mu": mu[:, :K], "candidates": test.candidates[:, :K], "alpha": ALPHA}
    gallery = {
        "gallery_mu": ask_gallery(engine, test), "gallery_candidates": test.neighbours,
    }  # fmt: skip
    random = np.random.default_rng(0)
    shuffled = fused | {"mu": random.permuted(mu[:, :K].ravel()).reshape(mu[:, :K].shape)}
    tower = _tower(engine, test)
    rows = {
        "encoder": simple(x, q), "encoder + mu": simple(x, q, **fused),
        "k-reciprocal": k_reciprocal(x, q), "k-reciprocal + mu": k_reciprocal(x, q, **fused),
        "k-reciprocal + mu, gallery mu": k_reciprocal(x, q, **fused, **gallery),
        "k-reciprocal + shuffled mu": k_reciprocal(x, q, **shuffled),
        "ECN": ecn(x, q), "ECN + mu": ecn(x, q, **fused),
        "CA-Jaccard": ca_jaccard(x, q, cams), "CA-Jaccard + mu": ca_jaccard(x, q, cams, **fused),
        "vision tower": simple(tower, q), "vision tower, k-reciprocal": k_reciprocal(tower, q),
    }  # fmt: skip
    scores = {name: test.score(distances) for name, distances in rows.items()}
    scores["auc: encoder"] = _auc(test, _encoder_distances(test)), 0.0
    return scores


def _encoder_distances(test: Test) -> Array:
    distances = simple(test.features, test.num_query)
    return np.take_along_axis(distances, test.candidates[:, :K], 1)


def _auc(test: Test, mu: Array) -> float:
    """Share of (match, other) pairs among the candidates that mu puts in order, percent.

    Images of the query's person by the query's camera count as neither, as in mAP and rank-1.
    """
    q, candidates = test.num_query, test.candidates[:, :K]
    same = test.pids[q:][candidates] == test.pids[:q, None]
    same_camera = test.camids[q:][candidates] == test.camids[:q, None]
    ours, others = mu[same & ~same_camera], np.sort(mu[~same])
    below = np.searchsorted(others, ours, "left") + np.searchsorted(others, ours, "right")
    return float(100 * (1 - below.mean() / 2 / len(others)))


def _tower(engine: Engine, test: Test) -> Array:
    """Features from the MLLM's own vision tokens: what its eyes alone can tell."""
    assert engine.scorer is not None
    how = engine.scorer.part.preprocessing
    tokens = [
        engine.scorer.vision.of(
            [prepare(path, how).pixels for path in test.paths[start : start + 64]]
        )
        for start in range(0, len(test.paths), 64)
    ]
    rows = np.concatenate(tokens).reshape(len(test.paths), -1).astype(np.float32)
    centred: Array = rows - rows.mean(axis=0)
    return centred


def report(seeds: Sequence[Figures]) -> str:
    """Return the tables: mean over seeds, and half of the range over seeds."""
    names = list(seeds[0][DOMAINS[0]])
    main = [name for name in names if ":" not in name]

    def kind(prefix: str) -> dict[str, str]:
        return {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}

    fused = {name: f"{name} + mu" for name in ("encoder", "k-reciprocal", "ECN", "CA-Jaccard")}
    gallery = {"k-reciprocal, with gallery mu": "k-reciprocal + mu, gallery mu"}
    plain = {name: name for name in fused} | {next(iter(gallery)): "k-reciprocal"}
    parts = {
        f"mAP / rank-1 in percent, mean of {len(seeds)} seeds": _table(
            {name: _values(seeds, name) for name in main}
        ),
        "what mu adds to each, paired by seed": _table(
            {name: _gains(seeds, row, plain[name]) for name, row in (fused | gallery).items()}
        ),
        "what mu adds to k-reciprocal, by variant": _table(
            {name: _gains(seeds, row) for name, row in kind("variant: ").items()}
        ),
        f"what it adds by the number of candidates asked (alpha {ALPHA})": _table(
            {name: _gains(seeds, row) for name, row in kind("K: ").items()}
        ),
        f"what it adds by alpha (K = {K})": _table(
            {name: _gains(seeds, row) for name, row in kind("alpha: ").items()}
        ),
        f"AUC of match against other among the {K} candidates, percent": _table(
            {name: _values(seeds, row, parts=1) for name, row in kind("auc: ").items()}
        ),
    }
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in parts.items())


def _values(seeds: Sequence[Figures], row: str, parts: int = 2) -> Mapping[str, list[str]]:
    """Cells of a row: figures themselves."""
    found = {d: np.array([seed[d][row] for seed in seeds])[:, :parts] for d in DOMAINS}
    return {domain: [_cell(column) for column in values.T] for domain, values in found.items()}


def _gains(
    seeds: Sequence[Figures], row: str, before: str = "k-reciprocal"
) -> Mapping[str, list[str]]:
    """Cells of a row: what it has more than another, seed by seed."""
    found = {d: [np.subtract(seed[d][row], seed[d][before]) for seed in seeds] for d in DOMAINS}
    return {
        domain: [_cell(column, "+") for column in np.array(gains).T]
        for domain, gains in found.items()
    }


def _table(rows: Mapping[str, Mapping[str, list[str]]]) -> str:
    lines = ["|  | " + " | ".join(_heading(domain) for domain in DOMAINS) + " |"]
    lines.append("|---|" + "---:|" * len(DOMAINS))
    for name, cells in rows.items():
        lines.append(f"| {name} | " + " | ".join(" / ".join(c) for c in cells.values()) + " |")
    return "\n".join(lines)


def _heading(domain: str) -> str:
    return f"{domain} (in domain)" if domain == TRAINING else domain


def _cell(values: Array, sign: str = "") -> str:
    half = (values.max() - values.min()) / 2
    return f"{values.mean():{sign}.1f} ±{half:.1f}"


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("try/miniature"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    found = []
    for seed in range(arguments.seeds):
        recipe = Recipe(arguments.work / f"seed-{seed}", seed)
        file = recipe.work / "adaptation.json"
        if not file.exists():
            file.write_text(json.dumps(measure(recipe), indent=1) + "\n")
        found.append(json.loads(file.read_text()))
    print(report(found))


if __name__ == "__main__":
    main()

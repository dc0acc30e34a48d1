"""Does it help? The method's questions, answered on the miniature, several seeds.

    python benchmarks/adaptation.py --work try/miniature --seeds 3
    python benchmarks/adaptation.py --work try/miniature --seeds 3 --validation

Trains what is missing (benchmarks/miniature/recipe.py; two CPU hours for the base, a quarter of
one a seed), then tests in domain and on three unseen ones. A seed draws places, people, encoder,
mined pairs and LoRA; the MLLM's base is one for all. Features are aligned to cameras as murank does
by default, and candidates are the nearest of aligned features. Everything is synthetic and small:
the figures say whether the program does what the method promises, not how well it does on real
cameras.
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
from murank import Engine, FeatureSet, MuDistances
from murank.datasets import load_dataset
from murank.images import prepare
from murank.rerank.mu_auc import cosine_distances, told_among_candidates
from murank_export.world import TRAINING, UNSEEN
from murank_export.world.market import write_world
from murank_kernels import align_cameras, evaluate_rank, smallest_k

DOMAINS = (TRAINING, *UNSEEN)
K, ALPHA = 10, 0.2
_MEAN = "mean of the unseen"
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
    raw: Array  # features as the encoder gives them

    @cached_property
    def features(self) -> Array:
        """Aligned to the cameras, as `murank rerank` does."""
        return self.aligned(self.raw)

    def aligned(self, rows: Array) -> Array:
        """Fit on the gallery, and align all rows [N,D]."""
        dims = max(rows.shape[1] // 4, 128)
        found: Array = align_cameras(rows, self.camids, num_query=self.num_query, dims=dims)
        return found

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
        "hard pairs of features as they are": lambda: recipe.engine(
            "unaligned", adapter=recipe.adapter("unaligned", pairs=recipe.unaligned_pairs)
        ),
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
        "w8a16": lambda: recipe.engine(adapter=hard, dtype="w8a16"),
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
            rows[f"auc: {name}"] = _opinion(test, own[:, :K])
        swapped = ask(main, test, K, "swapped")
        for name, own in ("swapped order", swapped), ("both orders", (mu[:, :K] + swapped) / 2):
            rows[f"variant: {name}"] = test.k_reciprocal(own)
            rows[f"auc: {name}"] = _opinion(test, own)
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
        "encoder as it is": simple(test.raw, q), "encoder": simple(x, q),
        "encoder + mu": simple(x, q, **fused),
        "k-reciprocal": k_reciprocal(x, q), "k-reciprocal + mu": k_reciprocal(x, q, **fused),
        "k-reciprocal + mu, gallery mu": k_reciprocal(x, q, **fused, **gallery),
        "k-reciprocal + shuffled mu": k_reciprocal(x, q, **shuffled),
        "ECN": ecn(x, q), "ECN + mu": ecn(x, q, **fused),
        "CA-Jaccard": ca_jaccard(x, q, cams), "CA-Jaccard + mu": ca_jaccard(x, q, cams, **fused),
        "vision tower": simple(tower, q), "vision tower, k-reciprocal": k_reciprocal(tower, q),
    }  # fmt: skip
    scores = {name: test.score(distances) for name, distances in rows.items()}
    scores["auc: encoder"] = _opinion(test, _encoder_distances(test))
    scores["auc: vision tower"] = _opinion(test, _distances(tower, test))
    return scores


def _encoder_distances(test: Test) -> Array:
    return _distances(test.features, test)


def _distances(features: Array, test: Test) -> Array:
    """From each query to its candidates: [Q,10]."""
    candidates = test.candidates[:, :K] + test.num_query
    query = np.repeat(np.arange(test.num_query), K)
    return cosine_distances(features, query, candidates.ravel()).reshape(candidates.shape)


def _opinion(test: Test, mu: Array) -> Score:
    """AUC of a match against another among all candidates; and where the encoder is wrong; percent.

    The latter: of a query's (match, other) pairs that the aligned encoder puts in the wrong order,
    the share that mu puts right. Images of the query's person by the query's camera count as
    neither, as in mAP and rank-1.
    """
    features = FeatureSet(
        test.features, np.array([str(path) for path in test.paths]), test.pids, test.camids,
        test.num_query,
    )  # fmt: skip
    assert features.labels is not None
    asked = MuDistances(mu, test.candidates[:, :K])
    told = told_among_candidates(asked, features.labels, features, None)
    assert told is not None
    assert told.within is not None
    assert told.within.mu_right_there is not None
    return 100 * told.mu, 100 * told.within.mu_right_there


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
    return test.aligned(np.concatenate(tokens).reshape(len(test.paths), -1).astype(np.float32))


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
        f"AUC of match against other among the {K} candidates / share of the pairs that the "
        "aligned encoder puts in the wrong order and this in the right one, percent": _table(
            {name: _values(seeds, row) for name, row in kind("auc: ").items()}
        ),
    }
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in parts.items())


def _values(seeds: Sequence[Figures], row: str) -> Mapping[str, list[str]]:
    """Cells of a row: figures themselves."""
    return _cells({d: np.array([seed[d][row] for seed in seeds]) for d in DOMAINS})


def _gains(
    seeds: Sequence[Figures], row: str, before: str = "k-reciprocal"
) -> Mapping[str, list[str]]:
    """Cells of a row: what it has more than another, seed by seed."""
    gains = {d: np.array([np.subtract(s[d][row], s[d][before]) for s in seeds]) for d in DOMAINS}
    return _cells(gains, "+")


def _cells(figures: Mapping[str, Array], sign: str = "") -> Mapping[str, list[str]]:
    """Of figures [S,2] of each domain, and of their mean over the unseen ones."""
    unseen = np.mean([figures[domain] for domain in UNSEEN], axis=0)
    found = {**figures, _MEAN: unseen}
    return {name: [_cell(column, sign) for column in rows.T] for name, rows in found.items()}


def _table(rows: Mapping[str, Mapping[str, list[str]]]) -> str:
    columns = (*DOMAINS, _MEAN)
    lines = ["|  | " + " | ".join(_heading(name) for name in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for name, cells in rows.items():
        lines.append(f"| {name} | " + " | ".join(" / ".join(cells[c]) for c in columns) + " |")
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
    parser.add_argument(
        "--validation", action="store_true",
        help="alpha, K and order, chosen on places that are not the tests', instead",
    )  # fmt: skip
    arguments = parser.parse_args()
    recipes = [Recipe(arguments.work / f"seed-{seed}", seed) for seed in range(arguments.seeds)]
    if arguments.validation:
        from adaptation_settings import report as settings_report
        from adaptation_settings import settings_of

        print(settings_report([settings_of(recipe) for recipe in recipes]))
        return
    found = []
    for recipe in recipes:
        file = recipe.work / "adaptation.json"
        if not file.exists():
            file.write_text(json.dumps(measure(recipe), indent=1) + "\n")
        found.append(json.loads(file.read_text()))
    print(report(found))


if __name__ == "__main__":
    main()

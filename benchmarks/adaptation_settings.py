"""Alpha, the candidates asked, their order and calibration: chosen where no test is made.

`python benchmarks/adaptation.py --validation` prints it: what each setting adds to aligned
k-reciprocal on three `broad` places beyond the pool, of other people; and what the method's and the
best of one order then add on the test domains. Calibrated mu has the temperature that
`murank calibrate` finds on the adapter's validation pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from adaptation import ALPHA, DOMAINS, KS, Array, K, Score, ask, load_test
from drawn_places import told
from miniature.recipe import HELD_DOMAINS, POOL_DOMAINS, Recipe

from murank import Engine
from murank.engine.scorer import mu_of
from murank_export.world import UNSEEN

VALIDATION = tuple(f"broad-{POOL_DOMAINS + 2 * HELD_DOMAINS + place}" for place in range(3))
ORDERS = ("given", "swapped", "both")
CALIBRATED = "given, calibrated"
ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
Setting = tuple[str, int, float]  # order, K, alpha
ONE_ORDER: Sequence[Setting] = (
    *product(ORDERS[:1], KS, ALPHAS), *product((CALIBRATED,), (K,), ALPHAS),
)  # fmt: skip
SETTINGS: Sequence[Setting] = (*ONE_ORDER, *product(ORDERS[1:], KS, ALPHAS))
THE_METHODS: Setting = ("given", K, ALPHA)
_WITHOUT = "without mu"
Figures = Mapping[str, Mapping[str, Score]]  # by domain and setting, of one seed


def settings_of(recipe: Recipe) -> Figures:
    """Measure what is missing; a file keeps a domain's figures as soon as they are there."""
    file = recipe.work / "settings.json"
    found: dict[str, dict[str, Score]] = json.loads(file.read_text()) if file.exists() else {}
    for domain in (*VALIDATION, *DOMAINS):
        rows = found.setdefault(domain, {})
        wanted = SETTINGS if domain in VALIDATION else ONE_ORDER
        missing = [one for one in wanted if _name(one) not in rows]
        if missing:
            recipe.say(f"seed {recipe.seed}, {domain}: {len(missing)} settings")
            rows |= _measure(recipe, domain, missing)
            file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _measure(recipe: Recipe, domain: str, settings: Sequence[Setting]) -> dict[str, Score]:
    folder = recipe.engine(adapter=recipe.adapter())
    engine = Engine.from_pretrained(folder, providers="cpu")
    test = load_test(recipe, domain, engine)
    most = {order: max(k for one, k, _ in settings if one == order) for order, _, _ in settings}

    @cache
    def mu(order: str) -> Array:
        if order == CALIBRATED:
            return calibrated(mu("given"), _temperature(folder, recipe.pairs / "val.json"))
        if order == "both":
            found: Array = (mu("given") + mu("swapped")) / 2
            return found
        return ask(engine, test, max(most.values()), order)

    rows = {_WITHOUT: test.k_reciprocal()}
    for order, k, alpha in settings:
        rows[_name((order, k, alpha))] = test.k_reciprocal(mu(order), k, alpha=alpha)
    return rows


def calibrated(mu: Array, temperature: float) -> Array:
    """Return mu as an engine of that temperature gives it."""
    exact = mu.astype(np.float64)
    with np.errstate(divide="ignore"):
        return mu_of((np.log(exact) - np.log1p(-exact)) / temperature)


@cache
def _temperature(engine: Path, pairs: Path) -> float:
    found = told("calibrate", engine, "--pairs", pairs, "--providers", "cpu", "--dry-run")
    return float(found["temperature"])


def report(seeds: Sequence[Figures]) -> str:
    """Return the tables: gains in mAP and rank-1, means of seeds and domains."""
    lines = [_heading([f"alpha {alpha:g}" for alpha in ALPHAS])]
    for order, k in dict.fromkeys((order, k) for order, k, _ in SETTINGS):
        cells = [_cell(_gains(seeds, (order, k, alpha), VALIDATION)) for alpha in ALPHAS]
        lines.append(f"| {order}, K = {k} | {' | '.join(cells)} |")
    rows = {
        "the method's": THE_METHODS,
        "the method's, alpha chosen": chosen(seeds, product(("given",), (K,), ALPHAS)),
        "calibrated, alpha the method's": (CALIBRATED, K, ALPHA),
        "calibrated, alpha chosen": chosen(seeds, product((CALIBRATED,), (K,), ALPHAS)),
        "best of one order": chosen(seeds, ONE_ORDER),
    }
    where = {"validation": VALIDATION, **{one: (one,) for one in DOMAINS}, "the unseen": UNSEEN}
    brought = [_heading(list(where))]
    for name, setting in rows.items():
        cells = [_cell(_gains(seeds, setting, domains)) for domains in where.values()]
        brought.append(f"| {name}: {_shown(setting)} | {' | '.join(cells)} |")
    title = (
        f"what mu adds to k-reciprocal, mAP / rank-1, mean of {len(seeds)} seeds, on "
        f"{', '.join(VALIDATION)}; best: {_shown(chosen(seeds))}"
    )
    elsewhere = "what settings chosen there add elsewhere"
    parts = {title: lines, elsewhere: brought}
    return "\n\n".join(f"**{name}**\n\n" + "\n".join(part) for name, part in parts.items())


def chosen(seeds: Sequence[Figures], among: Iterable[Setting] = SETTINGS) -> Setting:
    """Return the setting of the highest mAP on the validation domains; of equals the first."""
    return max(among, key=lambda one: float(_gains(seeds, one, VALIDATION)[:, 0].mean()))


def _gains(seeds: Sequence[Figures], setting: Setting, domains: Sequence[str]) -> Array:
    """By seed, [S,2]: means over the domains."""
    name = _name(setting)
    found: Array = np.array(
        [[np.subtract(one[d][name], one[d][_WITHOUT]) for d in domains] for one in seeds]
    ).mean(axis=1)
    return found


def _cell(gains: Array) -> str:
    return " / ".join(f"{value:+.1f}" for value in gains.mean(axis=0))


def _heading(columns: Sequence[str]) -> str:
    return f"|  | {' | '.join(columns)} |\n|---|" + "---:|" * len(columns)


def _name(setting: Setting) -> str:
    return "{} {} {:g}".format(*setting)


def _shown(setting: Setting) -> str:
    return "order {}, K = {}, alpha {:g}".format(*setting)

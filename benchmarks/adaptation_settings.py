"""Alpha, the candidates asked and their order: chosen on domains that are not the tests'.

`python benchmarks/adaptation.py --validation` prints it: what each setting adds to aligned
k-reciprocal on three `broad` places beyond the pool, of other people; and what the best of them,
and the method's, then add on the test domains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from adaptation import ALPHA, DOMAINS, KS, Array, K, Score, ask, load_test
from miniature.recipe import HELD_DOMAINS, POOL_DOMAINS, Recipe

from murank import Engine
from murank_export.world import UNSEEN

VALIDATION = tuple(f"broad-{POOL_DOMAINS + 2 * HELD_DOMAINS + place}" for place in range(3))
ORDERS = ("given", "swapped", "both")
ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
Setting = tuple[str, int, float]  # order, K, alpha
SETTINGS: Sequence[Setting] = tuple(product(ORDERS, KS, ALPHAS))
THE_METHODS: Setting = ("given", K, ALPHA)
_WITHOUT = "without mu"
Figures = Mapping[str, Mapping[str, Score]]  # by domain and setting, of one seed


def settings_of(recipe: Recipe) -> Figures:
    """Measure what is missing; a file keeps a domain's figures as soon as they are there."""
    file = recipe.work / "settings.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    missing = [domain for domain in (*VALIDATION, *DOMAINS) if domain not in found]
    if missing:
        engine = Engine.from_pretrained(recipe.engine(adapter=recipe.adapter()), providers="cpu")
    for domain in missing:
        recipe.say(f"seed {recipe.seed}, {domain}: every alpha, K and order")
        found[domain] = _measure(recipe, domain, engine)
        file.write_text(json.dumps(found, indent=1) + "\n")
    return dict(found)


def _measure(recipe: Recipe, domain: str, engine: Engine) -> dict[str, Score]:
    test = load_test(recipe, domain, engine)
    given, swapped = ask(engine, test, max(KS)), ask(engine, test, max(KS), "swapped")
    mu = dict(zip(ORDERS, (given, swapped, (given + swapped) / 2), strict=True))
    rows = {_WITHOUT: test.k_reciprocal()}
    for order, k, alpha in SETTINGS:
        rows[_name((order, k, alpha))] = test.k_reciprocal(mu[order], k, alpha=alpha)
    return rows


def report(seeds: Sequence[Figures]) -> str:
    """Return the tables: gains in mAP and rank-1, means of seeds and domains."""
    best = chosen(seeds)
    lines = [_heading([f"alpha {alpha:g}" for alpha in ALPHAS])]
    for order, k in product(ORDERS, KS):
        cells = [_cell(_gains(seeds, (order, k, alpha), VALIDATION)) for alpha in ALPHAS]
        lines.append(f"| {order}, K = {k} | {' | '.join(cells)} |")
    one_order = chosen(seeds, ORDERS[:1])
    few = chosen(seeds, ORDERS[:1], (K,))
    rows = {"the method's": THE_METHODS, "best": best, "best of one order": one_order}
    rows[f"best of one order and K = {K}"] = few
    where = {"validation": VALIDATION, **{one: (one,) for one in DOMAINS}, "the unseen": UNSEEN}
    brought = [_heading(list(where))]
    for name, setting in rows.items():
        cells = [_cell(_gains(seeds, setting, domains)) for domains in where.values()]
        brought.append(f"| {name}: {_shown(setting)} | {' | '.join(cells)} |")
    title = f"what mu adds to k-reciprocal, mAP / rank-1, mean of {len(seeds)} seeds"
    return "\n\n".join(
        (f"**{title}, on {', '.join(VALIDATION)}**", "\n".join(lines),
         "**what the settings chosen there add elsewhere**", "\n".join(brought))
    )  # fmt: skip


def chosen(
    seeds: Sequence[Figures], orders: Sequence[str] = ORDERS, ks: Sequence[int] = KS
) -> Setting:
    """Return the setting of the highest mAP on the validation domains; of equals the first."""
    asked = [one for one in SETTINGS if one[0] in orders and one[1] in ks]
    return max(asked, key=lambda one: float(_gains(seeds, one, VALIDATION)[:, 0].mean()))


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

"""Person re-identification on unseen cameras: engine, feature sets, mu-distances, rankings.

What is offered is imported at its first use: the command line starts before anything heavy does,
and before the command has it in hand, a signal ends the process in Python's own way.
"""

import importlib

from murank._version import __version__
from murank.machine.telemetry import switch_off as _switch_telemetry_off

TYPE_CHECKING = False  # as typing has it, which takes its time to import
if TYPE_CHECKING:
    from murank._exceptions import (
        Closed,
        InputError,
        InvalidRunError,
        MachineError,
        MurankError,
        OutputError,
        Overloaded,
        ParityError,
        RegressionError,
        UsageError,
        UserError,
    )
    from murank.datasets.labels import Labels
    from murank.engine.engine import Engine
    from murank.engine.results import Match, Ranked
    from murank.gallery import Gallery, GallerySearchResult
    from murank.rerank.features import FeatureSet, Items, load_features, save_features
    from murank.rerank.ivf import IvfSearch
    from murank.rerank.mu import MuDistances, load_mu
    from murank.rerank.ranking import Ranking, load_ranking, write_ranking
    from murank.rerank.truncated import TruncatedEvaluation, evaluate_truncated
    from murank.search import Searcher, SearchResult
    from murank.worker import Worker

_switch_telemetry_off()

__all__ = [
    "Closed",
    "Engine",
    "FeatureSet",
    "Gallery",
    "GallerySearchResult",
    "InputError",
    "InvalidRunError",
    "Items",
    "IvfSearch",
    "Labels",
    "MachineError",
    "Match",
    "MuDistances",
    "MurankError",
    "OutputError",
    "Overloaded",
    "ParityError",
    "Ranked",
    "Ranking",
    "RegressionError",
    "SearchResult",
    "Searcher",
    "TruncatedEvaluation",
    "UsageError",
    "UserError",
    "Worker",
    "__version__",
    "evaluate_truncated",
    "load_features",
    "load_mu",
    "load_ranking",
    "save_features",
    "write_ranking",
]

_HOMES = {
    "_exceptions": (
        "Closed", "InputError", "InvalidRunError", "MachineError", "MurankError", "OutputError",
        "Overloaded", "ParityError", "RegressionError", "UsageError", "UserError",
    ),
    "rerank.features": ("FeatureSet", "Items", "load_features", "save_features"),
    "datasets.labels": ("Labels",),
    "rerank.ivf": ("IvfSearch",),
    "rerank.mu": ("MuDistances", "load_mu"),
    "rerank.ranking": ("Ranking", "load_ranking", "write_ranking"),
    "rerank.truncated": ("TruncatedEvaluation", "evaluate_truncated"),
    "engine.engine": ("Engine",),
    "engine.results": ("Match", "Ranked"),
    "search": ("SearchResult", "Searcher"),
    "gallery": ("Gallery", "GallerySearchResult"),
    "worker": ("Worker",),
}  # fmt: skip


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(importlib.import_module(f"murank.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

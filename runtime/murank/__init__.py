"""Person re-identification on unseen cameras: engine, feature sets, mu-distances, rankings."""

from murank._exceptions import (
    InputError,
    MachineError,
    MurankError,
    OutputError,
    ParityError,
    RegressionError,
    UsageError,
    UserError,
)
from murank._features import FeatureSet, Items, load_features, save_features
from murank._labels import Labels
from murank._mu import MuDistances, load_mu
from murank._ranking import Ranking, load_ranking, write_ranking
from murank._telemetry import switch_off as _switch_telemetry_off
from murank._truncated import TruncatedEvaluation, evaluate_truncated
from murank._version import __version__
from murank.engine.engine import Engine
from murank.engine.ranked import CandidateMatch, Ranked
from murank.search import Searcher, SearchMatch, SearchResult

_switch_telemetry_off()

__all__ = [
    "CandidateMatch",
    "Engine",
    "FeatureSet",
    "InputError",
    "Items",
    "Labels",
    "MachineError",
    "MuDistances",
    "MurankError",
    "OutputError",
    "ParityError",
    "Ranked",
    "Ranking",
    "RegressionError",
    "SearchMatch",
    "SearchResult",
    "Searcher",
    "TruncatedEvaluation",
    "UsageError",
    "UserError",
    "__version__",
    "evaluate_truncated",
    "load_features",
    "load_mu",
    "load_ranking",
    "save_features",
    "write_ranking",
]

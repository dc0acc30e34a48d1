"""How a searcher ranks: its method, the parameters of it, and which of them go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from murank._exceptions import InputError
from murank.images.arguments import check_whole
from murank.rerank.methods import METHODS

SearchMethod = Literal["k-reciprocal", "ca-jaccard", "simple", "none"]
SEARCH_METHODS: tuple[SearchMethod, ...] = get_args(SearchMethod)
DEFAULT_CANDIDATES = 20


@dataclass(frozen=True)
class SearchSettings:
    """Raises InputError where they do not go together, or do not fit gallery and engine."""

    method: SearchMethod
    candidates: int | None  # asked for; None: the default, or the whole of a small gallery
    parameters: Mapping[str, Any]  # those given; the others keep the kernel's defaults
    settle_top: int | None
    num_gallery: int
    has_scorer: bool
    has_camids: bool = False  # of the gallery
    shortlist: int | None = None  # asked for; None: the kernels' default

    def __post_init__(self) -> None:
        if not self.num_gallery:
            raise InputError("the gallery has no image")
        if not isinstance(self.method, str) or self.method not in SEARCH_METHODS:
            raise InputError(
                f"method must be one of {', '.join(SEARCH_METHODS)}, got {self.method!r}: ECN "
                "looks at all queries together (murank rerank)"
            )
        if METHODS[self.method].needs_mu and not self.has_scorer:
            raise InputError(
                f"method {self.method!r} fuses mu-distances, and this engine has no MLLM loaded: "
                "pass method='none', or run murank export with --mllm"
            )
        if METHODS[self.method].needs_camids and not self.has_camids:
            raise InputError(
                f"method {self.method!r} looks at cameras: pass the gallery's camids, or another "
                "method"
            )
        if self.shortlist is not None:
            check_whole(self.shortlist, "shortlist")
            if self.method != "ca-jaccard":
                raise InputError(f"shortlist is of 'ca-jaccard', and method is {self.method!r}")
        self._check_candidates()
        self._check_parameters()
        self._check_settle_top()

    @property
    def num_candidates(self) -> int:
        """Candidates of a query that the MLLM is asked about, K."""
        if not (self.has_scorer and METHODS[self.method].takes_mu):
            return 0
        if self.candidates is None:
            return min(DEFAULT_CANDIDATES, self.num_gallery)
        return self.candidates

    @property
    def is_reranked(self) -> bool:
        """Whether neighbours have a say, and not the fused distance alone."""
        return bool(METHODS[self.method].parameters)

    @property
    def alpha(self) -> float:
        """Weight of mu on the candidates."""
        return float(self.parameters.get("alpha", 0.2))

    def _check_candidates(self) -> None:
        if self.candidates is None:
            return
        check_whole(self.candidates, "candidates")
        if self.candidates > self.num_gallery:
            raise InputError(
                f"{self.candidates} candidates a query asked for, but the gallery has "
                f"{self.num_gallery} images: ask for at most as many"
            )

    def _check_parameters(self) -> None:
        if not isinstance(self.parameters, Mapping):
            raise InputError(f"parameters must be a mapping, got {type(self.parameters).__name__}")
        method = METHODS[self.method]
        known = [*method.parameters, *(["alpha"] if method.takes_mu and self.has_scorer else [])]
        unknown = sorted(set(self.parameters) - set(known))
        if unknown:
            only = f"it has {', '.join(known)}" if known else "it has none"
            why = "" if self.has_scorer else " without an MLLM"
            raise InputError(
                f"method {self.method!r} has no parameter {', '.join(unknown)}{why}: {only}"
            )

    def _check_settle_top(self) -> None:
        if self.settle_top is None:
            return
        if self.method != "simple":
            raise InputError(
                f"settle_top needs method='simple', not {self.method!r}: there a candidate's mu "
                "moves that candidate alone; with neighbour lists the last mu can still reorder "
                "the first ranks"
            )
        check_whole(self.settle_top, "settle_top")

"""The re-ranking methods, and the bridge to the kernels (imported at the first call)."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from murank._exceptions import InputError, MachineError
from murank.files.mapped import let_go
from murank.rerank.features import FeatureSet
from murank.rerank.mu import MuDistances

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Method:
    """How one method is called."""

    function: str  # of murank_kernels; returns blocks of distances
    parameters: tuple[str, ...]  # keywords a user may set
    takes_mu: bool = True
    takes_gallery_mu: bool = True  # distances between gallery images have a say
    needs_mu: bool = False
    needs_camids: bool = False
    has_neighbors: bool = True  # it begins with a search for those of all rows


METHODS: Mapping[str, Method] = {
    "k-reciprocal": Method("k_reciprocal_blocks", ("k1", "k2", "lambda_value", "squared")),
    "ecn": Method("ecn_blocks", ("k", "t", "q", "method")),
    "ca-jaccard": Method(
        "ca_jaccard_blocks",
        ("k1", "k2", "k1_intra", "k1_inter", "k2_intra", "k2_inter", "ckrnns", "clqe",
         "lambda_value"),
        needs_camids=True,
    ),
    "simple": Method(
        "simple_blocks", (), takes_gallery_mu=False, needs_mu=True, has_neighbors=False
    ),
    "none": Method(
        "simple_blocks", (), takes_mu=False, takes_gallery_mu=False, has_neighbors=False
    ),
}  # fmt: skip


@contextmanager
def kernel_errors() -> Iterator[None]:
    """Turn what the kernels refuse into errors of this package."""
    from murank_kernels import DeviceUnavailableError, InvalidInputError

    try:
        yield
    except InvalidInputError as error:
        raise InputError(str(error)) from error
    except DeviceUnavailableError as error:
        raise MachineError(str(error)) from error


def distance_blocks(
    name: str,
    features: FeatureSet,
    mu: MuDistances | None = None,
    *,
    gallery_mu: MuDistances | None = None,
    device: str = "cpu",
    search: Any = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> Any:
    """Return the kernels' `DistanceBlocks` of a method; bad arguments raise before any work.

    `gallery_mu` is mu between gallery images, [G,M], for methods that take it; `search` finds the
    neighbours of all rows, for methods that have them.
    """
    method = METHODS[name]
    arguments = [features.features, features.num_query]
    if method.needs_camids:
        if features.camids is None:
            raise InputError(f"{name} needs camids, and the features have none")
        arguments.append(features.camids)
    if mu is not None:
        parameters |= {"mu": mu.mu, "candidates": mu.candidates}
    if gallery_mu is not None:
        parameters |= {
            "gallery_mu": gallery_mu.mu, "gallery_candidates": gallery_mu.candidates
        }  # fmt: skip
    if search is not None and method.has_neighbors:
        parameters["search"] = search
    with kernel_errors():
        blocks = _function(method)(*arguments, device=device, progress=progress, **parameters)
    let_go(features.features)  # the kernels have copied them
    return blocks


def used_parameters(name: str, given: Mapping[str, object], *, with_mu: bool) -> dict[str, object]:
    """Return every parameter of a method with the value it has: given or the kernels' own."""
    method = METHODS[name]
    defaults = inspect.signature(_function(method)).parameters
    names = [*method.parameters, *(["alpha"] if with_mu else []), "normalize", "device"]
    return {key: given.get(key, defaults[key].default) for key in names}


def _function(method: Method) -> Callable[..., Any]:
    import murank_kernels

    function: Callable[..., Any] = getattr(murank_kernels, method.function)
    return function

from typing import Literal

import numpy as np
import pytest
from golden_data import check_close, golden, main_case, tiny_case

from murank_kernels import ecn


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", ["plain", "mu"])
@pytest.mark.parametrize("method", ["rankdist", "origdist"])
def test_golden(method: Literal["rankdist", "origdist"], kind: str, normalize: bool) -> None:
    case = main_case()
    fusion = case.fusion if kind == "mu" else {}
    actual = ecn(case.features, case.num_query, method=method, normalize=normalize, **fusion)
    check_close(actual, golden("main_ecn")[f"dist_{method}_{kind}"])


@pytest.mark.parametrize("method", ["rankdist", "origdist"])
def test_tiny(method: Literal["rankdist", "origdist"]) -> None:
    case = tiny_case()
    actual = ecn(case.features, case.num_query, k=4, t=2, q=2, method=method)
    check_close(actual, golden("tiny12")[f"ecn_{method}_k4_t2_q2"])


def test_pairs_without_agreement_keep_their_distance() -> None:
    case = main_case()
    actual = ecn(case.features, case.num_query)
    assert (np.asarray(actual) > 0).sum() == golden("main_ecn")["zero_overlap_pairs_rankdist_plain"]

import numpy as np
import pytest
from dense_reference import ref_ca_jaccard, ref_k_reciprocal
from golden_data import check_close, degenerate_case, golden, main_case

from murank_kernels import ca_jaccard


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", ["plain", "mu"])
@pytest.mark.parametrize("clqe", [False, True])
@pytest.mark.parametrize("ckrnns", [False, True])
def test_golden(ckrnns: bool, clqe: bool, kind: str, normalize: bool) -> None:
    case = main_case()
    fusion = case.fusion if kind == "mu" else {}
    actual = ca_jaccard(
        case.features,
        case.num_query,
        case.camids,
        ckrnns=ckrnns,
        clqe=clqe,
        normalize=normalize,
        **fusion,
    )
    check_close(actual, golden("main_caj")[f"dist_ck{ckrnns:d}_clqe{clqe:d}_{kind}"])


def test_without_camera_terms_it_is_k_reciprocal() -> None:
    case = main_case()
    actual = ca_jaccard(case.features, case.num_query, case.camids, ckrnns=False, k1=7, k2=1)
    check_close(actual, ref_k_reciprocal(case.features, case.num_query, k1=7, k2=1))


def test_k2_of_one_is_no_expansion() -> None:
    """A twin's first neighbour is the other twin: the mean over one row would swap them."""
    case = degenerate_case("grid")
    actual = ca_jaccard(case.features, case.num_query, case.camids, k2=1, normalize=False)
    check_close(actual, ref_ca_jaccard(case.features, case.num_query, case.camids, k2=1))


def test_cameras_are_names_not_numbers() -> None:
    case = main_case()
    renamed = (3 - case.camids) * 10**12
    first = ca_jaccard(case.features, case.num_query, case.camids)
    second = ca_jaccard(case.features, case.num_query, renamed)
    np.testing.assert_array_equal(first, second)

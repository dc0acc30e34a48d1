"""bfloat16 of NumPy's own, against another implementation; and values of it on the fake GPU."""

import numpy as np
import pytest
from numpy.typing import NDArray
from trt_fakes import FakeGpu

from murank.backends.trt.arrays import put
from murank.backends.trt.bfloat16 import BFLOAT16, to_bfloat16, to_float32, type_name

SPECIAL = [
    0.0, -0.0, np.inf, -np.inf, 1.0, 3.4028235e38, -3.4e38, 1e-45, 1.17549435e-38, 65504.0,
    1.00390625, 1.01171875,  # ties: to the even below, to the even above
]  # fmt: skip


def bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    return to_bfloat16(array).view(np.uint16)


def test_rounding_agrees_with_another_implementation() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    random = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint32).view(np.float32)
    values = np.concatenate([random[~np.isnan(random)], np.array(SPECIAL, np.float32)])
    wanted = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(bits(values), wanted)


def test_ties_go_to_even_and_what_is_too_large_to_infinity() -> None:
    found = bits(np.array([1 + 1 / 256, 1 + 3 / 256, 3.4028235e38], np.float32))
    assert [hex(int(one)) for one in found] == ["0x3f80", "0x3f82", "0x7f80"]


def test_no_nan_becomes_a_number() -> None:
    every = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF80FFFF], np.uint32)
    back = to_float32(to_bfloat16(every.view(np.float32)))
    assert np.isnan(back).all()
    assert np.signbit(back).tolist() == [False, False, True, True]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (4, 0, 2)])
def test_what_it_can_hold_comes_back(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(-128, 128, shape).astype(np.float32)
    there = to_bfloat16(values)
    assert (there.dtype, there.shape, there.nbytes) == (BFLOAT16, shape, 2 * values.size)
    np.testing.assert_array_equal(to_float32(there), values)
    turned = values.T
    np.testing.assert_array_equal(to_float32(to_bfloat16(turned)), turned)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_types_are_not_taken(dtype: type) -> None:
    with pytest.raises(TypeError, match="float32 becomes bfloat16"):
        to_bfloat16(np.zeros(2, dtype))


def test_names() -> None:
    assert type_name(BFLOAT16) == "bfloat16"
    assert type_name(np.dtype(np.uint16)) == "uint16"
    assert np.dtype(np.uint16) != BFLOAT16


def test_on_the_device_they_are_bits_and_on_the_host_floats() -> None:
    values = np.array([[1.0, -2.5], [3.0, 4.0], [0.5, 8.0]], np.float32)
    there = put(FakeGpu(), to_bfloat16(values))
    assert there.nbytes == 12
    found = there.rows(1, 3).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[1:])

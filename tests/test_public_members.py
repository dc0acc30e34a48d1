"""`__all__` is what a package offers: no more, no less, in order."""

import importlib
from types import ModuleType

import pytest

PACKAGES = ["murank_kernels", "murank", "murank_export"]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_complete_and_sorted(name: str) -> None:
    package = importlib.import_module(name)
    offered: list[str] = package.__all__
    public = {
        key
        for key in dir(package)  # murank imports some at their first use
        if not key.startswith("_") and not isinstance(getattr(package, key), ModuleType)
    }
    assert offered == sorted(set(offered))
    assert public - {"TYPE_CHECKING"} == {key for key in offered if not key.startswith("_")}
    assert [key for key in offered if not hasattr(package, key)] == []

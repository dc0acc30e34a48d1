import re
from pathlib import Path

import murank
from murank import _exceptions


def test_every_error_is_in_the_tree_and_public() -> None:
    errors = [name for name, value in vars(_exceptions).items() if isinstance(value, type)]
    for name in errors:
        assert name in murank.__all__
        assert name in (_exceptions.__doc__ or "")


def test_version_is_that_of_the_project() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    found = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    assert found is not None
    assert found[1] == murank.__version__

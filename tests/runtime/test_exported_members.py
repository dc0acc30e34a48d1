import re
from pathlib import Path
from pkgutil import iter_modules

import murank
from murank import _exceptions


def test_all_is_what_can_be_imported() -> None:
    public = {name for name in dir(murank) if not name.startswith("_")}
    rooms = {found.name for found in iter_modules(murank.__path__)}  # appear once imported
    assert public - rooms - {"importlib", "TYPE_CHECKING"} == set(murank.__all__) - {"__version__"}
    assert murank.__all__ == sorted(murank.__all__)


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

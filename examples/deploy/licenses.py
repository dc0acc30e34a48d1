"""Write the licences of everything that is installed beside this Python, murank's own left out.

python examples/deploy/licenses.py THIRD_PARTY_LICENSES.txt
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

_LICENSE = re.compile(r"(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_CLASSIFIER = "License :: "


def name_of(one: Distribution) -> str:
    """Return the licence as its metadata names it; "see below" where the text alone says it."""
    said = one.metadata.get("License-Expression")
    classifiers = one.metadata.get_all("Classifier") or []
    named = [text.split(" :: ")[-1] for text in classifiers if text.startswith(_CLASSIFIER)]
    short = (one.metadata.get("License") or "").strip()
    return said or ", ".join(named) or (short if 0 < len(short) < 80 else "see below")


def texts_of(one: Distribution) -> Iterator[tuple[str, str]]:
    """Return its files of licences and notices, those of what it carries inside as well."""
    for file in one.files or ():
        if _LICENSE.match(file.name) and file.suffix not in (".py", ".pyc", ".pyi", ".so"):
            yield str(file), file.locate().read_text(encoding="utf-8", errors="replace")


def chapters() -> Iterator[str]:
    """Return one text a distribution, by name."""
    for one in sorted(distributions(), key=lambda one: one.name.lower()):
        if one.name != "murank":
            head = f"{one.name} {one.version}: {name_of(one)}"
            texts = [f"--- {name}\n{text.rstrip()}\n" for name, text in sorted(texts_of(one))]
            yield "\n".join([head, "=" * len(head), *texts])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n\n".join(chapters()) + "\n", encoding="utf-8")

"""HTML, a piece at a time: whatever comes from outside is escaped here and nowhere else."""

import html
from collections.abc import Iterable, Sequence

from murank.checks.text import plain


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Return a value as it may stand in a page, and in an attribute."""
    return value if isinstance(value, Markup) else Markup(html.escape(plain(str(value))))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element; of an attribute's name, a trailing _ goes and others become hyphens."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{joined(content)}</{name}>")


def joined(parts: Iterable[object]) -> Markup:
    """Return parts behind each other."""
    return Markup("".join(escaped(part) for part in parts))


def section(title: str, *content: object) -> Markup:
    """Return a part of the page with its heading."""
    return Markup(element("section", element("h2", title), *content) + "\n")


def table(
    caption: str,
    heads: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    numbers: bool = False,
) -> Markup:
    """Return a table; the first cell of a row is its heading."""
    head = element("tr", *(element("th", one, scope="col") for one in heads))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", one) for one in others))
        for first, *others in rows
    ]
    inner = [element("caption", caption), element("thead", head), element("tbody", *body)]
    if not numbers:
        return element("table", *inner)
    return element("div", element("table", *inner, class_="numbers"), class_="scroll")

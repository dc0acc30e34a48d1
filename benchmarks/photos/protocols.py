"""Published protocols of domain generalisation: what is trained on, what is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SETS: Mapping[str, str] = MappingProxyType(
    {
        "M": "market1501", "D": "dukemtmc", "MS": "msmt17", "C3": "cuhk03-np",
        "CS": "cuhk-sysu", "PRID": "prid", "GRID": "grid", "VIPeR": "viper", "iLIDS": "ilids",
    }
)  # fmt: skip
"""The field's letters, and what `--sets` calls them; cuhk-sysu is a .csv or in Market's names."""

_SMALL = ("PRID", "GRID", "VIPeR", "iLIDS")


@dataclass(frozen=True)
class Protocol:
    """Names of sets."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def sets(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(self.train + self.test))


def _protocols() -> Mapping[str, Protocol]:
    found = {}

    def add(train: tuple[str, ...], *test: str) -> None:
        named = "+".join(train) + "->" + (test[0] if len(test) == 1 else "small")
        found[named] = Protocol(tuple(SETS[one] for one in train), tuple(SETS[one] for one in test))

    single = ("M", "MS", "C3")
    for source in single:  # single source
        for target in single:
            if target != source:
                add((source,), target)
    for pool in (("M", "D", "MS", "C3"), ("M", "CS", "MS", "C3")):  # leave one out
        for target in pool:
            if target != "CS":  # its cameras are not known: it only trains
                add(tuple(one for one in pool if one != target), target)
    for pool in (("M", "D", "MS", "C3"), ("M", "CS", "MS", "C3")):
        add(pool, *_SMALL)
    return MappingProxyType(found)


PROTOCOLS: Mapping[str, Protocol] = _protocols()
"""By name, as `M->MS`, `D+MS+C3->M`, `M+CS+MS+C3->small` (PRID, GRID, VIPeR, iLIDS)."""

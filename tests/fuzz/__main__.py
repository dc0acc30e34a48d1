"""`python -m fuzz`: as long as one likes; `python -m fuzz TARGET SEED`: one case again.

FUZZ_SECONDS (60), FUZZ_SEED (the first one; 0), FUZZ_TARGETS (names with commas; all) and
FUZZ_FOLDER (where inputs that fail are kept; fuzz-failures).
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fuzz.runner import Failure, case, run
from fuzz.targets import targets

_ROUND = 50  # cases of a target, in turn


def main() -> int:
    """Return 1 if a case failed."""
    if len(sys.argv) == 3:
        return _again(sys.argv[1], int(sys.argv[2]))
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "60"))
    first = int(os.environ.get("FUZZ_SEED", "0"))
    names = [name for name in os.environ.get("FUZZ_TARGETS", "").split(",") if name]
    chosen = {name: one for name, one in targets().items() if name in names or not names}
    counts: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < until:
            for name, target in chosen.items():
                size = _ROUND if target.cases > 50 else 2
                start = first + counts[name].total()
                outcomes, failures = run(target, range(start, start + size), Path(folder))
                counts[name] += outcomes
                failed += len(failures)
                for failure in failures:
                    _keep(failure)
    for name, outcomes in counts.items():
        told = ", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common())
        print(f"{name:15} {outcomes.total():9,}: {told}")
    print(f"{sum(one.total() for one in counts.values()):,} cases, {failed} failed")
    return 1 if failed else 0


def _keep(failure: Failure) -> None:
    folder = Path(os.environ.get("FUZZ_FOLDER", "fuzz-failures"))
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{failure.target}-{failure.seed}".replace(" ", "-")
    (folder / name).write_bytes(failure.data)
    (folder / f"{name}.txt").write_text(failure.why)
    last = failure.why.strip().splitlines()[-1][:200]
    again = f'PYTHONPATH=tests python -m fuzz "{failure.target}" {failure.seed}'
    print(f"{folder / name}: {last}\n  again: {again}", flush=True)


def _again(name: str, seed: int) -> int:
    target = targets()[name]
    print(repr(case(target, seed)[:2000]))
    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures = run(target, [seed], Path(folder))
    print(dict(outcomes), *(failure.why for failure in failures), sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

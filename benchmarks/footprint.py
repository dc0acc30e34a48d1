"""What the runtime weighs: size of a fresh environment without torch, and time to import murank.

python benchmarks/footprint.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7


def size(folder: Path) -> float:
    """MB of all files, each counted once."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files) / 1e6


def seconds(python: Path, code: str) -> float:
    """Return the median wall time of a statement, each time in a new process."""
    timed = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
    runs = [
        float(subprocess.run([python, "-c", timed], check=True, capture_output=True).stdout)
        for _ in range(ROUNDS)
    ]
    return statistics.median(runs)


def main() -> None:
    """Install, weigh, time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "venv"
        venv.create(folder, with_pip=True)
        python = folder / "bin" / "python"
        packages = next(folder.glob("lib/python*/site-packages"))
        before = size(packages)
        install = ["-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", ".[cpu]"]
        subprocess.run([python, *install], check=True, cwd=ROOT)
        parts = {
            folder.name: size(folder)
            for folder in packages.iterdir()
            if folder.is_dir() and not folder.name.startswith("pip")
        }
        total = size(packages) - before
        print(f"runtime environment (murank[cpu], without pip): {total:.0f} MB")
        for name, weight in sorted(parts.items(), key=lambda part: -part[1])[:8]:
            print(f"  {name:<20} {weight:6.0f} MB")
        print(f"import murank: {seconds(python, 'import murank'):.2f} s (median of {ROUNDS})")
        engine = (
            "import murank; from murank.backends.onnx.session import onnxruntime; onnxruntime()"
        )
        print(f"import murank and onnxruntime: {seconds(python, engine):.2f} s")
    print(f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()

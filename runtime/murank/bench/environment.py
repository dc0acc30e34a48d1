"""Where a benchmark ran: everything that could explain another figure, and nothing personal."""

import os
import platform
from datetime import datetime, timezone
from importlib import metadata

import numpy as np

from murank._version import __version__
from murank.backends.onnx.session import onnxruntime
from murank.bench.schema import Environment
from murank.folder.manifest import Manifest
from murank.machine import hardware as _machine
from murank_kernels.machine.cores import usable_cores

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip


def environment(manifest: Manifest, sha256: str, *, threads: int | None) -> Environment:
    """Return it, with no providers as yet: those that run are known once the engine is loaded."""
    gpu = _machine.gpu_and_driver()
    return Environment(
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        murank=__version__,
        python=platform.python_version(),
        numpy=np.__version__,
        numba=metadata.version("numba"),
        onnxruntime=onnxruntime().__version__,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        board=_machine.board_model(),
        cpu=_machine.cpu_model(),
        cores=usable_cores(),
        load_average=_machine.load_average(),
        power_mode=_machine.power_mode(),
        gpu=None if gpu is None else gpu[0],
        gpu_driver=None if gpu is None else gpu[1],
        threads=threads or usable_cores(),
        thread_variables={
            name: os.environ[name] for name in _THREAD_VARIABLES if os.environ.get(name)
        },
        providers={},
        engine_sha256=sha256,
        precision=manifest.precision,
        layout=None if manifest.scorer is None else manifest.scorer.layout,
    )

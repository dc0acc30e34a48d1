"""Processes of one training, as `accelerate launch` starts them."""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.state import (  # type: ignore[import-untyped]
    AcceleratorState,
    GradientState,
    PartialState,
)


def in_processes(count: int, work: Callable[[], int], scratch: Path) -> list[str]:
    """Do the work in forks of this process, which know of one another; return what each printed.

    A launcher's processes would first load torch again, each for three seconds.
    """
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    files = [scratch / f"printed{rank}" for rank in range(count)]
    children = []
    for rank, file in enumerate(files):
        child = os.fork()
        if child == 0:
            _be_one(rank, count, port, work, file)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    printed = [file.read_text() for file in files]
    assert codes == [0] * count, "".join(printed)
    return printed


def _be_one(rank: int, count: int, port: int, work: Callable[[], int], file: Path) -> None:
    code = 70
    try:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        torch.set_num_threads(1)  # OpenMP's others are not in a fork
        for kept in (AcceleratorState, PartialState, GradientState):  # of trainings before
            kept._reset_state()
        with file.open("w") as sys.stdout:
            try:
                code = work()
            except BaseException:  # noqa: BLE001 - told where the test can read it
                traceback.print_exc(file=sys.stdout)
    finally:
        os._exit(code)

"""One worker pool for everything: threads that own their rows, each with single-threaded BLAS.

A BLAS product that is split over threads may round differently from one that is not. Here every
tile is computed by one thread, so no result depends on how many threads there are, and no worker
waits at a barrier while another finishes its share of a tile.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import numba
from threadpoolctl import ThreadpoolController

from murank_kernels.machine.cores import within_quota

Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total) while work goes on, from the thread that called the kernel."""

T = TypeVar("T")


@lru_cache(maxsize=1)
def _most() -> int:
    """Threads that the cgroup's quota has time for; files are read for it, so once."""
    return within_quota(1 << 30)


@lru_cache(maxsize=1)
def _blas() -> Any:
    return ThreadpoolController().select(user_api="blas")


class _SingleThreadedBlas:
    """Holds BLAS at one thread while anybody is inside; the last one out restores the setting.

    Counted, because two callers that each saved and restored could leave BLAS at one thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limiter: Any = None
        self._allowed = 1

    def enter(self) -> int:
        """Return the number of threads BLAS was allowed before."""
        with self._lock:
            if self._inside == 0:
                libraries = _blas().info()
                self._allowed = min((lib["num_threads"] for lib in libraries), default=1 << 30)
                self._limiter = _blas().limit(limits=1)
            self._inside += 1
            return self._allowed

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limiter.restore_original_limits()


_single_threaded_blas = _SingleThreadedBlas()


@contextmanager
def workers() -> Iterator[int]:
    """BLAS is single-threaded inside; yields the number of worker threads to use.

    That is the smallest of Numba's setting (NUMBA_NUM_THREADS, numba.set_num_threads; by itself the
    CPUs of the process's affinity), BLAS's (OPENBLAS_NUM_THREADS, MKL_NUM_THREADS, OMP_NUM_THREADS,
    threadpoolctl), and what the quota of its cgroup has time for.
    """
    allowed = _single_threaded_blas.enter()
    try:
        yield max(1, min(numba.get_num_threads(), allowed, _most()))
    finally:
        _single_threaded_blas.leave()


_this_thread = threading.local()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, `run` works in the calling thread: for small work, where starting others costs more.

    Callers in other threads are not affected.
    """
    with workers():
        before = getattr(_this_thread, "alone", False)
        _this_thread.alone = True
        try:
            yield
        finally:
            _this_thread.alone = before


SMALL = 1024  # rows whose neighbours one thread has found before others have begun


def alone_if(is_small: bool) -> AbstractContextManager[None]:
    """`alone` for work that is small."""
    return alone() if is_small else nullcontext()


def run(
    work: Callable[[T], object], tasks: Sequence[T], stage: str, progress: Progress | None = None
) -> None:
    """Do every task, in no fixed order, over the worker threads; the first error is raised."""
    if getattr(_this_thread, "alone", False):
        _one_by_one(work, tasks, stage, progress)
        return
    with workers() as num_workers:
        if num_workers == 1 or len(tasks) == 1:
            _one_by_one(work, tasks, stage, progress)
            return
        with ThreadPoolExecutor(num_workers) as pool:
            pending = {pool.submit(work, task) for task in tasks}
            try:
                while pending:
                    # A short wait keeps Ctrl-C and the progress line alive.
                    done_now, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for future in done_now:
                        future.result()
                    if progress is not None:
                        progress(stage, len(tasks) - len(pending), len(tasks))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _one_by_one(
    work: Callable[[T], object], tasks: Sequence[T], stage: str, progress: Progress | None
) -> None:
    for done, task in enumerate(tasks, 1):
        work(task)
        if progress is not None:
            progress(stage, done, len(tasks))


def row_ranges(num_rows: int, rows_each: int) -> list[tuple[int, int]]:
    """Split rows 0..num_rows-1 into half-open ranges of at most `rows_each`."""
    return [(start, min(num_rows, start + rows_each)) for start in range(0, num_rows, rows_each)]

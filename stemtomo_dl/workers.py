"""One function over many jobs, on as many processes as there are cores: the results are those of one after the other.

The seam for other machines is `concurrent.futures.Executor`: whatever makes one can take the place of `local`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from stemtomo_dl.errors import InputError

T = TypeVar("T")
Key = TypeVar("Key")
MakeExecutor = Callable[[], Executor]


@dataclass(frozen=True)
class Failed:
    """A job that came to no result."""

    reason: str


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local() -> Executor:
    """One process a core. They are started afresh: a fork would take over locks that our threads may hold."""
    return ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn"), initializer=_settle)


def spread(
    work: Callable[..., T],
    jobs: Mapping[Key, tuple[Any, ...]],
    done: Callable[[Key, T | Failed], None],
    executor: MakeExecutor | None,
) -> None:
    """Do work for every job; one that fails does not stop the others.

    Parameters
    ----------
    work : callable
        A function of a module, so that other processes find it; its result is pickled.
    jobs : mapping
        Arguments by key, picklable.
    done : callable
        Called here with each key and result, as they come.
    executor : callable or None
        Makes what works; None: this process, one job after the other.
    """
    if executor is None:
        for key, arguments in jobs.items():
            done(key, attempt(work, arguments))
        return
    broken = _together(work, jobs, done, executor)
    for key in broken:  # which of them ended its process is not told: each gets one of its own
        if _together(work, {key: jobs[key]}, done, executor):
            done(key, Failed("its process was ended from outside, perhaps for want of memory"))


def _together(
    work: Callable[..., T],
    jobs: Mapping[Key, tuple[Any, ...]],
    done: Callable[[Key, T | Failed], None],
    executor: MakeExecutor,
) -> list[Key]:
    """Do work for all jobs at once; the keys of those that were lost with the process that had them."""
    pool, broken = executor(), []
    try:
        waiting: dict[Future[T | Failed], Key] = {pool.submit(attempt, work, a): k for k, a in jobs.items()}
        for future in as_completed(list(waiting)):
            key = waiting.pop(future)  # with its result, which would fill memory
            try:
                result = future.result()
            except BrokenExecutor:
                broken.append(key)
            else:
                done(key, result)
    finally:
        pool.shutdown(cancel_futures=True)
    return broken


def attempt(work: Callable[..., T], arguments: tuple[Any, ...]) -> T | Failed:
    """Do work on one thread, since sums in another order are others; what it raises becomes a reason."""
    with threadpool_limits(1):
        try:
            return work(*arguments)
        except InputError as e:
            return Failed(str(e))
        except Exception as e:
            return Failed(" ".join(f"{type(e).__name__}: {e}".split()))


def _settle() -> None:
    """Make a new process one that works on one thread, stops silently, and ends with the one that started it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # before the work's libraries are imported
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the process that started this one to end: killed, it tells its workers nothing, and they would stay."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

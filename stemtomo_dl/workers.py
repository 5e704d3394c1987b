"""One function over many jobs at once: on threads, on processes, or elsewhere; the results are those of one by one.

The seam for other machines is `Workers`; `stemtomo_dl.cluster` has those of a scheduler.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from stemtomo_dl.errors import InputError

T = TypeVar("T")
Key = TypeVar("Key")
Submit = Callable[..., Future[Any]]  # work, arguments, allowed -> what `attempt` makes of them

_MOST_THREADS = 8  # each holds tiles of a scan in memory, and more of them wait for one disk
_LOOK_S = 5.0  # between looks at how many workers there are


@dataclass(frozen=True)
class Failed:
    """A job that came to no result."""

    reason: str


class Lost(InputError):
    """A job ended what worked on it, twice."""


class Workers(Protocol):
    """What does jobs.

    Attributes
    ----------
    lost : type of exception
        Raised by the future of a job that was lost with what worked on it.
    shared : bool
        Whether it works on this machine, so that a job that fails there would fail here.
    """

    lost: type[Exception]
    shared: bool

    def ahead(self) -> int:
        """Jobs to have given out at any time; their results are in memory until they are taken."""
        ...

    def open(self) -> AbstractContextManager[Submit]:
        """Jobs can be given out within the block; leaving it drops those that are not done."""
        ...


class Threads:
    """Threads of this process, for work that leaves the interpreter free and has large results."""

    lost: type[Exception] = BrokenExecutor
    shared = True

    def __init__(self) -> None:
        self._n = min(cores(), _MOST_THREADS)

    def ahead(self) -> int:
        """As `Workers.ahead`."""
        return 2 * self._n

    @contextmanager
    def open(self) -> Iterator[Submit]:
        """As `Workers.open`."""
        with threadpool_limits(1):  # some libraries have one limit for all threads, which `attempt` must find as it is
            yield from _submitting(ThreadPoolExecutor(self._n, thread_name_prefix="job"))


class Processes:
    """One process a core. They are started afresh: a fork would take over locks that our threads may hold."""

    lost: type[Exception] = BrokenExecutor
    shared = True

    def ahead(self) -> int:
        """As `Workers.ahead`."""
        return 2 * cores()

    @contextmanager
    def open(self) -> Iterator[Submit]:
        """As `Workers.open`."""
        context = multiprocessing.get_context("spawn")
        yield from _submitting(ProcessPoolExecutor(cores(), context, initializer=_settle))


def _submitting(pool: Executor) -> Iterator[Submit]:
    try:
        yield lambda *job: pool.submit(attempt, *job)
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    work: Callable[..., T],
    jobs: Mapping[Key, tuple[Any, ...]],
    done: Callable[[Key, T | Failed], None],
    workers: Workers | None,
    allowed: type[Exception] = Exception,
) -> None:
    """Do work for every job.

    Parameters
    ----------
    work : callable
        A function of a module, so that other processes find it; its result is pickled.
    jobs : mapping
        Arguments by key, picklable.
    done : callable
        Called here with each key and result, as they come.
    workers : Workers or None
        What works; None: this thread, one job after the other.
    allowed : type of exception
        A job that fails with one of these does not stop the others; another is raised.
    """
    if workers is None:
        for key, arguments in jobs.items():
            done(key, attempt(work, arguments, allowed))
        return

    def settled(key: Key, result: T | Failed) -> None:
        if isinstance(result, Failed) and not workers.shared:  # the fault may be the other machine's
            result = attempt(work, jobs[key], allowed)
        done(key, result)

    todo = iter(jobs.items())
    while lost := _together(work, todo, settled, workers, allowed):
        for key in lost:  # which of them ended its process is not told: each gets one of its own
            if _together(work, iter([(key, jobs[key])]), settled, workers, allowed):
                error = Lost("its process was ended from outside, perhaps for want of memory")
                if not isinstance(error, allowed):
                    raise error
                done(key, Failed(str(error)))


def _together(
    work: Callable[..., T],
    todo: Iterator[tuple[Key, tuple[Any, ...]]],
    done: Callable[[Key, T | Failed], None],
    workers: Workers,
    allowed: type[Exception],
) -> list[Key]:
    """Do jobs at once until none is left, or some are lost with the process that had them: the keys of those."""
    waiting: dict[Future[T | Failed], Key] = {}
    lost: list[Key] = []
    with workers.open() as submit:
        while True:
            room = 0 if lost else workers.ahead() - len(waiting)
            for key, arguments in islice(todo, max(room, 0)):
                try:
                    waiting[submit(work, arguments, allowed)] = key
                except workers.lost:
                    lost.append(key)
            if not waiting:
                return lost
            for future in wait(waiting, _LOOK_S, FIRST_COMPLETED).done:
                key = waiting.pop(future)  # with its result, which would fill memory
                try:
                    result = future.result()
                except workers.lost:
                    lost.append(key)
                else:
                    done(key, result)


def attempt(work: Callable[..., T], arguments: tuple[Any, ...], allowed: type[Exception] = Exception) -> T | Failed:
    """Do work on one thread, since sums in another order are others; what it may raise becomes a reason."""
    with threadpool_limits(1):
        try:
            return work(*arguments)
        except allowed as e:
            return Failed(str(e) if isinstance(e, InputError) else " ".join(f"{type(e).__name__}: {e}".split()))


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

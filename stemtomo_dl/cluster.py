"""Workers of a dask.distributed scheduler, wherever it has them: one machine, several, or the jobs of a queue.

A job travels with every file that it reads by its full path: workers must see the same disk. Results come back here,
and only this process writes into the run, so that no network disk has to show one machine at once what another wrote.
"""

from __future__ import annotations

import io
import logging
import pickle
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from threadpoolctl import threadpool_limits

from stemtomo_dl import __version__
from stemtomo_dl.errors import InputError
from stemtomo_dl.workers import Submit, attempt

_ADDRESS = re.compile(r"(tcp|tls|ucx|wss?)://.+:\d+")
_CONNECT_S = 10
_LEAST_AHEAD = 8  # jobs given out while no worker is there: a cluster that adapts starts workers for these


class Cluster:
    """The workers of a scheduler; a job whose worker dies is given to another by the scheduler, four times at most.

    Parameters
    ----------
    client : distributed.Client
    tell : callable
        Told in words when there is no worker to wait for.
    """

    lost: type[Exception]
    shared = False

    def __init__(self, client: Any, tell: Callable[[str], None]) -> None:
        from distributed import KilledWorker

        self.lost, self._client, self._tell, self._told = KilledWorker, client, tell, False
        self._address = client.scheduler.address

    def ahead(self) -> int:
        """Twice as many jobs as the workers that are there now do at once."""
        threads = sum(self._client.nthreads().values())
        if not threads and not self._told:
            self._tell(f"{self._address}: has no worker; waiting for one")
        self._told = not threads
        return int(max(2 * threads, _LEAST_AHEAD))

    @contextmanager
    def open(self) -> Iterator[Submit]:
        """As `Workers.open`.

        Raises
        ------
        InputError
            If the scheduler is lost, or a worker lacks the package or cannot see a file.
        """
        pool = self._client.get_executor(pure=False)
        try:
            yield lambda *job: pool.submit(pickle.loads, pickle.dumps(_Call(job)))
        except ModuleNotFoundError as e:
            raise InputError(
                f"{self._address}: a worker lacks a package ({e}); install stemtomo_dl {__version__} where it runs"
            ) from e
        except (CancelledError, OSError) as e:
            if self._client.status == "running" and not isinstance(e, CancelledError):
                raise
            raise InputError(
                f"{self._address}: the scheduler was lost; start it and its workers, then the same command to go on"
            ) from e
        finally:
            with suppress(OSError):  # lost
                pool.shutdown(wait=False)


@contextmanager
def connect(address: str, tell: Callable[[str], None]) -> Iterator[Cluster]:
    """The workers of the scheduler at an address.

    Parameters
    ----------
    address : str
        As ``dask scheduler`` prints it: tcp://host:8786.
    tell : callable
        See `Cluster`.

    Raises
    ------
    InputError
        If dask.distributed is not installed, the address is none, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as e:
        raise InputError("--scheduler needs dask.distributed; pip install 'stemtomo_dl[cluster]'") from e
    if not _ADDRESS.fullmatch(address):
        raise InputError(f"--scheduler {address}: is no address of a scheduler; give it as tcp://host:8786")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is told here, in one line
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except OSError as e:
        raise InputError(
            f"--scheduler {address}: no scheduler answers there within {_CONNECT_S} s; start 'dask scheduler' and give "
            "the address that it prints"
        ) from e
    with client:
        yield Cluster(client, tell)


class _Packing(pickle.Pickler):
    """Turns paths into full ones, and lists them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.paths: dict[str, int | None] = {}  # sizes of files, None for folders

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, PurePath):
            return NotImplemented
        path = Path(obj).absolute()
        self.paths[str(path)] = path.stat().st_size if path.is_file() else None
        return Path, (str(path),)


class _Call:
    """A job in one piece, which dask does not look into; to unpickle it is to do it.

    So it goes to a worker as an argument of a function of Python itself: one that lacks the package has an error to
    tell, where a function of ours would end it, and the scheduler need not have the package.
    """

    def __init__(self, job: tuple[Any, ...]) -> None:
        file = io.BytesIO()
        packing = _Packing(file)
        packing.dump(job)
        self._arguments = file.getvalue(), packing.paths, __version__

    def __reduce__(self) -> tuple[Any, ...]:
        return _do, self._arguments


def _do(job: bytes, paths: dict[str, int | None], version: str) -> Any:
    """Do a job on a worker, which may work on several at once and may be another machine's."""
    where = f"worker {_address()} on {socket.gethostname()}"
    if version != __version__:
        raise InputError(f"{where}: has stemtomo_dl {__version__}, this is {version}; install the same there")
    for name, size in paths.items():
        path = Path(name)
        if not path.exists() or (size is not None and path.stat().st_size != size):
            what = "sees another file of that name" if path.exists() else "cannot see it"
            raise InputError(
                f"{name}: {where} {what}; keep the experiment and the run on a disk that all workers have in one place"
            )
    work, arguments, allowed = pickle.loads(job)
    threadpool_limits(1)  # and so it stays: jobs beside each other in a process must not lift each other's limit
    return attempt(work, arguments, allowed)


def _address() -> str:
    from distributed import get_worker

    return str(get_worker().address)

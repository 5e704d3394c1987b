"""Tilts and particles done by the workers of a dask scheduler: two processes here, each on two threads."""

import os
import shutil
import signal
import sys
import threading
import types
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from stemtomo_dl import cluster, pipeline
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.workers import Failed, Threads, spread

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")


@pytest.fixture(scope="module")
def address():
    options = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": ":0", "host": "127.0.0.1"}
    failures = {
        "distributed.scheduler.allowed-failures": 1
    }  # of workers under a job; each takes seconds to start again
    with dask.config.set(failures), distributed.LocalCluster(**options) as local:
        yield local.scheduler_address


@pytest.fixture
def told():
    return []


@pytest.fixture
def workers(address, told):
    with cluster.connect(address, told.append) as found:
        yield found


class Progress:
    """Calls a function after the first step of a stage."""

    def __init__(self, stage, call):
        self.calls = {stage: call}

    @contextmanager
    def stage(self, name, total):
        yield lambda: self.calls.pop(name, lambda: None)()


def kill_one(address):
    with distributed.Client(address, set_as_default=False) as client:
        pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)


def test_a_run_by_a_scheduler_is_the_same_to_the_bit(address, tiny, tiny_run, tmp_path, command, run_contents):
    """Paths are relative here, and workers are elsewhere."""
    toml = os.path.relpath(tiny / "experiment.toml", tmp_path)
    said = command("run", toml, "-o", "run", "--scheduler", address, cwd=tmp_path)
    assert run_contents(tmp_path / "run") == run_contents(tiny_run)
    assert said.stderr == ""


@pytest.mark.parametrize("stage", ["images", "extract"])
def test_a_worker_killed_in_the_middle_changes_nothing(stage, address, workers, tiny, tiny_run, tmp_path, run_contents):
    progress = Progress(stage, lambda: kill_one(address))
    with pipeline.start(tiny / "experiment.toml", tmp_path / "run", progress) as run:
        run.workers = workers
        pipeline.run_stages(run)
    assert not progress.calls, "no worker was killed"
    assert run_contents(tmp_path / "run") == run_contents(tiny_run)


def test_a_damaged_scan_is_told_and_skipped_as_without(address, tiny, tmp_path, command):
    shutil.copytree(tiny, tmp_path / "e")
    scan = sorted((tmp_path / "e/scans").iterdir())[2]
    with h5py.File(scan) as f:
        data = next(d for d in f.values() if d.ndim == 4)
        info = data.id.get_chunk_info(data.id.get_num_chunks() // 2 + 1)
    with scan.open("r+b") as f:
        f.seek(info.byte_offset)
        f.write(b"\xff" * info.size)
    call = ("run", tmp_path / "e/experiment.toml", "-o", tmp_path / "run", "--until", "images")
    alone = command(*call, check=False)
    spread_out = command(*call, "--scheduler", address, check=False)
    assert alone.returncode == spread_out.returncode == 2
    assert scan.name in alone.stderr
    assert spread_out.stderr == alone.stderr
    command(*call, "--scheduler", address, "--skip-bad")
    with h5py.File(tmp_path / "run/images.h5") as f:
        assert f["good"][:].tolist() == [True, True, False, True]


def whole(path):
    return path.read_text()


def test_a_file_that_a_worker_does_not_see_is_one_line(workers, tmp_path):
    with pytest.raises(InputError, match=r"absent\.h5: worker tcp://.* cannot see it; keep the experiment"):
        spread(whole, {0: (tmp_path / "absent.h5",)}, print, workers, BadScan)


def test_another_version_is_one_line(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(InputError, match=r"worker tcp://.*, this is 0\.0\.1; install the same there"):
        spread(whole, {0: (tmp_path,)}, print, workers, BadScan)


def test_a_worker_without_the_package_is_one_line(workers, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def work(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(InputError, match=r"a worker lacks a package \(No module named 'only_here'\); install"):
        spread(module.work, {0: ()}, print, workers, BadScan)


def fails_elsewhere(here):
    if os.getpid() != here:
        raise OSError("no such memory")
    return "done"


def ends_its_process(n):
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_what_fails_on_a_worker_is_tried_here(workers):
    found = {}
    spread(fails_elsewhere, {0: (os.getpid(),)}, found.__setitem__, workers)
    assert found == {0: "done"}


def test_a_job_that_ends_every_worker_is_a_failure_of_its_own(workers):
    found = {}
    spread(ends_its_process, {k: (k,) for k in range(3)}, found.__setitem__, workers)
    assert found.pop(1) == Failed("its process was ended from outside, perhaps for want of memory")
    assert found == {0: 0, 2: 2}


def test_a_scheduler_without_workers_is_told():
    said = []
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", host="127.0.0.1") as empty,
        cluster.connect(empty.scheduler_address, said.append) as found,
    ):
        assert found.ahead() == found.ahead() > 0
    assert len(said) == 1
    assert "has no worker; waiting for one" in said[0]


@pytest.mark.parametrize(
    ("wrong", "words"), [("tcp://127.0.0.1:9", "no scheduler answers"), ("nonsense", "is no address")]
)
def test_a_wrong_address_is_one_line(wrong, words, tiny, tmp_path, command, monkeypatch):
    done = command("run", tiny / "experiment.toml", "-o", tmp_path / "run", "--scheduler", wrong, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"--scheduler {wrong}: {words}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'stemtomo_dl\[cluster\]'"), cluster.connect("tcp://a:1", print):
        pass


def test_no_more_jobs_are_given_out_than_results_can_be_held():
    workers, given, most = Threads(), [], []

    class Jobs(dict):
        def items(self):
            for item in super().items():
                given.append(item)
                yield item

    taken = []

    def done(key, result):
        most.append(len(given) - len(taken))
        taken.append(result)

    spread(Path, Jobs({k: (str(k),) for k in range(100)}), done, workers)
    assert len(taken) == 100
    assert max(most) <= workers.ahead()


def test_threads_keep_their_libraries_on_one_thread():
    from threadpoolctl import threadpool_info

    found, both = {}, threading.Barrier(2, timeout=20)

    def limits(wait):
        if wait:
            both.wait()  # beside another job, which ends first
        return {i["num_threads"] for i in threadpool_info()}

    spread(limits, {k: (k < 2,) for k in range(4)}, found.__setitem__, Threads())
    assert all(n == {1} for n in found.values())

"""Fetching against a real HTTP server on loopback that behaves badly in every way that servers and networks do."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from stemtomo_dl import resources, weights
from stemtomo_dl.errors import InputError

DATA = np.random.default_rng(0).bytes(3_000_000)
FILE = "far.safetensors"
ENTRY = f"""
[model.far]
purpose = "a test"
url = "https://nowhere.invalid/{FILE}"
sha256 = "{hashlib.sha256(DATA).hexdigest()}"
size = {len(DATA)}
licence = "MIT"
data = "noise"
"""


class Server(ThreadingHTTPServer):
    """Serves ``data``; ``stop_after`` bytes of an answer it hangs up, once."""

    data = DATA
    stop_after = None
    ranges = True
    announces = True
    status = None
    gate = None  # to wait at before the answer
    stall = None  # to wait at before its last third

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        s = self.server
        s.asked.append((self.path, self.headers.get("Range")))
        if s.gate:
            s.gate.wait(20)
        if s.status:
            self.send_error(s.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
        if not s.ranges:
            start = 0
        if start >= len(s.data) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(s.data) - 1}/{len(s.data)}")
        if s.announces:
            self.send_header("Content-Length", str(len(s.data) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        stop, s.stop_after = s.stop_after, None
        if s.stall:
            self.wfile.write(s.data[start:2_000_000])
            s.stall.wait(20)
            start = max(start, 2_000_000)
        self.wfile.write(s.data[start:][:stop])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server, an empty cache, and a registry of one file that the server is a mirror of."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/registry.toml").write_text(ENTRY)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("STEMTOMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STEMTOMO_WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/mirror/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.path = tmp_path / "cache/weights" / FILE
    yield server
    server.shutdown()
    server.server_close()


def left(server):
    """What a user sees in the cache, and what only we do."""
    names = {p.name for p in server.path.parent.iterdir()} - {f".{FILE}.lock"}
    return sorted(names)


class Heard:
    def __init__(self):
        self.bytes, self.waited = [], threading.Event()

    def waiting(self):
        self.waited.set()

    def at(self, done, total):
        assert total == len(DATA)
        self.bytes.append(done)


def test_a_file_is_fetched_once(server):
    heard = Heard()
    assert weights.place(weights.find("far")) == "absent"
    assert weights.fetch("far", heard) == weights.fetch("far") == weights.locate("far") == server.path
    assert server.path.read_bytes() == DATA
    assert server.asked == [(f"/mirror/{FILE}", None)]
    assert heard.bytes == sorted(heard.bytes)
    assert heard.bytes[-1] == len(DATA)
    assert weights.place(weights.find("far")) == "cached"
    assert left(server) == [FILE]


def test_the_registry_names_the_file_where_the_url_says_too_little(server, tmp_path):
    text = ENTRY.replace(f"https://nowhere.invalid/{FILE}", "https://nowhere.invalid/get?id=9")
    registry = tmp_path / "models/registry.toml"
    registry.write_text(text)
    with pytest.raises(InputError, match="must end in the name"):
        weights.entries()
    registry.write_text(text + 'cached = "near.onnx"')
    assert weights.fetch("far") == server.path.with_name("near.onnx")
    assert server.asked == [("/mirror/near.onnx", None)]


@pytest.mark.parametrize("announces", [True, False], ids=["length", "no-length"])
def test_an_interrupted_download_goes_on_where_it_broke(server, announces):
    server.stop_after, server.announces = 2_000_000, announces
    with pytest.raises(InputError, match=r"connection broke after \d+ of 3000000 bytes; start the same command again"):
        weights.fetch("far")
    assert left(server) == [f".{FILE}.part"]
    have = (server.path.parent / f".{FILE}.part").stat().st_size
    assert 1_500_000 < have <= 2_000_000
    with pytest.raises(InputError, match=r"not at .*run 'stemtomo weights fetch far'"):
        weights.locate("far")
    weights.fetch("far")
    assert server.asked[1] == (f"/mirror/{FILE}", f"bytes={have}-")
    assert server.path.read_bytes() == DATA
    assert left(server) == [FILE]


def test_a_server_that_cannot_resume_sends_it_all(server):
    server.stop_after, server.ranges = 2_000_000, False
    with pytest.raises(InputError, match="broke"):
        weights.fetch("far")
    weights.fetch("far")
    assert server.path.read_bytes() == DATA


def test_a_truncated_file_is_refused_and_left_nowhere(server):
    server.data = DATA[:-1]
    with pytest.raises(InputError, match="has 2999999 bytes, the registry says 3000000: truncated"):
        weights.fetch("far")
    assert left(server) == []
    server.data = DATA
    weights.fetch("far")


def test_a_part_longer_than_the_servers_file_starts_anew(server):
    server.path.parent.mkdir(parents=True)
    (server.path.parent / f".{FILE}.part").write_bytes(DATA[:2_000_000])
    server.data = DATA[:1000]
    with pytest.raises(InputError, match="has 1000 bytes"):
        weights.fetch("far")
    assert [r for _, r in server.asked] == ["bytes=2000000-", None]
    server.data = DATA
    weights.fetch("far")
    assert server.path.read_bytes() == DATA


@pytest.mark.parametrize("have", [0, 1_000_000], ids=["whole", "resumed"])
def test_a_wrong_hash_is_refused_and_left_nowhere(server, have):
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    server.path.parent.mkdir(parents=True)
    if have:
        (server.path.parent / f".{FILE}.part").write_bytes(bytes(have))  # of another file
    with pytest.raises(InputError, match="SHA-256 differs"):
        weights.fetch("far")
    assert left(server) == []


def test_more_than_there_should_be_does_not_fill_the_disk(server):
    server.data, server.announces = DATA * 10, False
    with pytest.raises(InputError, match="SHA-256 differs"):
        weights.fetch("far")
    assert left(server) == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_names_the_status_and_the_way_out(server, status):
    server.status = status
    with pytest.raises(InputError, match=f"the server says {status} .*put the file at .*{FILE} yourself"):
        weights.fetch("far")
    assert left(server) == []


def test_no_network_is_one_line(server, monkeypatch):
    monkeypatch.setenv("STEMTOMO_WEIGHTS_URL", "http://127.0.0.1:9/")  # where nobody listens
    with pytest.raises(InputError, match=r"no connection to 127.0.0.1:9 \(ConnectionError\); .*put the file"):
        weights.fetch("far")
    monkeypatch.setenv("STEMTOMO_WEIGHTS_URL", "here/there")
    with pytest.raises(InputError, match="not a URL"):
        weights.fetch("far")


def test_a_damaged_file_in_the_cache_is_never_used(server, monkeypatch):
    server.path.parent.mkdir(parents=True)
    for wrong in (DATA[:5], bytes(len(DATA))):
        server.path.write_bytes(wrong)
        with pytest.raises(InputError, match="damaged, or another file; run 'stemtomo weights fetch far'"):
            weights.locate("far")
        with monkeypatch.context() as m:
            m.setenv("STEMTOMO_WEIGHTS_URL", "http://127.0.0.1:9/")
            with pytest.raises(InputError, match="no connection"):
                weights.fetch("far")
        assert weights.fetch("far").read_bytes() == DATA


def test_a_file_put_there_by_hand_is_found_without_a_network(server, monkeypatch):
    monkeypatch.delenv("STEMTOMO_WEIGHTS_URL")
    server.path.parent.mkdir(parents=True)
    server.path.write_bytes(DATA)
    assert weights.fetch("far") == weights.locate("far") == server.path


def test_a_cache_that_cannot_be_written_is_one_line(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEMTOMO_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\).*STEMTOMO_CACHE"):
        weights.fetch("far")


def test_of_two_at_once_one_fetches_and_the_other_waits(server):
    server.gate, second = threading.Event(), Heard()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(weights.fetch, "far")
        while not server.asked:
            time.sleep(0.01)
        two = pool.submit(weights.fetch, "far", second)
        assert second.waited.wait(20)
        server.gate.set()
        assert one.result() == two.result() == server.path
    assert server.path.read_bytes() == DATA
    assert len(server.asked) == 1


@pytest.fixture
def fetching(server, tmp_path):
    """The command, with the test's registry."""
    script = (
        "import sys; from pathlib import Path; from stemtomo_dl import cli, resources; "
        f"resources._PACKAGE = Path({str(tmp_path / 'package')!r}); cli.main()"
    )
    return [sys.executable, "-c", script, "weights", "fetch", "far"]


def test_a_killed_download_goes_on_where_it_was(server, fetching):
    server.stall = threading.Event()
    process = subprocess.Popen(fetching, env=os.environ)
    part = server.path.parent / f".{FILE}.part"
    while not part.exists() or part.stat().st_size < 1_500_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.stall.set()
    assert not server.path.exists()
    have = part.stat().st_size
    subprocess.run(fetching, check=True, capture_output=True)
    assert server.asked[1] == (f"/mirror/{FILE}", f"bytes={have}-")
    assert server.path.read_bytes() == DATA


def test_two_commands_at_once_and_one_that_fails(server, fetching):
    started = [
        subprocess.Popen(fetching, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.strip() == str(server.path)
        assert not err or re.fullmatch("stemtomo: weights 'far': another process is fetching them.*\n", err)
    assert server.path.read_bytes() == DATA
    assert len(server.asked) == 1
    server.path.unlink()
    server.status = 404
    done = subprocess.run(fetching, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("stemtomo: weights 'far': http://127.0.0.1:")

"""Downloads over connections as they are: they break off, refuse, and send other files."""

import hashlib
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.errors import UserError
from scripts import prepare_voc
from scripts.prepare_voc import Archive, download, main, obtain
from tests.scripts.archives import (
    command_of,
    describe,
    run_script,
    tree,
)


@dataclass
class Site:
    """A server of one folder and its temper, and the requests that it had."""

    folder: Path
    honours_range: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes after which the coming answers break off
    statuses: list[int] = field(default_factory=list)  # errors to answer with first
    hold: threading.Event | None = None  # until it is set, answers stop half way
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site(tmp_path / "site")
    site.folder.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.ranges.append(self.headers.get("Range"))
            path = site.folder / self.path.rpartition("/")[2]
            if site.statuses:
                return self.send_error(site.statuses.pop(0))
            if not path.exists():
                return self.send_error(404)
            return self.send(path.read_bytes())

        def send(self, content: bytes) -> None:
            start = 0
            if site.honours_range and site.ranges[-1]:
                start = int(site.ranges[-1].removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    return self.send_error(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = start + site.break_after.pop(0) if site.break_after else len(content)
            try:
                for place in range(start, min(stop, len(content)), 10_000):
                    self.wfile.write(content[place : min(place + 10_000, stop)])
                    if site.hold and place >= len(content) // 2:
                        site.hold.wait(120)
            except OSError:
                pass  # the client has gone

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


CONTENT = np.random.default_rng(0).bytes(300_000)


def offer(site: Site, content: bytes = CONTENT) -> Archive:
    (site.folder / "some.tar").write_bytes(content)
    return Archive("some.tar", hashlib.md5(CONTENT).hexdigest(), "--trainval", f"{site.url}/some.tar")


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting is left out, and what would have been waited is recorded."""
    waits: list[float] = []
    monkeypatch.setattr(prepare_voc.time, "sleep", waits.append)
    return waits


def test_an_interrupted_download_resumes(site, tmp_path):
    archive = offer(site)
    site.break_after = [100_000, 50_000, 1, 70_000]
    part = download(archive, tmp_path / "downloads", pause=0.01)
    assert site.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-", "bytes=220001-"]
    assert part.name == "some.tar.part"
    assert part.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(site, tmp_path):
    archive = offer(site)
    site.honours_range = False
    site.break_after = [200_000, 100_000]
    assert download(archive, tmp_path / "downloads", pause=0.01).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=200000-", "bytes=100000-"]


def test_a_verified_download_is_not_repeated(site, tmp_path):
    archive = offer(site)
    for _ in range(2):
        path = obtain(archive, None, tmp_path / "downloads")
        assert path == tmp_path / "downloads" / "some.tar"
        assert tree(tmp_path / "downloads") == {"some.tar": CONTENT}
    assert site.ranges == [None]
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"some\.tar' has the checksum .* damaged"):
        obtain(archive, None, tmp_path / "downloads")


def test_a_download_with_another_checksum_is_not_kept(site, tmp_path):
    archive = offer(site, CONTENT[::-1])
    with pytest.raises(UserError, match=rf"but some\.tar has {archive.md5}"):
        obtain(archive, None, tmp_path / "downloads")
    assert tree(tmp_path / "downloads") == {}
    offer(site)
    assert obtain(archive, None, tmp_path / "downloads").read_bytes() == CONTENT


def test_a_complete_part_is_renamed(site, tmp_path):
    archive = offer(site)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "some.tar.part").write_bytes(CONTENT)
    assert obtain(archive, None, tmp_path / "downloads").read_bytes() == CONTENT
    assert site.ranges == ["bytes=300000-"]


def test_a_part_of_another_file_is_detected_and_removed(site, tmp_path):
    archive = offer(site)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "some.tar.part").write_bytes(b"<html>please log in</html>")
    with pytest.raises(UserError, match="damaged or another file"):
        obtain(archive, None, tmp_path / "downloads")
    assert tree(tmp_path / "downloads") == {}


def test_a_busy_server_is_retried_and_a_wrong_address_is_not(site, tmp_path, no_pause):
    archive = offer(site)
    site.statuses = [503, 429, 500]
    assert download(archive, tmp_path / "downloads").read_bytes() == CONTENT
    assert no_pause == [4.0, 8.0, 16.0]
    (site.folder / "some.tar").unlink()
    with pytest.raises(UserError, match=r"some\.tar cannot be downloaded: HTTP Error 404.*--trainval PATH"):
        download(archive, tmp_path / "elsewhere")
    assert len(site.ranges) == 5


def test_a_server_without_data_is_given_up(site, tmp_path, no_pause):
    archive = offer(site)
    site.break_after = [1000, *[0] * 50]
    with pytest.raises(UserError, match=r"broke off at byte 1000 of 300000\. .* goes on from byte 1000"):
        download(archive, tmp_path / "downloads")
    assert len(site.ranges) == 1 + prepare_voc.PATIENCE
    assert no_pause == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    site.break_after = []
    assert download(archive, tmp_path / "downloads").read_bytes() == CONTENT


def test_an_unreachable_server_is_one_message(tmp_path, data, no_pause, capsys):
    release = describe(data.trainval, data.test, data.sbd, "http://127.0.0.1:9")
    assert main(["--out", str(tmp_path), "--sbd", str(data.sbd)], release) == 1
    assert "cannot be downloaded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_killed_while_downloading_resumes(site, data, prepared, tmp_path):
    for path in (data.trainval, data.sbd):
        (site.folder / path.name).write_bytes(path.read_bytes())
    release = describe(data.trainval, data.test, data.sbd, site.url)
    site.hold = threading.Event()
    part = tmp_path / "out" / "VOCdevkit" / "archives" / f"{data.trainval.name}.part"
    arguments = ["--out", str(tmp_path / "out"), "--test", str(data.test)]
    command, environment = command_of(release, *arguments)
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    size = part.stat().st_size
    assert 0 < size < data.trainval.stat().st_size
    site.hold.set()
    finished = run_script(release, *arguments)
    assert finished.returncode == 0, finished.stderr
    assert site.ranges[1] == f"bytes={size}-"
    found = tree(tmp_path / "out")
    archives = {name: found.pop(f"VOCdevkit/archives/{name}") for name in (data.trainval.name, data.sbd.name)}
    assert archives == {path.name: path.read_bytes() for path in (data.trainval, data.sbd)}
    assert found == tree(prepared[0])

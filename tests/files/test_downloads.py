"""Downloads: whole or resumed, never half."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ofa_deploy.errors import DataError
from ofa_deploy.files.downloads import download

CONTENT = bytes(range(256)) * 4000


class Server(HTTPServer):
    """Serves CONTENT; cuts an answer short after `cut` bytes, once."""

    cut: int | None = None
    ranges = True
    unknown = False
    shift = 0
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and self.server.ranges else 0
        body = CONTENT[start:]
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            total = "*" if self.server.unknown else len(CONTENT)
            self.send_header("Content-Range", f"bytes {start + self.server.shift}-{len(CONTENT) - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(body[:cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server: Server, path: Path, name: str = "file") -> None:
    download(f"http://127.0.0.1:{server.server_port}/{name}", path, hint="do something else")


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_it_was_cut_off(server: Server, tmp_path: Path, ranges: bool, lines: list[str]) -> None:
    path = tmp_path / "new" / "file"
    server.cut, server.ranges = 500_000, ranges
    with pytest.raises(DataError, match=r"1024000 bytes, 500000 arrived|repeat to go on"):
        fetch(server, path)
    assert not path.exists()
    fetch(server, path)
    assert lines[:1] == (["going on after 0.5 MB"] if ranges else [])
    assert server.asked == [None, "bytes=500000-"]
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_what_is_no_beginning_of_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_bytes(CONTENT + b"more")
    with pytest.raises(DataError, match="416"):
        fetch(server, tmp_path / "file")
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_bytes(CONTENT)
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_answers_that_name_the_part_are_believed_only_then(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_bytes(CONTENT[:5000])
    server.shift = 1
    with pytest.raises(DataError, match="another part"):
        fetch(server, tmp_path / "file")
    server.shift, server.unknown = 0, True
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_refusals_name_the_next_step(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="404 .*do something else"):
        fetch(server, tmp_path / "file", "other")
    with pytest.raises(DataError, match="without a network, do something else"):
        download("http://127.0.0.1:9/file", tmp_path / "file", hint="do something else")
    assert not (tmp_path / "file").exists()

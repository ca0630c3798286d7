"""Downloads: whatever the server, the disk or the address does, a file is whole, continued, or refused in words."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
import urllib.request
from pathlib import Path

import pytest

from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.model import download as module
from napari_nnunet.formats.model.download import download, forget_old

CONTENT = bytes(range(256)) * 20
SUM = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under every path, as RFC 9110 has it: parts where they exist, 416 beyond the end."""

    content = CONTENT
    version: str | None = '"v1"'
    says_length = True
    cut: int | None = None
    leads_to: str | None = None
    length: str | None = None
    asked: list

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range")))
        if self.leads_to is not None and self.path == "/elsewhere.zip":
            self.send_response(302)
            self.send_header("Location", self.leads_to)
            self.end_headers()
            return
        begin, status = 0, 200
        if self.headers.get("Range") and self.headers.get("If-Range") == self.version:
            begin, status = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
        if status == 206 and begin >= len(self.content):
            self.send_error(416)
            return
        self.send_response(status)
        if self.version is not None:
            self.send_header("ETag", self.version)
        if self.says_length:
            self.send_header("Content-Length", self.length or str(len(self.content) - begin))
        self.end_headers()
        self.wfile.write(self.content[begin : self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1000)
    handler = type("Handler", (_Handler,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        handler.address = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield handler
        httpd.shutdown()
        thread.join()


def fetch(url, folder, **options):
    *steps, path = download(url, folder, **options)
    assert isinstance(path, Path)
    return path, steps


def test_a_file_arrives_whole_step_by_step_and_alone(server, tmp_path):
    path, steps = fetch(f"{server.address}/some/where/model.zip?version=2#top", tmp_path / "new", sha256=SUM.upper())
    assert path == tmp_path / "new" / "model.zip"
    assert path.read_bytes() == CONTENT
    assert [done for done, _ in steps] == [1000, 2000, 3000, 4000, 5000, 5120]
    assert {total for _, total in steps} == {5120}
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_unknown_length_arrives_too(server, tmp_path):
    server.says_length = False
    path, steps = fetch(f"{server.address}/a.zip", tmp_path)
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (5120, None)


def test_a_download_cancelled_after_its_last_byte_is_finished_by_the_next(server, tmp_path):
    job = download(f"{server.address}/a.zip", tmp_path)
    assert next(step for step in job if step == (5120, 5120))
    job.close()
    path, _ = fetch(f"{server.address}/a.zip", tmp_path, sha256=SUM)
    assert path.read_bytes() == CONTENT
    assert server.asked[1][1] == "bytes=5119-"


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(server, tmp_path):
    server.cut = 3000
    with pytest.raises(ResourceError, match="the same command continues it"):
        fetch(f"{server.address}/a.zip", tmp_path)
    server.cut, server.version, server.content = None, '"v2"', CONTENT[::-1][:2000]
    path, steps = fetch(f"{server.address}/a.zip", tmp_path)
    assert path.read_bytes() == CONTENT[::-1][:2000]
    assert steps[0] == (1000, 2000)


def test_a_server_without_versions_is_not_asked_for_a_part(server, tmp_path):
    server.version, server.cut = None, 3000
    with pytest.raises(ResourceError):
        fetch(f"{server.address}/a.zip", tmp_path)
    server.cut = None
    assert fetch(f"{server.address}/a.zip", tmp_path)[0].read_bytes() == CONTENT
    assert [part for _, part in server.asked] == [None, None]


@pytest.mark.parametrize("notes", ["", "[]", '{"url": 1}', '{"url": "http://other/a.zip", "version": "x"}'])
def test_the_rest_of_another_download_is_not_continued(server, tmp_path, notes):
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    (tmp_path / "a.zip.part.json").write_text(notes)
    assert fetch(f"{server.address}/a.zip", tmp_path)[0].read_bytes() == CONTENT
    assert server.asked[0][1] is None


@pytest.mark.parametrize(
    ("address", "asked", "name"),
    [
        ("/Mödell 1.zip", "/M%C3%B6dell%201.zip", "Mödell 1.zip"), ("/M%C3%B6dell%201.zip", None, "Mödell 1.zip"),
        ("/", None, "model.zip"), ("/a/..%2F..%2Fb.zip", None, "b.zip"), ("/..", None, "model.zip"), ("/a:b*c.zip", None, "abc.zip"),
    ],
)  # fmt: skip
def test_addresses_are_asked_for_as_meant_and_name_files_of_the_folder_only(server, tmp_path, address, asked, name):
    path, _ = fetch(server.address + address, tmp_path / "x")
    assert path == tmp_path / "x" / name
    assert server.asked[0][0] == (asked or address)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "url", ["", "model.zip", "ftp://a/b.zip", "file:///etc/hosts", "https://", "http://[::1/a.zip"]
)
def test_what_is_no_address_is_refused(tmp_path, url):
    with pytest.raises(SettingsError, match="not the address of a file"):
        fetch(url, tmp_path)


def test_a_wrong_checksum_leaves_nothing_to_continue(server, tmp_path):
    with pytest.raises(ResourceError, match=f"its SHA-256 is {SUM} instead of 00"):
        fetch(f"{server.address}/a.zip", tmp_path, sha256="00")
    assert not list(tmp_path.iterdir())


def test_no_room_is_known_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=5119))
    with pytest.raises(ResourceError, match="Free some disk space"):
        fetch(f"{server.address}/a.zip", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.zip", "a.zip.part", "a.zip.part.json"])
def test_a_folder_in_the_way_is_told(server, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ResourceError, match="is a folder, but a file is expected"):
        fetch(f"{server.address}/a.zip", tmp_path)


def test_what_is_kept_says_where_it_is_from(server, tmp_path):
    server.cut = 3000
    with pytest.raises(ResourceError):
        fetch(f"{server.address}/a.zip", tmp_path)
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:3000]
    notes = json.loads((tmp_path / "a.zip.part.json").read_text(encoding="utf-8"))
    assert notes == {"url": f"{server.address}/a.zip", "version": '"v1"'}


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_that_is_longer_than_it_should_be_is_not_fetched_to_its_end(server, tmp_path, says_length):
    server.says_length = says_length
    with pytest.raises(ResourceError, match=r"longer than the 3,000 bytes"):
        fetch(f"{server.address}/a.zip", tmp_path, most=3000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < len(CONTENT)
    assert fetch(f"{server.address}/a.zip", tmp_path, most=len(CONTENT))[0].read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a.zip", "file:///etc/passwd"])
def test_a_server_leads_to_no_other_scheme(server, tmp_path, target):
    server.leads_to = target
    with pytest.raises(ResourceError):
        fetch(f"{server.address}/elsewhere.zip", tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".zip"]


def test_an_encrypted_address_never_leads_to_one_that_is_not():
    """There, anybody on the way could exchange a catalogue that is believed for its https."""
    request = urllib.request.Request("https://lab.org/models.json")
    for target in ("http://lab.org/models.json", "HTTP://lab.org", "ftp://lab.org/x", "//lab.org"):
        with pytest.raises(ResourceError, match="is not encrypted"):
            module._StaysEncrypted().redirect_request(request, None, 302, "Found", {}, target)
    assert module._StaysEncrypted().redirect_request(request, None, 302, "Found", {}, "https://lab.org/b") is not None


@pytest.mark.parametrize("length", ["-5", "abc", "9" * 500])
def test_an_odd_length_is_not_believed(server, tmp_path, length):
    server.length = length
    try:
        path, _ = fetch(f"{server.address}/a.zip", tmp_path)
    except ResourceError:
        return
    assert path.read_bytes() == CONTENT


def test_two_do_not_download_the_same_file_at_once(server, tmp_path):
    first = download(f"{server.address}/a.zip", tmp_path)
    next(first)
    with pytest.raises(SettingsError, match=r"a\.zip is already being downloaded"):
        fetch(f"{server.address}/a.zip", tmp_path)
    first.close()
    assert fetch(f"{server.address}/a.zip", tmp_path)[0].read_bytes() == CONTENT


def test_a_server_that_can_have_no_such_name_is_told(tmp_path):
    with pytest.raises(SettingsError, match="its server cannot have this name"):
        fetch("https://a..b/model.zip", tmp_path)


def test_what_nobody_continued_for_a_week_goes_and_what_is_fetched_stays(tmp_path):
    for name in ("old.zip.part", "old.zip.part.json", "old.zip", "new.zip.part", "taken.zip.part"):
        (tmp_path / name).touch()
        if not name.startswith("new"):
            os.utime(tmp_path / name, (1, 1))
    with claimed(tmp_path, "taken.zip is already being downloaded", part="taken.zip"):
        forget_old(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.zip.part", "taken.zip.part"]
    forget_old(tmp_path / "none")

"""Zarr at an address is read chunk by chunk, and what the other side does not give is told."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from formats_large import ome_zarr
from helpers import smooth_image
from napari_nnunet.errors import ImageError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.large.journal import BlockJournal
from napari_nnunet.formats.large.opening import Say, open_image
from napari_nnunet.jobs.large.survey import surveyed

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: fsspec reads https:// with it")
IMAGE = smooth_image((20, 40, 36))[0]
BOX = ((0, 20), (0, 40), (0, 36))


class _Quiet(SimpleHTTPRequestHandler):
    refused = 0  # what is answered for chunks

    def log_message(self, *_):
        pass

    def do_GET(self):
        if type(self).refused and "/c/" in self.path:
            self.send_error(type(self).refused)
        else:
            super().do_GET()


@pytest.fixture
def address(tmp_path):
    """An image of two levels at an address of this computer."""
    ome_zarr(tmp_path / "a.zarr", [IMAGE, IMAGE[::2, ::2, ::2]], unit="millimeter")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/a.zarr"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_level_at_an_address_is_read_as_the_file_is(address):
    image = open_image([address])
    assert (image.axes, image.geometry.spacing, image.is_address) == ("ZYX", (1.0, 1.0, 1.0), True)
    assert np.array_equal(image.read(BOX)[0], IMAGE)
    coarse = open_image([address], Say(level="1"))
    assert np.array_equal(coarse.read(((0, 10), (0, 20), (0, 18)))[0], IMAGE[::2, ::2, ::2])


def test_chunks_that_are_not_found_at_an_address_are_told_once_all_were_looked_for(address, tmp_path):
    def notes():
        found, journal = [], tmp_path / f"{len(list(tmp_path.iterdir()))}"
        journal.mkdir()
        drain(surveyed(open_image([address]), BlockJournal(journal), None), found.append)
        return [event.text for event in found if isinstance(event, Note)]

    assert notes() == []
    (tmp_path / "a.zarr/0/c/1/2/0").unlink()
    (said,) = notes()
    assert said.startswith("1 of the 75 chunks of a.zarr are not stored and count as 0")


@pytest.mark.parametrize("status", [403, 500, 503])
def test_an_address_that_does_not_answer_meanwhile_is_told_with_what_to_do(address, monkeypatch, status):
    image = open_image([address])
    monkeypatch.setattr(_Quiet, "refused", status)
    with pytest.raises(ImageError, match=rf"of a.zarr cannot be read: {status}.*See whether its address answers, and"):
        image.read(BOX)


def test_an_address_where_nothing_is_says_so():
    with pytest.raises(ImageError, match=r"http://127\.0\.0\.1:9/a\.zarr cannot be opened as zarr: Cannot connect to"):
        open_image(["http://127.0.0.1:9/a.zarr"])


def test_an_address_of_this_computer_is_a_folder_that_is_watched(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE], unit="millimeter")
    assert open_image([path.as_uri()]).files == (path / "0",)

"""A DICOM file that is packed as a whole unpacks to no more than memory holds."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from dicom_files import CT, write_series
from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats.dicom import syntax
from napari_nnunet.formats.dicom.series import read_series


def packed(path, content):
    """Write a file whose elements are packed as a whole (PS3.5, A.5)."""
    words = {2: CT, 16: "1.2.840.10008.1.2.1.99"}
    group = b"".join(
        struct.pack("<HH2sH", 2, tag, b"UI", len(word) + len(word) % 2) + word.encode() + b"\0" * (len(word) % 2)
        for tag, word in words.items()
    )
    path.write_bytes(bytes(128) + b"DICM" + group + content)
    return path


def deflated(content):
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(syntax, "_CERTAIN", 1e6)
    monkeypatch.setattr(syntax, "available_memory", lambda: 4e6)


@pytest.mark.usefixtures("little_memory")
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = packed(
        tmp_path / "a.dcm", deflated(struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 64 << 20) + bytes(64 << 20))
    )
    tracemalloc.start()
    try:
        with pytest.raises(ResourceError, match=r"a\.dcm unpacks to more than the 0\.0 GB of memory that are free"):
            read_series(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("content", [b"", b"\xff" * 5_000, deflated(bytes(2_000_000))[:-20]])
def test_what_is_damaged_is_a_sentence(tmp_path, content):
    with pytest.raises(ImageError, match=r"a\.dcm"):
        read_series(packed(tmp_path / "a.dcm", content))


@pytest.mark.usefixtures("little_memory")
def test_an_honest_one_is_read(tmp_path):
    slices = np.arange(3 * 12 * 14, dtype=np.int16).reshape(3, 12, 14)
    write_series(tmp_path / "plain", slices)
    for path in sorted((tmp_path / "plain").iterdir()):
        whole = path.read_bytes()
        at = 132 + syntax._parsed(whole[132:])[1]
        packed(path, deflated(whole[at:]))
    array, _ = read_series(tmp_path / "plain")
    assert (np.asarray(array).reshape(slices.shape) == slices).all()

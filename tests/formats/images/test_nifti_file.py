"""The bytes of NIfTI: what a header promises is what is unpacked, and no wrong number in it makes a file unreadable."""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats import room
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.formats.images.nifti_file import HEADER_BYTES, glance_at, promise_of, require_nifti, unpacked

ARRAY = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
PLAIN = nibabel.Nifti1Image(ARRAY, np.diag([0.5, 0.5, 2, 1.0])).to_bytes()


def changed(at, form, *values, content=PLAIN):
    size = struct.calcsize(form)
    return content[:at] + struct.pack(form, *values) + content[at + size :]


def saved(folder, content, name="a.nii"):
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("bits", [16, 0, 1, 8, 32, -8, 32767])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_wrong_number_of_bits_harms_nobody_for_the_type_says_it(tmp_path, bits, name):
    path = saved(tmp_path, changed(72, "<h", bits), name)
    assert promise_of(changed(72, "<h", bits)).itemsize == 2
    np.testing.assert_array_equal(read_volume([path]).array[0], ARRAY.T)


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int8, np.int32, np.float32, np.float64, np.uint16, np.int64, np.complex64]
)
@pytest.mark.parametrize("order", "<>")
def test_a_header_promises_as_many_bytes_as_there_are(kind, order):
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    content = nibabel.Nifti1Image(ARRAY.astype(kind), np.eye(4), header).to_bytes()
    assert promise_of(content).bytes == len(content)
    assert promise_of(content).shape == ARRAY.shape


@pytest.mark.parametrize(
    "start",
    [
        b"",
        PLAIN[: HEADER_BYTES - 1],
        changed(344, "3s", b"ni1"),  # its voxels are in a file beside
        changed(0, "<i", 540),
        changed(40, "<h", 8),  # axes
        changed(40, "<h", 0),
        changed(42, "<h", 0),  # voxels along one
        changed(42, "<h", -5),
        changed(108, "<f", -(2.0**31)),  # where they begin
        changed(108, "<f", math.nan),
        changed(108, "<f", math.inf),
        changed(108, "<f", 2.0**31),
    ],
)
def test_what_cannot_be_kept_is_no_promise(start):
    assert promise_of(start) is None


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES), st.sampled_from("<>"))
def test_whatever_a_header_says_its_promise_is_no_less_than_the_header(noise, order):
    head = struct.pack(f"{order}i", 348) + noise[4:344] + b"n+1\0" + noise[348:]
    promise = promise_of(head)
    assert promise is None or (promise.itemsize >= 0 and promise.bytes >= HEADER_BYTES and min(promise.shape) >= 1)


def test_a_glance_tells_what_the_name_does_not(tmp_path):
    assert not glance_at(saved(tmp_path, PLAIN)).odd
    packed = glance_at(saved(tmp_path, PLAIN, "b.nii.gz"))
    assert (packed.odd, packed.noted, packed.as_promised) == (False, len(PLAIN), True)
    (tmp_path / "c.nii.gz").write_bytes(PLAIN)
    (tmp_path / "d.NII").write_bytes(gzip.compress(PLAIN))
    assert glance_at(tmp_path / "c.nii.gz").odd
    assert glance_at(tmp_path / "d.NII").odd
    (tmp_path / "E.NII.GZ").write_bytes(gzip.compress(PLAIN))
    assert not glance_at(tmp_path / "E.NII.GZ").odd
    assert glance_at(saved(tmp_path, changed(108, "<f", 351.0))).odd
    two = tmp_path / "two.nii.gz"
    two.write_bytes(gzip.compress(PLAIN[:400]) + gzip.compress(PLAIN[400:]))
    assert not glance_at(two).as_promised
    assert glance_at(saved(tmp_path, b"", "empty.nii")).promise is None


def test_the_length_at_the_end_is_found_behind_more_than_is_peeked_at(tmp_path):
    content = nibabel.Nifti1Image(
        np.random.default_rng(0).integers(0, 9999, (20, 20, 20)).astype("<i2"), None
    ).to_bytes()
    path = saved(tmp_path, content, "large.nii.gz")
    assert path.stat().st_size > 4096
    assert glance_at(path).noted == len(content)


def test_streams_one_after_the_other_are_one_file(tmp_path):
    path = tmp_path / "a.nii.gz"
    parts = PLAIN[:360], PLAIN[360:400], PLAIN[400:]
    path.write_bytes(b"".join(map(gzip.compress, parts)) + b"\0" * 9)
    assert unpacked(path) == (PLAIN, ())
    path.write_bytes(gzip.compress(PLAIN) + b"tail")
    assert unpacked(path) == (PLAIN, ("4 bytes after its end were ignored",))


def test_no_more_is_kept_than_was_promised(tmp_path):
    path = saved(tmp_path, PLAIN + b"\7" * 5_000_000, "a.nii.gz")
    assert unpacked(path)[0] == PLAIN


@pytest.mark.parametrize("cut", [HEADER_BYTES, len(PLAIN) - 1])
def test_a_file_that_ends_early_is_truncated_packed_or_not(tmp_path, cut):
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(ImageError, match=f"truncated after {cut} of {len(PLAIN)} bytes"):
            unpacked(saved(tmp_path, PLAIN[:cut], name))
    stream = tmp_path / "b.nii.gz"
    stream.write_bytes(gzip.compress(PLAIN)[:-9])
    with pytest.raises(ImageError, match="it is truncated"):
        unpacked(stream)
    stream.write_bytes(gzip.compress(PLAIN)[:40] + b"\xff" * 60)
    with pytest.raises(zlib.error):
        unpacked(stream)


def test_voxels_that_begin_within_the_header_follow_it_only_where_the_length_says_so(tmp_path):
    content, remarks = unpacked(saved(tmp_path, changed(108, "<f", 348.0)))
    assert content == PLAIN
    assert "begin at byte 348; they were read from byte 352" in remarks[0]
    with pytest.raises(ImageError, match="not clear where they do"):
        unpacked(saved(tmp_path, changed(108, "<f", 348.0) + b"more"))
    assert unpacked(saved(tmp_path, changed(108, "<f", 0.0) + b"more"))[0] == PLAIN + b"more"


def test_what_does_not_fit_into_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda: 10**9)
    path = saved(tmp_path, changed(40, "<4h", 3, 3000, 3000, 3000), "a.nii.gz")
    with pytest.raises(
        ResourceError, match=r"3000 x 3000 x 3000 voxels, which take 54.0 GB; 1.0 GB of memory are free"
    ):
        unpacked(path)


def test_what_is_no_nifti_is_said_to_be_none(tmp_path):
    for content in (PLAIN, changed(344, "3s", b"ni1"), b"\0" * 4 + b"n+2" + b"\0" * 400):
        require_nifti(content, tmp_path / "a.nii")
    for content in (b"", b"<html>", b"\0" * 400):
        with pytest.raises(ImageError, match="is not a NIfTI file, neither compressed nor plain"):
            require_nifti(content, tmp_path / "a.nii")

"""The bytes of a NIfTI file as they are meant: unpacked, with voxels where they begin, and never more than promised."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.oddities import Mended, mended
from napari_nnunet.formats.room import require_room

GZIP = b"\x1f\x8b"
NIFTI_1 = 348  # bytes of a header of the first kind
_NIFTI_2 = 540  # of the second
#: How headers begin: their length, and then the number of axes and their sizes.
_SIZES_OF_AXES = (NIFTI_1, "<i36x8h"), (NIFTI_1, ">i36x8h"), (_NIFTI_2, "<i12x8q"), (_NIFTI_2, ">i12x8q")
_VOLUME = 3
HEADER_BYTES = 352  # with the four bytes that say whether extensions follow
_TYPE = 70  # where the header says of which type values are and, behind it, of how many bits; then, the offset
#: Bytes of a value by its type. All readers go by the type alone; some programs write a number of bits that is wrong.
_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 1536: 16, 1792: 16,
          2048: 32, 2304: 4}  # fmt: skip
_OFFSET = 108  # where the header says, in float32, at which byte the voxels begin
_GIPL_HEADER = 256
_OF_PAIR = b"ni1"  # what the header of a pair says it is; programs write it into single files, too
_PEEK = 4096  # packed bytes that hold more than a header
_PIECE = 1 << 22


class Promise(NamedTuple):
    """What a header says: sizes of the axes, bytes per value, and at which byte the voxels begin."""

    shape: tuple[int, ...]
    itemsize: int
    offset: int

    @property
    def bytes(self) -> int:
        """Length of the whole file, unpacked."""
        return max(self.offset, HEADER_BYTES) + self.itemsize * math.prod(self.shape)


def promise_of(start: bytes) -> Promise | None:
    """Return what the first 352 bytes of a single-file NIfTI-1 promise, None if they are something else."""
    if len(start) < HEADER_BYTES or start[344:347] != b"n+1":
        return None
    for order in "<>":
        size, *dim = struct.unpack_from(f"{order}i36x8h", start)
        if size == 348 and 1 <= dim[0] <= 7:
            shape = tuple(dim[1 : dim[0] + 1])
            kind, bits, offset = struct.unpack_from(f"{order}2h34xf", start, _TYPE)
            if min(shape) < 1 or not abs(offset) < 2**31:
                return None
            return Promise(shape, _BYTES.get(kind, max(bits, 0) // 8), int(offset))
    return None


def _first_bytes(packed: bytes, path: Path) -> bytes:
    """Return the beginning of what is packed; raises ImageError if that is packed again."""
    start = zlib.decompressobj(wbits=31).decompress(packed, HEADER_BYTES)
    if start[:2] == GZIP:
        raise ImageError(f"{path} is compressed twice. Unpack it once (gunzip), or export it again.")
    return start


class Glance(NamedTuple):
    """What little of a file tells of it.

    Parameters
    ----------
    start : bytes
        Its first 352 bytes, unpacked.
    promise : Promise or None
        What a single-file NIfTI-1 says of itself.
    odd : bool
        Whether it is packed or not against its name, or its voxels begin within the header.
    noted : int or None
        The length, modulo 4 GiB, that a packed stream notes at its end.
    fix : Mended or None
        Its header without sizes and places that are none, which ``start`` is then.
    """

    start: bytes
    promise: Promise | None
    odd: bool
    noted: int | None
    fix: Mended | None = None

    @property
    def as_promised(self) -> bool:
        """Whether a packed stream notes the promised length: not with several members, truncated, or more behind."""
        return self.promise is None or self.noted in (None, self.promise.bytes % 2**32)


def glance_at(path: Path) -> Glance:
    """Return what the first bytes of a file tell, and the last four; raises zlib.error if they are damaged."""
    with path.open("rb", buffering=0) as file:
        start = end = file.read(_PEEK)
        packed = start[:2] == GZIP
        if packed and len(start) == _PEEK:
            file.seek(-4, os.SEEK_END)
            end = file.read(4)
    start = _first_bytes(start, path) if packed else start[:HEADER_BYTES]
    if start[344:347] == _OF_PAIR:
        _refuse_half(start, path)
    promise = promise_of(start)
    odd = packed != path.name.lower().endswith(".gz") or (promise is not None and promise.offset < HEADER_BYTES)
    noted = int.from_bytes(end[-4:], "little") if packed else None
    fix = None if promise is None else mended(start)
    return Glance(start, promise, odd, noted) if fix is None else Glance(fix.start, promise, True, noted, fix)


def _refuse_half(start: bytes, path: Path) -> None:
    """Raise ImageError for the .hdr of two files under another name: its own bytes would be read as voxels."""
    order = "<" if start[:4] == struct.pack("<i", NIFTI_1) else ">"
    if not struct.unpack_from(f"{order}f", start, _OFFSET)[0] >= HEADER_BYTES:
        raise ImageError(
            f"{path} is the header of a pair of files (.hdr and .img) and holds no voxels. Convert the pair to one "
            ".nii.gz."
        )


def unpacked(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Return the content of a NIfTI file, packed or not, and what is odd about it.

    No more is unpacked than the header promises, and nothing where that cannot fit into memory; the rest of the
    stream is only checked. Voxels that begin within the header, which some programs write, are taken to follow it.

    Raises
    ------
    ImageError
        If the file is truncated.
    ResourceError
        If its voxels take more than the free memory.
    zlib.error
        If the packed stream is damaged.
    """
    packed = path.read_bytes()
    remarks: tuple[str, ...]
    if packed[:2] != GZIP:
        named = path.name.lower().endswith(".gz")
        content, beyond, remarks = packed, 0, ("it is not compressed, in spite of its name",) if named else ()
    else:
        content, beyond, remarks = _decompressed(path, packed)
    promise = promise_of(content[:HEADER_BYTES])
    if promise is not None and len(content) < promise.bytes:
        raise ImageError(
            f"{path} cannot be read: it is truncated after {len(content)} of {promise.bytes} bytes. Copy it again."
        )
    if promise is None or promise.offset >= HEADER_BYTES:
        return content, remarks
    exact = len(content) + beyond == promise.bytes
    if not exact and promise.offset != 0:
        where = "within the header itself" if promise.offset > 0 else "before the file"
        raise ImageError(
            f"{path} cannot be read: its header says that the voxels begin at byte {promise.offset}, {where}, and "
            f"with its {len(content) + beyond} bytes it is not clear where they do. Export it again."
        )
    order = "<" if content[:4] == struct.pack("<i", 348) else ">"
    content = content[:_OFFSET] + struct.pack(f"{order}f", HEADER_BYTES) + content[_OFFSET + 4 :]
    text = f"its header says that the voxels begin at byte {promise.offset}; they were read from byte {HEADER_BYTES}"
    return content, (*remarks, text)


def is_whole(path: Path, size: int) -> bool:
    """Whether a file that was just written has all of ``size`` bytes of voxels.

    On a full disk ITK's writers of NIfTI and GIPL leave a part of the file and say nothing; those of NRRD and
    MetaImage raise. A gzip stream ends with the length of what was packed, modulo 4 GiB.
    """
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            packed = int.from_bytes(file.read(4), "little")
        return packed == (HEADER_BYTES + size) % 2**32
    header = HEADER_BYTES if name.endswith(".nii") else _GIPL_HEADER if name.endswith(".gipl") else None
    return header is None or path.stat().st_size >= header + size


def check_gzip(path: Path, promised_bytes: Callable[[Path], int]) -> Glance | None:
    """Refuse a truncated .nii.gz: ITK reads what is there and fills the rest with whatever it finds.

    The length that gzip notes in its last four bytes must be the one the header promises (of other kinds of NIfTI,
    ``promised_bytes`` tells it); only if it is not, as of several gzip members, is everything unpacked to find out.
    Returns what a glance at it told; None of other files.
    """
    if not path.name.lower().endswith(".nii.gz"):
        return None
    look = glance_at(path)
    if look.promise is not None:
        require_room(path, look.promise.shape, look.promise.itemsize)
        promised = look.promise.bytes
    else:
        promised = promised_bytes(path)
    if look.noted == promised % 2**32:
        return look
    length = 0
    with gzip.open(path) as stream:
        while piece := stream.read(1 << 24):
            length += len(piece)
    if length < promised:
        raise ImageError(f"{path} cannot be read: it is truncated after {length} of {promised} bytes. Copy it again.")
    return look


def check_stream(path: Path) -> None:
    """Unpack a file to its end and keep nothing; raises zlib.error, OSError or EOFError if it is damaged."""
    with gzip.open(path) as stream:
        while stream.read(_PIECE):
            pass


@contextmanager
def alone(path: Path, fix: Mended | None = None) -> Iterator[Path]:
    """Give a file whose own voxels ITK reads: of a.nii.gz, it would read those of an a.nii that lies beside it."""
    beside = path.name.lower().endswith(".nii.gz") and path.with_name(path.name[:-3]).exists()
    if not beside and (fix is None or not path.name.lower().endswith((".nii", ".nii.gz"))):
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "alone.nii"
        content = unpacked(path)[0]
        copy.write_bytes(content if fix is None else straightened(content, fix))
        yield copy


def straightened(content: bytes, fix: Mended) -> bytes:
    """Return what was unpacked, with the mended places and sizes and the offset that :func:`unpacked` put there."""
    return fix.start[:_OFFSET] + content[_OFFSET : _OFFSET + 4] + fix.start[_OFFSET + 4 :] + content[HEADER_BYTES:]


class SecondVersion(RuntimeError):
    """NIfTI-2, which ITK does not read."""


def first_version(path: Path, reader: str) -> str:
    """Return ITK's reader for a file; raises SecondVersion, as ITK would RuntimeError, where it cannot read it."""
    with suppress(zlib.error, OSError):  # ITK says what is wrong
        if glance_at(path).start[4:7] in (b"n+2", b"ni2"):
            raise SecondVersion("it is NIfTI-2, which ITK does not read. Save it as NIfTI-1.")
    return reader


def axes_of(start: bytes) -> int | None:
    """Return the number of axes of a NIfTI file that begins so, without further ones of one entry; None of others."""
    for length, layout in _SIZES_OF_AXES:
        if len(start) >= struct.calcsize(layout):
            said, count, *sizes = struct.unpack_from(layout, start)
            if said == length and 1 <= count <= len(sizes):
                while count > _VOLUME and sizes[count - 1] == 1:
                    count -= 1
                return int(count)
    return None


def require_nifti(content: bytes, path: Path) -> None:
    """Raise ImageError if what was unpacked does not say that it is NIfTI, of version 1 or 2."""
    if content[344:347] not in (b"n+1", b"ni1") and content[4:7] not in (b"n+2", b"ni2"):
        raise ImageError(f"{path} is not a NIfTI file, neither compressed nor plain. Was it downloaded completely?")


def _decompressed(path: Path, packed: bytes) -> tuple[bytes, int, tuple[str, ...]]:
    """Return what was promised of a packed file, how many bytes follow that, and what is odd."""
    remarks: tuple[str, ...] = () if path.name.lower().endswith(".gz") else ("it is compressed, in spite of its name",)
    start = _first_bytes(packed[:_PEEK], path)
    promise = promise_of(start)
    if promise is not None:
        require_room(path, promise.shape, promise.itemsize)
    most = promise.bytes if promise is not None else 0  # 0: as much as there is
    parts: list[bytes] = []
    length, beyond, rest = 0, 0, packed
    while rest[:2] == GZIP and not (most and length >= most and parts):
        stream = zlib.decompressobj(wbits=31)
        part = stream.decompress(rest, max(most - length, 1) if most else 0)
        parts.append(part)
        length += len(part)
        while not stream.eof and stream.unconsumed_tail:  # what follows the voxels is only checked
            beyond += len(stream.decompress(stream.unconsumed_tail, _PIECE))
        if not stream.eof:
            raise ImageError(f"{path} cannot be read: it is truncated. Copy it again.")
        rest = stream.unused_data
    if rest.strip(b"\0") and rest[:2] != GZIP:
        remarks = (*remarks, f"{len(rest)} bytes after its end were ignored")
    return (parts[0] if len(parts) == 1 else b"".join(parts)), beyond, remarks

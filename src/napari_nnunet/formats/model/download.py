"""Files from the internet: what was there before an interruption is kept and continued."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats.atomic import FORGOTTEN, write_error, write_json
from napari_nnunet.formats.claim import claimed, is_claimed
from napari_nnunet.schema.json_text import message

_CHUNK = 1 << 20
_MEANT = "%/:=&?~#+!$,;'@()*[]"  # characters with a meaning in addresses; others, as umlauts, are encoded
_TIMEOUT = 60.0  # seconds without a byte


class _StaysEncrypted(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends to, but never from https to what can be exchanged on its way, nor to another scheme."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the next request."""
        if not newurl.startswith(("https://",) if req.full_url.startswith("https://") else ("https://", "http://")):
            raise ResourceError(
                f"{req.full_url} leads to {newurl}, which is not encrypted, so that anybody on the way could replace "
                "the file. Nothing was downloaded from there. Tell whoever runs the server."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str, folder: Path, *, sha256: str | None = None, most: int | None = None
) -> Iterator[tuple[int, int | None] | Path]:
    """Fetch a file; yields (bytes so far, bytes in all or None) and at last its path.

    Parameters
    ----------
    url : str
        http or https.
    folder : Path
        Where it goes; an interrupted download lies there as ``NAME.part`` and is continued when the server's file is
        still the same.
    sha256 : str, optional
        What the file must hash to.
    most : int, optional
        Bytes it may have; what is longer is not fetched to its end.

    Raises
    ------
    SettingsError
        If the address is none, or another process downloads this file.
    ResourceError
        If the server does not answer or refuses, the disk is full, the file is too long, or the checksum is wrong.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SettingsError(f"{url!r} is not the address of a file: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SettingsError(f"{url!r} is not the address of a file; it must begin with https://.")
    name = "".join(c for c in unquote(parts.path).rpartition("/")[2] if c.isalnum() or c in "._- ") or "model.zip"
    name = name if name.strip(".") else "model.zip"
    with claimed(folder, f"{name} is already being downloaded", part=name):
        yield from _fetched(url, folder / name, sha256, most)


def forget_old(folder: Path) -> None:
    """Delete what downloads left in a folder that nobody continued for a week."""
    for path in folder.iterdir() if folder.is_dir() else ():
        name = path.name.removesuffix(".json").removesuffix(".part")
        with suppress(OSError):
            old = not path.name.startswith(".") and time.time() - path.lstat().st_mtime > FORGOTTEN
            if old and path.is_file() and not is_claimed(folder, name):
                path.unlink()


def _fetched(url: str, target: Path, sha256: str | None, most: int | None) -> Iterator[tuple[int, int | None] | Path]:
    """Fetch a file to its place; see :func:`download`."""
    part, notes = (target.with_name(target.name + ending) for ending in (".part", ".part.json"))
    # The last byte is asked for once more: of a file that had arrived completely, servers refuse what comes after it.
    have = max(0, part.stat().st_size - 1) if part.is_file() and message(notes).get("url") == url else 0
    known = message(notes).get("version") if have else None
    request = urllib.request.Request(quote(url, safe=_MEANT), headers={"User-Agent": "napari-nnunet"})
    if have and known:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", str(known))
    try:
        with urllib.request.build_opener(_StaysEncrypted).open(request, timeout=_TIMEOUT) as answer:
            goes_on = answer.status == 206
            have = have if goes_on else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length is not None and length.isdecimal() and len(length) < 20 else None
            _check_length(url, total, most)
            _check_room(target.parent, total, have)
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            write_json(notes, {"url": url, "version": version})
            for done in _save(answer, part, have, total):
                _check_length(url, done, most)
                yield done, total
    except urllib.error.HTTPError as error:
        raise ResourceError(f"{url} was refused by its server: {error.code} {error.reason}.") from error
    except UnicodeError as error:  # of the name of a server, such as one with two dots
        raise SettingsError(f"{url!r} is not the address of a file: its server cannot have this name.") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"{url} could not be downloaded ({reason}). What arrived is kept: the same command continues it."
        ) from error
    yield _finished(part, notes, target, sha256, url)


def _save(answer: Any, part: Path, have: int, total: int | None) -> Iterator[int]:
    """Write what arrives; yields how many bytes are there."""
    with _open(part, "r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        while True:
            chunk = answer.read(_CHUNK)
            if not chunk:
                break
            try:
                file.write(chunk)
            except OSError as error:
                raise write_error(part, error) from error
            have += len(chunk)
            yield have
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _open(path: Path, mode: str) -> Any:
    try:
        return path.open(mode)
    except OSError as error:
        raise write_error(path, error) from error


def _check_length(url: str, length: int | None, most: int | None) -> None:
    if length is not None and most is not None and length > most:
        raise ResourceError(f"{url} is longer than the {most:,} bytes that it should have, so it is not that file.")


def _check_room(folder: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - have > free:
        raise ResourceError(
            f"The file takes {total / 1e9:.2f} GB, but {folder} has {free / 1e9:.2f} GB free. Free some disk space."
        )


def _finished(part: Path, notes: Path, target: Path, sha256: str | None, url: str) -> Path:
    if sha256 is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.strip().lower():
            part.unlink()
            notes.unlink(missing_ok=True)
            raise ResourceError(
                f"The file from {url} is not the expected file: its SHA-256 is {found} instead of {sha256}. It was "
                "deleted."
            )
    try:
        part.replace(target)
    except OSError as error:
        raise write_error(target, error) from error
    notes.unlink(missing_ok=True)
    return target

"""Files from the internet: what was there before an interruption is kept and continued."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats.atomic import make_folder, write_error, write_json
from napari_nnunet.schema.json_text import message

_CHUNK = 1 << 20
_MEANT = "%/:=&?~#+!$,;'@()*[]"  # characters with a meaning in addresses; others, as umlauts, are encoded
_TIMEOUT = 60.0  # seconds without a byte


def download(url: str, folder: Path, *, sha256: str | None = None) -> Iterator[tuple[int, int | None] | Path]:
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

    Raises
    ------
    SettingsError
        If the address is none.
    ResourceError
        If the server does not answer or refuses, the disk is full, or the checksum is wrong.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SettingsError(f"{url!r} is not the address of a file: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SettingsError(f"{url!r} is not the address of a file; it must begin with https://.")
    name = "".join(c for c in unquote(parts.path).rpartition("/")[2] if c.isalnum() or c in "._- ") or "model.zip"
    name = name if name.strip(".") else "model.zip"
    part, notes = make_folder(folder) / f"{name}.part", folder / f"{name}.part.json"
    # The last byte is asked for once more: of a file that had arrived completely, servers refuse what comes after it.
    have = max(0, part.stat().st_size - 1) if part.is_file() and message(notes).get("url") == url else 0
    known = message(notes).get("version") if have else None
    request = urllib.request.Request(quote(url, safe=_MEANT), headers={"User-Agent": "napari-nnunet"})
    if have and known:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", str(known))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # the scheme was checked above
            goes_on = answer.status == 206
            have = have if goes_on else 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            _check_room(folder, total, have)
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            write_json(notes, {"url": url, "version": version})
            yield from _save(answer, part, have, total)
    except urllib.error.HTTPError as error:
        raise ResourceError(f"{url} was refused by its server: {error.code} {error.reason}.") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"{url} could not be downloaded ({reason}). What arrived is kept: the same command continues it."
        ) from error
    yield _finished(part, notes, folder / name, sha256, url)


def _save(answer: Any, part: Path, have: int, total: int | None) -> Iterator[tuple[int, int | None]]:
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
            yield have, total
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _open(path: Path, mode: str) -> Any:
    try:
        return path.open(mode)
    except OSError as error:
        raise write_error(path, error) from error


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

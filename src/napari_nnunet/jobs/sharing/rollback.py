"""Is a signed catalogue older than one that was used here? A signature alone does not say."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from napari_nnunet.errors import ModelError, NnunetError
from napari_nnunet.events import Note
from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.schema.json_text import read_object

_MOST = 200  # keys that are remembered


def _path() -> Path:
    return Path(platformdirs.user_data_dir("napari-nnunet", appauthor=False)) / "catalogues.json"


def look_at_age(address: str, key: bytes, written: datetime | None) -> Note | None:
    """Return what is to be said of the age of a catalogue that was signed; the newest of every key is remembered.

    Parameters
    ----------
    address : str
        Of the catalogue, for the sentence.
    key : bytes
        The public key by which it is signed.
    written : datetime, optional
        When it was written, as it says itself; UTC where it names no zone.
    """
    if written is None:
        return Note(
            text=f"{address} does not say when it was written ('written'), so that an earlier catalogue of the same "
            "key would look like the newest one."
        )
    written = _zoned(written)
    name, known = base64.b64encode(key).decode(), _known()
    newest = known.get(name)
    if newest is not None and written < newest:
        return Note(
            level="warning",
            text=f"{address} was written {written.isoformat(' ', 'minutes')}, before the one of the same key that was "
            f"read here earlier ({newest.isoformat(' ', 'minutes')}). Its models may have been replaced or withdrawn "
            "since: somebody put an old catalogue back, or shows you one. Ask whoever shares the models before you use "
            "it.",
        )
    if newest != written:
        latest = {**{k: v for k, v in known.items() if k != name}, name: written}
        with suppress(NnunetError, OSError):  # what cannot be remembered is not compared
            make_folder(_path().parent)
            write_json(_path(), {k: v.isoformat() for k, v in list(latest.items())[-_MOST:]})
    return None


def _known() -> dict[str, datetime]:
    """Return the newest date of every key; nothing of a file that is damaged."""
    found: dict[str, datetime] = {}
    try:
        content = read_object(_path(), ModelError)
    except (NnunetError, OSError):
        return found
    for name, text in content.items():
        with suppress(ValueError, TypeError):
            found[name] = _zoned(datetime.fromisoformat(text))
    return found


def _zoned(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time

"""Models by name: a catalogue is a small file that says what there is, where it lies and what it must hash to."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import unquote, urljoin

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from napari_nnunet.errors import ModelError, ResourceError, SettingsError, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.model.download import download
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.install import Installed, download_model, install_zip
from napari_nnunet.jobs.sharing.rollback import look_at_age
from napari_nnunet.jobs.sharing.signature import (
    SIGNATURE_ENDING,
    check_signature,
    public_key,
    read_signature,
    unsigned,
)
from napari_nnunet.schema.json_text import first_problem, json_object, read_content, text_in
from napari_nnunet.schema.requests.sharing import DownloadRequest, FetchModelRequest, InstallRequest, ListModelsRequest

VARIABLE = "NAPARI_NNUNET_CATALOGUE"
_VERSION = 1
_LARGEST = 4 << 20  # bytes of a catalogue: some thousand models
_MOST_BYTES = 1 << 50  # of a zip
_LISTED = 30  # names that a sentence lists
_MARK = "#sha256="  # before the checksum that an address demands of its file, as in package indexes
_KEY_MARK = "#ed25519="  # before the public key by which a catalogue must be signed
_WEB = ("http://", "https://")
_DEMAND = re.compile(
    r"#\s*(sha(?![a-z])|ed\W*\d|ed\w*25519|key|[\w\s-]*[=:])", re.IGNORECASE
)  # what may be meant as a mark
_MISPLACED = re.compile(r"[?&;#]\s*(sha-?256|ed-?25519)\s*[=:]", re.IGNORECASE)  # a mark where a server alone sees it

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
# Without what a terminal obeys, or what turns the order of letters.
Phrase = Annotated[
    str,
    StringConstraints(max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"),
]
PlainName = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class CatalogueEntry(BaseModel):
    """A zip of models that can be fetched.

    Parameters
    ----------
    name : str
        By which it is asked for.
    segments : tuple of str
        The classes it finds.
    modality : str
        In which images.
    licence : str
        Under which the weights may be used.
    size : int
        Bytes of the zip.
    sha256 : str
        Checksum of the zip.
    url : str
        Where it lies; relative to the catalogue where it is no whole address.
    title, description, authors, citation : str
        Free text.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: PlainName
    segments: Annotated[tuple[Phrase, ...], Len(1)]
    modality: Phrase
    licence: Phrase
    size: Annotated[int, Gt(0), Le(_MOST_BYTES)]
    sha256: Digest
    url: Phrase
    title: Phrase = ""
    description: Phrase = ""
    authors: Phrase = ""
    citation: Phrase = ""

    @property
    def text(self) -> str:
        """The card of the model, in lines."""
        lines = [self.title or self.name, self.description]
        lines += [f"Finds {', '.join(self.segments)} in {self.modality}", f"Licence: {self.licence}"]
        lines += [f"{name.capitalize()}: {value}" for name in ("authors", "citation") if (value := getattr(self, name))]
        return "\n".join(line for line in [*lines, f"{self.size / 1e6:,.1f} MB from {self.url}"] if line)


class _File(BaseModel):
    """The content of a catalogue."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Annotated[int, Ge(0)]
    written: datetime | None = None
    models: tuple[CatalogueEntry, ...]


@dataclass(frozen=True)
class Catalogue:
    """What there is to fetch.

    Parameters
    ----------
    address : str
        Where the file lies, without a checksum.
    entries : tuple of CatalogueEntry
        With whole addresses, in the order of the file.
    written : datetime, optional
        When it was written, as it says itself.
    """

    address: str
    entries: tuple[CatalogueEntry, ...]
    written: datetime | None = None

    def entry(self, name: str) -> CatalogueEntry:
        """Return a model by its name; raises ModelError where there is none."""
        found = next((entry for entry in self.entries if entry.name.casefold() == name.strip().casefold()), None)
        if found is None:
            names = some([entry.name for entry in self.entries], _LISTED) or "none"
            raise ModelError(f"The catalogue {self.address} has no model {name[:100]!r}. It has: {names}.")
        return found


def address_of(typed: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the address of the catalogue: what was typed or set, else what the environment says.

    Raises
    ------
    SettingsError
        If there is none.
    """
    values = os.environ if environment is None else environment
    found = typed.strip() or values.get(VARIABLE, "").strip()
    if not found:
        raise SettingsError(
            "No catalogue of models is known: somebody who shares models gives you its address.",
            shell=f"Give it with --catalogue ADDRESS, or set {VARIABLE}.",
            window="Set it in napari's preferences (nnU-Net > Folders > Catalogue of models).",
        )
    return found


def list_models(request: ListModelsRequest) -> Job[Catalogue]:
    """Read a catalogue.

    Parameters
    ----------
    request : ListModelsRequest
        Its address: a file, or one of http(s). With ``#sha256=...`` behind it, the catalogue must have that checksum;
        with ``#ed25519=...``, a public key, it must be signed by that key: the signature lies beside it, with the
        ending ``.sig``. Without either it is read by https or from a file only.

    Raises
    ------
    SettingsError
        If no address is known, or it is one of http without a checksum or key, or the key is none, or what is behind
        its ``#`` is neither.
    ModelError
        If it is no catalogue, or another one than checksum or key demand.
    ResourceError
        If it cannot be read.
    """
    address, checksum, key = _parted(address_of(request.catalogue))
    yield Stage(name="Reading the catalogue")
    if not address.startswith(_WEB):
        path = Path(address).expanduser()
        content = read_content(path, ModelError, largest=_LARGEST)
        if key is not None:
            beside = path.with_name(path.name + SIGNATURE_ENDING)
            check_signature(content, read_signature(beside, address), key, address)
        return (yield from _aged(_catalogue(address, path, content, checksum), key))
    with TemporaryDirectory() as folder:
        path = _fetched(address, Path(folder), _LARGEST)
        content = read_content(path, ModelError, largest=_LARGEST)
        if key is not None:
            try:
                beside = _fetched(_beside(address), Path(folder), _LARGEST)
            except ResourceError as error:
                raise unsigned(address, error.message) from error
            check_signature(content, read_signature(beside, address), key, address)
        return (yield from _aged(_catalogue(address, path, content, checksum), key))


def _aged(catalogue: Catalogue, key: bytes | None) -> Job[Catalogue]:
    """Return a catalogue; of one that is signed, say where it is older than it should be."""
    said = None if key is None else look_at_age(catalogue.address, key, catalogue.written)
    if said is not None:
        yield said
    return catalogue


def _parted(typed: str) -> tuple[str, str | None, bytes | None]:
    """Return the address itself, and the checksum or the key that it demands; raises SettingsError."""
    address, pinned, checksum = typed.partition(_MARK)
    if pinned:
        _refuse_demands(address)
        return address, checksum, None
    address, signed, written = typed.partition(_KEY_MARK)
    _refuse_demands(address)
    if address.startswith(_WEB) and (found := _MISPLACED.search(unquote(address))):
        raise SettingsError(
            f"{address} has a {found[1]} in the middle, where it demands nothing. Put it behind the whole address, "
            f"with a plain '#' before it: {_MARK}... or {_KEY_MARK}...."
        )
    if signed:
        if address.startswith(_WEB) and not _place(address).partition("://")[2].partition("/")[2]:
            raise SettingsError(
                f"{address} names a computer and no file on it, so that nothing lies beside it that could be its "
                "signature. Type the whole address of the catalogue, such as https://example.org/models.json."
            )
        return address, None, public_key(written)
    if address.startswith("http://"):
        raise SettingsError(
            f"{address} can be tampered with on its way to you, and has no checksum. Use an address that begins with "
            f"https://, or put the checksum of the catalogue behind it ({address}{_MARK}...), or the key by which "
            f"it is signed ({_KEY_MARK}...)."
        )
    return address, None, None


def _refuse_demands(address: str) -> None:
    """Raise SettingsError where an address demands something by a mark that is mistyped: it would be passed over."""
    _, mark, demand = address.partition("#")
    if not mark or (not address.startswith(_WEB) and (not _DEMAND.search(address) or _is_here(address))):
        return  # a file of this computer may have a # in its name
    raise SettingsError(f"#{demand[:20]} behind an address means nothing: {_MARK}... and {_KEY_MARK}... are known.")


def _is_here(address: str) -> bool:
    """Whether an address is a file of this computer."""
    try:
        return Path(address).expanduser().is_file()
    except (OSError, RuntimeError):  # too long; nobody's home
        return False


def _place(address: str) -> str:
    """Return an address without its query."""
    return address.partition("?")[0]


def _beside(address: str) -> str:
    """Return the address of the signature of a catalogue; a query stays behind it."""
    place, mark, query = address.partition("?")
    return f"{place}{SIGNATURE_ENDING}{mark}{query}"


def _fetched(address: str, folder: Path, most: int) -> Path:
    """Return a file of the internet."""
    with closing(download(address, folder, most=most)) as pieces:  # type: ignore[type-var]
        for piece in pieces:
            if isinstance(piece, Path):
                return piece
    raise ModelError(f"{address} returned no file.")


def _catalogue(address: str, path: Path, content: bytes, checksum: str | None) -> Catalogue:
    """Return the catalogue in a file, whose content was read once: what is checked is what is used."""
    text = text_in(content, path, ModelError)
    found = hashlib.sha256(content).hexdigest()
    if checksum is not None and found != checksum.strip().lower():
        raise ModelError(
            f"The catalogue {address} is not the expected one: its SHA-256 is {found} instead of "
            f"{checksum}. Ask whoever shares the models for its new checksum."
        )
    fields = json_object(text, address, ModelError)
    try:
        version = fields.get("format_version")
        if isinstance(version, int) and version > _VERSION:
            raise ModelError(f"{address} was written for a later version of napari-nnunet. Update it.")
        read = _File.model_validate(fields)
    except ValidationError as error:
        raise ModelError(f"{address} is not a catalogue of models: {first_problem(error)}") from error
    names = Counter(entry.name.casefold() for entry in read.models)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise ModelError(f"{address} has two models with the name {twice}.")
    entries = tuple(e.model_copy(update={"url": _whole(e.url, address, path)}) for e in read.models)
    return Catalogue(address, entries, read.written)


def _whole(url: str, address: str, path: Path) -> str:
    """Return the whole address of a zip: beside its catalogue where it is relative."""
    if address.startswith(_WEB):
        try:
            whole = urljoin(address, url)
        except ValueError:  # brackets that hold no number of a computer
            whole = ""
        if not whole.startswith(_WEB):
            raise ModelError(f"{address} names {url!r}, which is not an internet address.")
        return whole
    return url if url.startswith(_WEB) else str(path.parent / url)


def _sum(path: Path) -> str:
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ResourceError(f"{path} cannot be read ({error.strerror or error}).") from error


def fetch_model(workspace: Workspace, request: FetchModelRequest) -> Job[Installed]:
    """Download the models of a catalogue's entry and install them; its card is said before.

    An interrupted download is continued by the same request.

    Raises
    ------
    ModelError, ResourceError, SettingsError
        As :func:`list_models` and :func:`napari_nnunet.jobs.sharing.install.download_model`, and if the catalogue has
        no such model.
    """
    catalogue = yield from list_models(request.only(ListModelsRequest))
    entry = catalogue.entry(request.name)
    yield Note(text=entry.text)
    if entry.url.startswith(_WEB):
        wanted = DownloadRequest(url=entry.url, sha256=entry.sha256, replace_models=request.replace_models)
        return (yield from download_model(workspace, wanted, most=entry.size))
    path = Path(entry.url)
    found = _sum(path)
    if found != entry.sha256.lower():
        raise ResourceError(
            f"{path} is not the file that the catalogue {catalogue.address} means: its SHA-256 is {found} instead of "
            f"{entry.sha256}."
        )
    return (yield from install_zip(workspace, InstallRequest(source=path, replace_models=request.replace_models)))

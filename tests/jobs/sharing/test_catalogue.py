"""Models are fetched by name from a catalogue that is checked before it is believed."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import sys
import threading
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import napari_nnunet
from helpers import Recipe, make_model
from napari_nnunet.cli import main
from napari_nnunet.errors import ModelError, ResourceError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.catalogue import address_of, fetch_model, list_models
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.requests.sharing import ExportSettings, FetchModelRequest, ListModelsRequest


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with a zip and the catalogue that names it, as a lab shares it."""
    folder = tmp_path_factory.mktemp("shared")
    model = make_model(folder / "theirs", Recipe(name="Dataset009_Sent"))
    drain(export_models([model], folder / "sent.zip", ExportSettings(licence="CC0")))
    write(folder, entry(folder))
    return folder


def entry(folder, **changes):
    content = (folder / "sent.zip").read_bytes()
    return {
        "name": "sent", "segments": ["organ", "lesion"], "modality": "MR", "licence": "CC BY 4.0",
        "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "url": "sent.zip", **changes,
    }  # fmt: skip


def write(folder, *entries, name="models.json", **changes):
    path = folder / name
    path.write_text(json.dumps({"format_version": 1, "models": entries, **changes}))
    return path


def checksum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def address(shared):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=shared)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def signed(path, key=None, *, text=False):
    """Sign a catalogue as openssl does; returns its public key as addresses have it."""
    key = key or Ed25519PrivateKey.generate()
    signature = key.sign(path.read_bytes())
    written = base64.encodebytes(signature) if text else signature  # two lines, as base64 of GNU writes it
    path.with_name(f"{path.name}.sig").write_bytes(written)
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def read(catalogue):
    return drain(list_models(ListModelsRequest(catalogue=str(catalogue))))


def fetch(folder, catalogue, name="sent"):
    return drain(fetch_model(Workspace.at(folder), FetchModelRequest(catalogue=str(catalogue), name=name)))


def test_a_model_is_fetched_from_an_address_by_its_name_after_its_card_was_shown(shared, address, tmp_path, capfd):
    pinned = f"{address}/models.json#sha256={checksum(shared / 'models.json')}"
    assert main(["list_models", "--catalogue", pinned]) == 0
    assert "sent: organ, lesion in MR" in capfd.readouterr().out
    assert main(["fetch_model", "SENT", "--catalogue", pinned, "--workspace", str(tmp_path)]) == 0
    said = capfd.readouterr()
    assert "Finds organ, lesion in MR\nLicence: CC BY 4.0" in said.err
    assert "Licence: CC0" in said.out  # the zip's own card
    assert (Workspace.at(tmp_path).results / "Dataset009_Sent").is_dir()


def test_a_catalogue_in_a_folder_names_what_lies_beside_it(shared, tmp_path):
    found = napari_nnunet.list_models(catalogue=str(shared / "models.json"))
    assert [(e.name, e.url) for e in found] == [("sent", str(shared / "sent.zip"))]
    folders = napari_nnunet.fetch_model("sent", workspace=tmp_path, catalogue=str(shared / "models.json"))
    assert napari_nnunet.load_model(folders[0]).dataset.labels.names[1] == "organ"
    assert (shared / "sent.zip").is_file()


def test_an_address_that_can_be_exchanged_on_its_way_needs_a_checksum(address):
    with pytest.raises(SettingsError, match="has no checksum. Use an address that begins with https"):
        read(f"{address}/models.json")


def test_another_catalogue_than_the_checksum_demands_is_not_used(shared, address, tmp_path):
    pinned = checksum(shared / "models.json")
    forged = write(shared, entry(shared, sha256="0" * 64), name="forged.json")
    for place in (f"{address}/forged.json", forged):
        with pytest.raises(ModelError, match="is not the expected one"):
            fetch(tmp_path, f"{place}#sha256={pinned}")


@pytest.mark.parametrize("where", ["address", "folder"])
def test_a_zip_that_is_not_the_one_the_catalogue_means_is_not_installed(shared, address, tmp_path, where):
    path = write(shared, entry(shared, sha256="0" * 64), name="other.json")
    place = path if where == "folder" else f"{address}/other.json#sha256={checksum(path)}"
    with pytest.raises(ResourceError, match="is not the"):
        fetch(tmp_path, place)
    assert not Workspace.at(tmp_path).results.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"title": "\x1b[2J"}, "title"),
        ({"sha256": "abc"}, "sha256"),
        ({"size": -1}, "size"),
        ({"size": 10**400}, "."),
        ({"segments": []}, "segments"),
        ({"licence": None}, "licence"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_catalogue_with_a_wrong_entry_is_refused(shared, tmp_path, changes, said):
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"format_version": 1, "models": [entry(shared, **changes)]}))
    with pytest.raises(ModelError) as raised:
        read(path)
    assert said in raised.value.message


@pytest.mark.parametrize(
    "content", ["[]", "{}", "no", '{"format_version": 1, "models": 3}', '{"format_version": [], "models": []}']
)
def test_what_is_no_catalogue_is_refused(tmp_path, content):
    (tmp_path / "models.json").write_text(content)
    with pytest.raises(ModelError):
        read(tmp_path / "models.json")
    with pytest.raises(ModelError, match="is a folder"):
        read(tmp_path)


def test_a_catalogue_of_a_later_version_or_with_two_of_a_name_is_refused(shared, tmp_path):
    later = tmp_path / "later.json"
    later.write_text(json.dumps({"format_version": 2, "models": [{"new": 1}]}))
    with pytest.raises(ModelError, match="later version"):
        read(later)
    with pytest.raises(ModelError, match="two models with the name sent"):
        read(write(tmp_path, entry(shared), entry(shared, name="Sent")))


def test_a_catalogue_of_the_internet_names_nothing_on_this_computer(shared, address):
    path = write(shared, entry(shared, url="file:///etc/passwd"), name="local.json")
    with pytest.raises(ModelError, match="not an internet address"):
        read(f"{address}/local.json#sha256={checksum(path)}")


def test_an_unknown_name_is_answered_with_those_there_are(shared, tmp_path):
    with pytest.raises(ModelError, match="no model 'liver'. It has: sent"):
        fetch(tmp_path, shared / "models.json", "liver")


def test_the_address_may_be_a_setting():
    assert address_of(" a.json ", {}) == "a.json"
    assert address_of("", {"NAPARI_NNUNET_CATALOGUE": "b.json"}) == "b.json"
    with pytest.raises(SettingsError, match="No catalogue of models is known"):
        address_of("", {})


@pytest.mark.parametrize("text", [False, True], ids=["bytes", "base64"])
@pytest.mark.parametrize("where", ["address", "folder"])
def test_a_catalogue_that_is_signed_may_change_and_is_used_by_its_key(shared, address, tmp_path, where, text):
    path = write(shared, entry(shared), name="signed.json")
    key = Ed25519PrivateKey.generate()
    public = signed(path, key, text=text)
    place = f"{path if where == 'folder' else f'{address}/signed.json'}#ed25519={public}"
    assert [e.name for e in read(place).entries] == ["sent"]
    write(shared, entry(shared, title="Sent again"), name="signed.json")
    signed(path, key, text=text)
    assert read(place).entries[0].title == "Sent again"
    fetch(tmp_path, place)
    assert (Workspace.at(tmp_path).results / "Dataset009_Sent").is_dir()


@pytest.mark.parametrize("where", ["address", "folder"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("changed", "is not signed by the key that its address demands"),
        ("another", "is not signed by the key that its address demands"),
        ("short", r"has no signature that can be read \(what lies beside it is not a signature of Ed25519\)"),
        ("unsigned", r"has no signature that can be read \(.*\.json\.sig .*\), but its address demands one"),
        ("empty", r"has no signature that can be read \(.*\.json\.sig beside it is missing, empty or none\)"),
    ],
)
def test_a_catalogue_without_the_signature_of_its_key_is_not_used(shared, address, tmp_path, where, how, said):
    path = write(shared, entry(shared), name=f"{how}.json")
    beside = path.with_name(f"{path.name}.sig")
    public = signed(path)
    if how == "changed":
        path.write_text(path.read_text().replace("CC BY 4.0", "CC BY 9.0"))
    elif how == "another":
        signed(path)  # by a new key
    elif how == "short":
        beside.write_bytes(beside.read_bytes()[:40])
    elif how == "unsigned":
        beside.unlink()
    else:
        beside.write_bytes(b"")
    with pytest.raises(ModelError, match=f"{said}.*Nothing\\s+of it is used"):
        fetch(tmp_path, f"{path if where == 'folder' else f'{address}/{path.name}'}#ed25519={public}")
    assert not Workspace.at(tmp_path).results.is_dir()


@pytest.mark.parametrize("key", ["", "abc", "A" * 43 + "!", base64.b64encode(bytes(31)).decode()])
def test_what_is_no_key_is_refused_before_anything_is_read(key):
    with pytest.raises(SettingsError, match="is not a public key of Ed25519, which is 32 bytes in base64"):
        read(f"nowhere.json#ed25519={key}")


@pytest.mark.parametrize(
    "mark",
    [
        "#ed25519:abc", "#SHA256=0", "#Ed25519=abc", "#sha-256=0", "# ed25519=abc", "#sha512=0", "#key=abc",
        "#ed22519=abc", "#ed25519:abc#a", "#ed25519:abc#sha256=0", "#key=abc#ed25519=abc",
    ],
)  # fmt: skip
def test_a_mark_that_is_mistyped_does_not_mean_that_anything_is_believed(shared, mark):
    for place in ("https://lab.example.org/models.json", shared / "models.json"):
        with pytest.raises(SettingsError, match=r"behind an address means nothing: #sha256=\.\.\. and #ed25519="):
            read(f"{place}{mark}")


@pytest.mark.parametrize("mark", ["#", "#a", "#abc#sha256=0", "#2"])
def test_of_a_web_address_nothing_else_may_be_behind_it(mark):
    with pytest.raises(SettingsError, match="behind an address means nothing"):
        read(f"https://lab.example.org/models.json{mark}")


@pytest.mark.parametrize(
    "place",
    [
        "models.json?ed25519=KEY", "models.json?v=2&ed25519=KEY", "models.json?ED25519=KEY&v=2", "?ed-25519:KEY",
        "models.json?sha256=SUM", "models.json?v=1;sha256=SUM", "models.json%23ed25519=KEY", "models.json%23sha256=SUM",
        "models.json?v=%26ed25519%3DKEY", "models.json?sha256=SUM#ed25519=KEY", "models.json?ed25519=KEY#ed25519=KEY",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["https", "http"])
def test_a_mark_in_the_middle_of_an_address_is_not_passed_over(kind, place):
    key = base64.b64encode(bytes(32)).decode()
    whole = f"{kind}://example.org/{place}".replace("KEY", key).replace("SUM", "0" * 64)
    with pytest.raises(SettingsError, match="in the middle, where it demands nothing"):
        drain(list_models(ListModelsRequest(catalogue=whole)))


@pytest.mark.parametrize("query", ["?ed25519s=1", "?signed=25519", "?v=2", "?x-amz-signature=sha256", "?a=1&sha=2"])
def test_another_query_is_none(query, monkeypatch):
    asked = []

    def fetched(address, folder, most):
        asked.append(address)
        raise ResourceError("offline")

    monkeypatch.setattr("napari_nnunet.jobs.sharing.catalogue._fetched", fetched)
    with pytest.raises(ResourceError):
        drain(list_models(ListModelsRequest(catalogue=f"https://example.org/models.json{query}")))
    assert asked == [f"https://example.org/models.json{query}"]


def test_the_signature_of_an_address_with_a_query_lies_beside_the_file(monkeypatch):
    asked = []

    def fetched(address, folder, most):
        asked.append(address)
        path = folder / "models.json"
        path.write_text("{}", encoding="utf-8")
        return path

    monkeypatch.setattr("napari_nnunet.jobs.sharing.catalogue._fetched", fetched)
    key = base64.b64encode(bytes(32)).decode()
    with pytest.raises(ModelError, match="not a signature|no signature"):
        drain(list_models(ListModelsRequest(catalogue=f"https://example.org/models.json?v=2&a=b#ed25519={key}")))
    assert asked == ["https://example.org/models.json?v=2&a=b", "https://example.org/models.json.sig?v=2&a=b"]


@pytest.mark.parametrize("name", ["cases #2.json", "a#key=b.json"])
def test_a_file_may_have_such_a_mark_in_its_name(shared, name):
    path = write(shared, entry(shared), name=name)
    assert read(path).entries and read(f"{path}#sha256={checksum(path)}").entries


@pytest.mark.parametrize("place", [".", "/", ""])
def test_a_folder_with_a_key_is_no_catalogue(place):
    key = base64.b64encode(bytes(32)).decode()
    with pytest.raises(ModelError, match="is a folder; a file is expected"):
        read(f"{place}#ed25519={key}")


@pytest.mark.parametrize(
    "place", ["https://lab.example.org", "https://lab.example.org/", "http://lab.example.org?a=/b"]
)
def test_the_signature_of_a_bare_computer_is_not_asked_of_another(place):
    key = base64.b64encode(bytes(32)).decode()
    with pytest.raises(SettingsError, match="names a computer and no file on it.*Type the whole address"):
        read(f"{place}#ed25519={key}")


def test_without_the_library_a_catalogue_with_a_key_is_not_used(shared, monkeypatch):
    path = write(shared, entry(shared), name="signed_too.json")
    public = signed(path)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ResourceError, match=r"pip install napari-nnunet\[signed\].*Until then nothing of it is used"):
        read(f"{path}#ed25519={public}")


def test_a_key_signs_the_zip_by_its_checksum(shared, tmp_path):
    path = write(shared, entry(shared, sha256="0" * 64), name="wrong_sum.json")
    with pytest.raises(ResourceError, match="is not the file that the catalogue"):
        fetch(tmp_path, f"{path}#ed25519={signed(path)}")


def said_of(folder, key, *, written=None):
    """Write and sign a catalogue of a date; returns what is said of it."""
    path = write(folder, entry(folder), name="dated.json", **({} if written is None else {"written": written}))
    heard = []
    drain(list_models(ListModelsRequest(catalogue=f"{path}#ed25519={signed(path, key)}")), heard.append)
    return [(event.level, event.text) for event in heard if isinstance(event, Note)]


def test_a_signed_catalogue_that_is_older_than_one_read_before_is_said_to_be(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    key = Ed25519PrivateKey.generate()
    assert said_of(shared, key, written="2026-03-01") == []
    assert said_of(shared, key, written="2026-03-02T12:00:00+02:00") == []
    assert said_of(shared, key, written="2026-03-02T10:00:00Z") == []  # the same moment
    ((level, text),) = said_of(shared, key, written="2026-03-01")
    assert level == "warning"
    assert "was written 2026-03-01 00:00+00:00" in text and "(2026-03-02 12:00+02:00)" in text
    assert said_of(shared, key, written="2026-03-01")  # the newest stays the newest
    assert said_of(shared, Ed25519PrivateKey.generate(), written="2020-01-01") == []  # of another key
    assert said_of(shared, key, written="2026-03-03") == []
    assert said_of(shared, key, written="9999-12-31T23:59:59-12:00") == []


def test_a_signed_catalogue_without_a_date_is_said_to_have_none(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ((level, text),) = said_of(shared, Ed25519PrivateKey.generate())
    assert level != "warning" and "does not say when it was written" in text


def test_what_is_remembered_of_catalogues_may_be_damaged_or_not_writable(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    key = Ed25519PrivateKey.generate()
    said_of(shared, key, written="2026-03-02")
    remembered = next(tmp_path.rglob("catalogues.json"))
    for damaged in ("", "[]", '{"x": 3}', "{"):
        remembered.write_text(damaged)
        assert said_of(shared, key, written="2026-03-01") == []
    monkeypatch.setenv("XDG_DATA_HOME", str(shared / "sent.zip"))
    assert said_of(shared, key, written="2026-03-01") == []


@pytest.mark.parametrize("written", ["yesterday", [], {}])
def test_a_date_that_is_none_is_refused(shared, written):
    path = write(shared, entry(shared), name="odd.json", written=written)
    with pytest.raises(ModelError, match="is not a catalogue of models: .*written"):
        read(path)

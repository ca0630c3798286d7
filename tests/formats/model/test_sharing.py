"""Models out and in: what comes back is what was sent, and what is not safe or not whole changes nothing."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_nnunet
from helpers import Recipe, make_model
from napari_nnunet import load_model, predict
from napari_nnunet.cli import main
from napari_nnunet.errors import ModelError, ResourceError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.model import bundle, card, download
from napari_nnunet.formats.model.bundle import inspect, is_model_zip
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.known_models import cache_folder
from napari_nnunet.formats.model.model_trash import trash_model
from napari_nnunet.formats.results.summary import CaseScore, Summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.cards import card_text, read_card
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import download_model, install_zip
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import DownloadRequest, ExportSettings, InstallRequest

CPU = PredictSettings(device="cpu", precision="float32")


@pytest.fixture
def sent(tmp_path):
    """A model with scores, and the zip it was exported to."""
    model = make_model(tmp_path / "mine" / "nnUNet_results", Recipe(folds=(0, 1)))
    metrics = {"Dice": 0.8, "IoU": 0.7}
    for fold in (0, 1):
        (model.folder / f"fold_{fold}" / "validation").mkdir()
        cases = tuple(CaseScore(name, Path(name), Path(name), {"1": metrics}) for name in ("a", "b"))
        summary = Summary(metrics, {"1": metrics, "2": {"Dice": 0.9, "IoU": 0.7}}, cases)
        summary.write(model.folder / f"fold_{fold}" / "validation" / "summary.json")
    path = tmp_path / "model.zip"
    drain(export_models([model], path, ExportSettings(title="Tiny", licence="CC0")))
    return model, path


def _workspace(tmp_path):
    return Workspace.at(tmp_path / "yours")


def _files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []


def test_a_model_comes_back_as_it_was_sent_with_its_card(sent, tmp_path, volume):
    model, path = sent
    assert is_model_zip(path)
    installed = drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    (folder,) = installed.folders
    np.testing.assert_array_equal(
        predict(load_model(folder), volume, settings=CPU).labels, predict(model, volume, settings=CPU).labels
    )
    card = read_card(folder.parent)
    assert card == installed.card
    assert (card.title, card.licence, card.channels) == ("Tiny", "CC0", ("MR",))
    assert [entry.name for entry in card.classes] == ["organ", "lesion"]
    (entry,) = card.models
    assert entry.cases == 4 and entry.dice == pytest.approx(0.8)
    assert entry.dice_per_class == pytest.approx({"organ": 0.8, "lesion": 0.9})
    assert "3d_fullres: 1 x 1 x 1 mm, 2 folds, Dice 0.800 in 4 validation cases" in card_text(card)


def test_the_verbs_send_and_take_in(sent, tmp_path, capsys):
    model, _ = sent
    mine = str(model.folder.parents[2])
    words = ["export_model_to_zip", "-d", "1", "-o", str(tmp_path / "x.zip"), "--workspace", mine, "-f", "0"]
    assert main([*words, "--light", "--authors", "A. Nonym"]) == 0
    assert main(["install-pretrained-model-from-zip", str(tmp_path / "x.zip"), "--workspace", str(tmp_path / "y")]) == 0
    shown = capsys.readouterr().out
    assert "Authors: A. Nonym" in shown and "nnUNetTrainer__nnUNetPlans__3d_fullres" in shown
    assert main([*words, "--light"]) == 1
    assert "exists" in capsys.readouterr().err
    for extra, status in ((["-c", "2d"], 1), (["-c", "2d", "3d_fullres", "--not_strict"], 0)):
        assert main([*words, "--replace", *extra]) == status


def test_a_light_checkpoint_predicts_the_same_and_cannot_be_trained_on(sent, tmp_path, volume):
    model, _ = sent
    path = model.checkpoint_path(0, "checkpoint_final.pth")
    content = read_raw(path)
    momentum = {i: {"momentum_buffer": torch.randn(40_000)} for i in range(9)}
    torch.save({**content, "optimizer_state": {"state": momentum, "param_groups": []}}, tmp_path / "x.pth")
    (tmp_path / "x.pth").replace(path)  # what was read is still mapped to the old file
    zips = {}
    for light in (False, True):
        zips[light] = tmp_path / f"{light}.zip"
        drain(export_models([model], zips[light], ExportSettings(folds=(0,), light=light)))
    assert zips[True].stat().st_size < 0.5 * zips[False].stat().st_size
    (folder,) = drain(install_zip(_workspace(tmp_path), InstallRequest(source=zips[True]))).folders
    assert read_raw(folder / "fold_0" / "checkpoint_final.pth")["optimizer_state"] is None
    settings = CPU.replace(folds=(0,))
    ours = predict(load_model(folder), volume, settings=settings).labels
    np.testing.assert_array_equal(ours, predict(model, volume, settings=settings).labels)


def test_a_cascade_takes_its_first_stage_along(tmp_path):
    low = make_model(tmp_path / "r", Recipe(configuration="3d_lowres"))
    high = make_model(tmp_path / "r", Recipe(configuration="3d_cascade_fullres", previous_stage="3d_lowres"))
    drain(export_models([high], tmp_path / "c.zip", ExportSettings()))
    assert inspect(tmp_path / "c.zip").models == (high.folder.name, low.folder.name)
    shutil.rmtree(low.folder)
    with pytest.raises(ModelError, match="needs its first stage"):
        drain(export_models([high], tmp_path / "d.zip", ExportSettings()))


def test_what_exists_is_never_overwritten_and_can_be_replaced(sent, tmp_path):
    _, path = sent
    workspace = _workspace(tmp_path)
    (folder,) = drain(install_zip(workspace, InstallRequest(source=path))).folders
    (folder / "mine.txt").write_text("x")
    with pytest.raises(ModelError, match=r"exists in .* already.*--replace"):
        drain(install_zip(workspace, InstallRequest(source=path)))
    assert (folder / "mine.txt").is_file()
    drain(install_zip(workspace, InstallRequest(source=path, replace_models=True)))
    assert not (folder / "mine.txt").exists()
    assert list(workspace.results.glob("trash/Dataset001_Tiny/*/mine.txt"))
    aside = trash_model(folder)
    assert aside.is_dir() and not folder.exists()


def _zip(path, entries, *, mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            if mode is not None:
                info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "a//../../b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    path = _zip(tmp_path / "z.zip", {"D/M/plans.json": "{}", "D/M/dataset.json": "{}", name: "x"})
    with pytest.raises(ModelError, match="Do not trust this file"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    assert not is_model_zip(path)
    assert _files(tmp_path / "yours") == [] or _files(_workspace(tmp_path).results) == []


def test_links_are_refused(tmp_path):
    path = _zip(tmp_path / "z.zip", {"link": "/etc/passwd"}, mode=0o120777)
    with pytest.raises(ModelError, match="Do not trust"):
        inspect(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "_FREE", 1000)
    root = "Dataset001_T/nnUNetTrainer__nnUNetPlans__2d"
    entries = {
        f"{root}/plans.json": "{}",
        f"{root}/dataset.json": "{}",
        f"{root}/fold_0/checkpoint_final.pth": b"\0" * 9_000_000,
    }
    path = _zip(tmp_path / "z.zip", entries)
    with pytest.raises(ModelError, match="would unpack to"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    assert _files(_workspace(tmp_path).results) == []


def test_a_zip_of_something_else_and_a_half_one_are_told_apart(sent, tmp_path):
    _, path = sent
    other = _zip(tmp_path / "photos.zip", {"holiday/beach.jpg": b"x"})
    with pytest.raises(ModelError, match=r"contains no trained model.*beach\.jpg"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=other)))
    half = tmp_path / "half.zip"
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="not a complete zip"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=half)))
    with pytest.raises(ModelError, match="does not exist"):
        inspect(tmp_path / "none.zip")
    assert _files(_workspace(tmp_path).results) == []


def test_a_flipped_byte_and_an_exchanged_checkpoint_leave_nothing_behind(sent, tmp_path):
    _, path = sent
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("fold_1/checkpoint_final.pth"))
        contents = {name: archive.read(name) for name in archive.namelist()}
    data[entry.header_offset + 2000] ^= 1
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data)
    with pytest.raises(ModelError, match=r"damaged at .*fold_1/checkpoint_final\.pth"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=damaged)))
    names = [name for name in contents if name.endswith("checkpoint_final.pth")]
    contents[names[0]] = contents[names[1]]
    with pytest.raises(ModelError, match="does not match the checksum in its model card"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=_zip(tmp_path / "other.zip", contents))))
    assert _files(_workspace(tmp_path).results) == []


def test_a_checkpoint_that_would_execute_something_is_refused(sent, tmp_path):
    _, path = sent

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if not name.endswith("model_card.json")}
    name = next(name for name in contents if name.endswith("checkpoint_final.pth"))
    contents[name] = pickle.dumps({"network_weights": Harmful()}, protocol=2)
    with pytest.raises(ModelError, match="was refused"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=_zip(tmp_path / "evil.zip", contents))))
    assert not (tmp_path / "touched").exists()
    assert _files(_workspace(tmp_path).results) == []


def test_no_room_is_known_before_anything_is_written(sent, tmp_path, monkeypatch):
    _, path = sent
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ResourceError, match="Free some disk space"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    assert _files(_workspace(tmp_path).results) == []


def test_a_cancelled_installation_leaves_nothing(sent, tmp_path):
    job = install_zip(_workspace(tmp_path), InstallRequest(source=sent[1]))
    for _ in range(3):
        next(job)
    job.close()
    assert _files(_workspace(tmp_path).results) == []


def test_a_model_zipped_by_hand_is_taken_in_as_well(sent, tmp_path):
    model, _ = sent
    plain = {
        f"some folder/{p.relative_to(model.folder.parent)}": p.read_bytes()
        for p in model.folder.rglob("*")
        if p.is_file()
    }
    plain["__MACOSX/._x"] = b""
    (folder,) = drain(
        install_zip(_workspace(tmp_path), InstallRequest(source=_zip(tmp_path / "hand.zip", plain)))
    ).folders
    assert folder == _workspace(tmp_path).results / "Dataset001_Tiny" / model.folder.name  # as its plans say
    assert read_card(folder.parent) is None


def test_a_fold_that_is_missing_is_named_and_a_card_has_known_fields(sent, tmp_path):
    model, _ = sent
    with pytest.raises(ModelError, match="Fold 3 has no checkpoint_final"):
        drain(export_models([model], tmp_path / "x.zip", ExportSettings(folds=(0, 3))))
    with pytest.raises(SettingsError, match="no setting 'colour'"):
        drain(export_models([model], tmp_path / "x.zip", ExportSettings.of(colour="red")))
    assert not (tmp_path / "x.zip").exists()


def test_the_python_doors_send_and_take_in(sent, tmp_path):
    model, _ = sent
    path = napari_nnunet.export_models([model.folder], tmp_path / "p.zip", licence="CC0")
    (folder,) = napari_nnunet.install_models(path, workspace=tmp_path / "w")
    assert folder.is_relative_to(tmp_path / "w" / "nnUNet_results")
    assert read_card(folder.parent).licence == "CC0"
    with pytest.raises(ModelError, match="already"):
        napari_nnunet.install_models(path, workspace=tmp_path / "w")


# --- downloads --------------------------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    content = b""
    breaks_after: int | None = None
    requests: list

    def do_GET(self):
        type(self).requests.append(self.headers.get("Range"))
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        begin = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == '"v1"':
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        part = self.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part if self.breaks_after is None else part[: self.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(sent):
    handler = type("Handler", (_Handler,), {"content": sent[1].read_bytes(), "requests": []})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_an_interrupted_download_goes_on_where_it_was(sent, server, tmp_path, monkeypatch):
    handler, address = server
    monkeypatch.setattr(download, "_CHUNK", 1024)
    handler.breaks_after = 5000
    with pytest.raises(ResourceError, match="the same command continues it"):
        drain(download_model(_workspace(tmp_path), DownloadRequest(url=f"{address}/model.zip")))
    handler.breaks_after = None
    digest = hashlib.sha256(sent[1].read_bytes()).hexdigest()
    (folder,) = drain(
        download_model(_workspace(tmp_path), DownloadRequest(url=f"{address}/model.zip", sha256=digest))
    ).folders
    assert load_model(folder).folds() == (0, 1)
    assert handler.requests == [None, "bytes=4999-"]


def test_a_wrong_checksum_a_missing_file_and_no_server_are_errors(server, tmp_path):
    _, address = server
    workspace = _workspace(tmp_path)
    with pytest.raises(ResourceError, match="SHA-256"):
        drain(download_model(workspace, DownloadRequest(url=f"{address}/model.zip", sha256="0" * 64)))
    with pytest.raises(ResourceError, match="404"):
        drain(download_model(workspace, DownloadRequest(url=f"{address}/missing.zip")))
    with pytest.raises(ResourceError, match="could not be downloaded"):
        drain(download_model(workspace, DownloadRequest(url="http://127.0.0.1:9/model.zip")))
    for url in ("file:///etc/passwd", "model.zip"):
        with pytest.raises(SettingsError, match="not the address"):
            drain(download_model(workspace, DownloadRequest(url=url)))
    assert _files(workspace.results) == []


def test_a_download_that_cannot_be_installed_does_not_stay(server, tmp_path, monkeypatch):
    handler, address = server
    monkeypatch.setattr(handler, "content", b"no zip at all")
    with pytest.raises(ModelError):
        drain(download_model(_workspace(tmp_path), DownloadRequest(url=f"{address}/model.zip")))
    assert _files(cache_folder() / "downloads") == []


def test_bad_zips_from_the_verbs_end_with_a_sentence(tmp_path, capsys):
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    assert main(["install_pretrained_model_from_zip", str(tmp_path / "x.zip"), "--workspace", str(tmp_path)]) == 1
    assert "not a complete zip" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named_when_it_is_put_into_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for missing in (tmp_path / "gone.json", tmp_path):
            with pytest.raises(ModelError, match=rf"{missing.name} cannot be read: (No such file|Is a directory)"):
                card.add_file(archive, missing, "x")
        assert archive.namelist() == []

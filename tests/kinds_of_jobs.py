"""Real jobs on small folders, a table of them: what is prepared, what runs, which files count."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from choices import CPU, INFO, RULES, label_folder, member_folder, random_labels, validated
from helpers import DATASET, TRAINED, Recipe, make_dataset, make_model, make_trainable, smooth_image, write_nifti
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.events import Job, drain
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.jobs.choosing.postprocess import determine
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.prediction.combined import Combination, Member
from napari_nnunet.jobs.prediction.predict_files import predict_combined_folder, predict_folder
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import install_zip
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.choosing import EnsembleRequest, FindBestRequest
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest
from napari_nnunet.schema.requests.training import TrainRequest


def _hash(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _digest(path: Path) -> str:
    """Return what a file says, without the times that archives and logs note."""
    if path.suffix == ".gz":
        return _hash(gzip.decompress(path.read_bytes()))
    if path.suffix == ".npz" or path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return _hash(*(name.encode() + archive.read(name) for name in sorted(archive.namelist())))
    if path.suffix == ".pth":
        content = read_raw(path)
        state = (content["optimizer_state"] or {"state": {}})["state"]
        tensors = [*content["network_weights"].values(), *(entry["momentum_buffer"] for entry in state.values())]
        log = content["logging"] or {}
        losses = [log.get(name) for name in ("train_losses", "val_losses", "ema_fg_dice")]
        return _hash(*(tensor.numpy().tobytes() for tensor in tensors), str(losses).encode())
    return _hash(path.read_bytes())


def contents(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the digest of every file that counts, by its path."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): _digest(path) for path in found}


@dataclass(frozen=True)
class Kind:
    """A job, in a folder that is prepared for it.

    Parameters
    ----------
    prepare : callable
        Fills the folder.
    job : callable
        Makes the job; also the one that continues what was cancelled.
    results : tuple of str
        Patterns of the files that count.
    """

    prepare: Callable[[Path], object]
    job: Callable[[Path], Job[Any]]
    results: tuple[str, ...]


def _images(folder: Path, count: int = 2) -> None:
    (folder / "in").mkdir()
    for i in range(count):
        write_nifti(folder / "in" / f"p{i}_0000.nii.gz", smooth_image((10, 18, 20), seed=i)[0])


def _model_and_images(folder: Path) -> None:
    make_model(folder / "nnUNet_results", Recipe(folds=(0, 1)))
    _images(folder)


def _model(folder: Path, name: str = "nnUNet_results"):
    return load_model(next((folder / name).glob("Dataset*/nnUNetTrainer__*")))


def _masks(folder: Path) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(3):
        image = smooth_image((8, 12, 10), seed=i)[0]
        write_nifti(folder / "images" / f"p{i}.nii.gz", image)
        write_nifti(folder / "masks" / f"p{i}.nii.gz", (255 * (image > 120)).astype("uint8"))


def _predict(folder: Path) -> Job[Any]:
    request = PredictFolderRequest(
        source=folder / "in", target=folder / "out", probabilities=True, keep_finished=True, device="cpu", threads=1,
        precision="float32", mirroring=False,
    )  # fmt: skip
    return predict_folder(_model(folder), request)


def _predict_together(folder: Path) -> Job[Any]:
    model = _model(folder)
    members = tuple(Member(model, CPU.replace(folds=(fold,), threads=1)) for fold in (0, 1))
    request = PredictFolderRequest(source=folder / "in", target=folder / "out", keep_finished=True)
    return predict_combined_folder(Combination(members, VoteSettings(uncertainty=True)), request)


def _train(folder: Path) -> Job[Any]:
    request = TrainRequest(
        dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True, epochs=3, iterations=2,
        validation_iterations=1, workers=0, device="cpu", threads=1,
    )  # fmt: skip
    return train(Workspace.at(folder), request)


def _postprocess(folder: Path) -> None:
    truth = {name: random_labels(i) for i, name in enumerate("abc")}
    label_folder(folder / "ref", truth)
    label_folder(folder / "pred", {name: random_labels(7 + i) for i, name in enumerate("abc")})


def _ensemble(folder: Path) -> Job[Any]:
    request = EnsembleRequest(sources=(folder / "x", folder / "y"), target=folder / "out", uncertainty=True)
    return ensemble_folders(request)


def _send(folder: Path) -> None:
    make_model(folder / "elsewhere", Recipe(folds=(0, 1)))
    drain(export_models([_model(folder, "elsewhere")], folder / "sent.zip", ExportSettings()))


def _install(folder: Path) -> Job[Any]:
    return install_zip(Workspace.at(folder), InstallRequest(source=folder / "sent.zip", replace_models=True))


KINDS = {
    "train": Kind(make_trainable, _train, (f"nnUNet_results/{TRAINED}/*/fold_0/checkpoint_final.pth",
        f"nnUNet_results/{TRAINED}/*/fold_0/validation/*")),
    "plan and preprocess": Kind(
        lambda folder: make_dataset(folder, cases=3, shape=(12, 16, 14)),
        lambda folder: plan_and_preprocess(Workspace.at(folder), PlanAndPreprocessRequest(dataset=DATASET)),
        (f"nnUNet_preprocessed/{DATASET}/nnUNetPlans.json", f"nnUNet_preprocessed/{DATASET}/*/*"),
    ),
    "import": Kind(
        _masks,
        lambda folder: import_folders(
            Workspace.at(folder), ImportFoldersRequest(images=folder / "images", masks=folder / "masks", name="Cells")
        ),
        ("nnUNet_raw/Dataset001_Cells/**/*",),
    ),
    "predict a folder": Kind(_model_and_images, _predict, ("out/*.nii.gz", "out/*.npz")),
    "predict with an ensemble": Kind(_model_and_images, _predict_together, ("out/**/*.nii.gz",)),
    "join folders": Kind(
        lambda folder: [member_folder(folder / name, ("a", "b", "c"), seed=i) for i, name in enumerate("xy")],
        _ensemble,
        ("out/**/*.nii.gz", "out/*.json"),
    ),
    "postprocessing": Kind(
        _postprocess,
        lambda folder: determine(folder / "pred", folder / "ref", RULES, INFO.labels),
        ("pred/**/*",),
    ),
    "find the best": Kind(
        lambda folder: [validated(folder, name, (0, 1), quality=0.8) for name in ("2d", "3d_fullres")],
        lambda folder: find_best(Workspace.at(folder), FindBestRequest(dataset="1", folds=(0, 1))),
        ("nnUNet_results/**/*.nii.gz", "nnUNet_results/**/postprocessing.pkl"),
    ),
    "export": Kind(
        lambda folder: make_model(folder / "nnUNet_results", Recipe(folds=(0, 1))),
        lambda folder: export_models([_model(folder)], folder / "a.zip", ExportSettings(replace_zip=True, light=True)),
        ("a.zip",),
    ),
    "install": Kind(_send, _install, ("nnUNet_results/Dataset*/**/*",)),
}  # fmt: skip


def leftovers(folder: Path) -> list[str]:
    """Return hidden files, which a job must not leave."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.startswith(".nnunet")]


def renewed(ready: Path) -> Path:
    """Return the folder beside, as it was prepared: at the same place, which some files name."""
    folder = ready.with_name("work")
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(ready, folder)

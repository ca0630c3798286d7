"""What the pages' readers have before they begin, made of the package's own sample data: small, so that it is quick."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import zarr

from dicom_files import boxed, write_series, write_structures
from helpers import write_nifti
from napari_nnunet.cli import main
from napari_nnunet.engine.synthetic import make_crowd, make_volume
from napari_nnunet.formats.images.files import read_labels

SHAPE = (12, 40, 40)
MODEL = "nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres"
PATIENTS = ("patient1_a", "patient1_b", "patient2_a", "patient3_a", "patient4_a", "patient5_a")
_SPACING = (1.0, 0.5, 0.5)
World = dict[str, object]


def shell(*words: str) -> None:
    """Carry out a command, which must succeed."""
    assert main(list(words)) == 0, words


def volumes(
    folder: Path,
    names: tuple[str, ...],
    *,
    masks: Path | None = None,
    channel: str = "_0000",
    first: int = 0,
    shape: tuple[int, int, int] = SHAPE,
) -> None:
    """Write sample volumes, and their masks with the values 0, 1, 2 into another folder."""
    for seed, name in enumerate(names, start=first):
        image, labels = make_volume(seed, shape)
        folder.mkdir(parents=True, exist_ok=True)
        write_nifti(folder / f"{name}{channel}.nii.gz", np.rint(image).astype(np.uint16), _SPACING)
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            write_nifti(masks / f"{name}.nii.gz", labels, _SPACING)


def crowds(folder: Path, names: tuple[str, ...], *, masks: Path | None = None, first: int = 0) -> None:
    """Write sample pictures of touching nuclei, and masks in which each has its number into another folder."""
    for seed, name in enumerate(names, start=first):
        image, objects = make_crowd(seed, (96, 96))
        folder.mkdir(parents=True, exist_ok=True)
        iio.imwrite(folder / f"{name}.tif", np.clip(image, 0, 255).astype(np.uint8))
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            iio.imwrite(masks / f"{name}.png", objects)


def plan(*words: str) -> None:
    """Plan a small network under the name of nnU-Net's plans."""
    planner = ("-pl", "SmallPlanner", "-overwrite_plans_name", "nnUNetPlans", "-gpu_memory_target", "0.06")
    shell("plan_and_preprocess", *words, *planner)


class Kept:
    """Datasets and models that several pages begin with; made once and copied."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def into(self, here: Path, name: str, make: Callable[[], None]) -> None:
        """Copy nnU-Net's three folders of that name here, where the current folder is; they are made the first time."""
        kept = self.root / name
        if not kept.is_dir():
            make()
            for part in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
                if (here / part).is_dir():
                    shutil.copytree(here / part, kept / part)
        shutil.copytree(kept, here, dirs_exist_ok=True)

    def planned(self, here: Path) -> World:
        """Dataset 4, planned and preprocessed; images of nobody's yet."""

        def make() -> None:
            volumes(here / "made/images", PATIENTS, masks=here / "made/masks")
            labels = ("--classes", "1=Anterior", "2=Posterior", "--channels", "MRI")
            shell("import_folders", "-i", "made/images", "-m", "made/masks", "-n", "Dataset004_Hippocampus", *labels)
            plan("-d", "4", "-c", "2d", "3d_fullres")

        self.into(here, "planned", make)
        volumes(here / "images", ("one", "two"), first=50)
        return {}

    def trained(self, here: Path) -> World:
        """Dataset 4 with a model of its first fold."""

        def make() -> None:
            self.planned(here)
            shell("train", "4", "3d_fullres", "0")

        self.into(here, "trained", make)
        volumes(here / "images", ("one", "two"), first=50)
        return {}


def start(here: Path, _: Kept) -> World:
    """Two folders of somebody's own."""
    volumes(here / "images", PATIENTS, masks=here / "masks", channel="")
    volumes(here / "new_images", ("new",), first=50)
    return {}


def training_data(here: Path, _: Kept) -> World:
    """Masks as people have them: black and white, colours, classes as numbers, objects."""
    names = ("a", "b", "c", "d", "e")
    crowds(here / "input", names, masks=here / "numbered")
    crowds(here / "more", ("f",), masks=here / "more_numbered", first=5)
    for folder in ("ground_truth", "drawings", "values", "more_truth"):
        (here / folder).mkdir()
    for seed, name in enumerate((*names, "f")):
        objects = make_crowd(seed, (96, 96))[1]
        folder = "ground_truth" if name in names else "more_truth"
        iio.imwrite(here / folder / f"{name}.png", np.where(objects > 0, 255, 0).astype(np.uint8))
        if name not in names:
            continue
        values = np.where(objects > 0, objects % 9 + 1, 0).astype(np.uint8)
        values[values == 3], values[values == 4], values[:4] = 1, 2, 255
        iio.imwrite(here / "values" / f"{name}.png", values)
        colours = np.array([(0, 0, 0), (255, 0, 0), (0, 128, 255)], dtype=np.uint8)
        iio.imwrite(here / "drawings" / f"{name}.png", colours[np.where(objects > 0, 1 + objects % 2, 0)])
    shutil.rmtree(here / "more_numbered")
    return {}


def train(here: Path, kept: Kept) -> World:
    return kept.planned(here)


def ensemble(here: Path, kept: Kept) -> World:
    """A cross-validation's dataset, and two readers' segmentations of it."""
    kept.planned(here)
    shutil.copy(here / "nnUNet_raw/Dataset004_Hippocampus/dataset.json", here)
    volumes(here / "images", ("one", "two"), masks=here / "references", first=50)
    for reader in ("reader_a", "reader_b"):
        shutil.copytree(here / "references", here / reader)
    results = here / "nnUNet_results/Dataset004_Hippocampus"
    name = "nnUNetTrainer__nnUNetPlans__"
    return {
        "model_2d": str(results / f"{name}2d"),
        "model_3d": str(results / f"{name}3d_fullres"),
        "array": make_volume(60, SHAPE)[0],
    }


def objects(here: Path, _: Kept) -> World:
    """Numbered nuclei, new pictures of them, and a time series."""
    crowds(here / "images", ("a", "b", "c", "d", "e"), masks=here / "masks")
    crowds(here / "new_images", ("pos1_t000", "pos1_t001"), masks=here / "references", first=30)
    volumes(here / "images_of_years", ("p_2001", "p_2002", "p_2003"), masks=here / "segmentations")
    return {}


def labelling(here: Path, _: Kept) -> World:
    """Scribbles, organs that were not looked for everywhere, images without labels."""
    names = tuple(f"heart_{i}" for i in range(5))
    flat = (10, 40, 40)
    volumes(here / "images", names, masks=here / "scribbles", channel="", shape=flat)
    for path in (here / "scribbles").iterdir():
        labels = read_labels(path)[0]
        labels[:, :6], labels[:, -6:] = 4, 255
        write_nifti(path, labels, _SPACING)
    for folder, organs, first in (("ct_a", "livers", 0), ("ct_b", "spleens", 10)):
        volumes(here / folder, tuple(f"{folder}_{i}" for i in range(4)), masks=here / organs, channel="", first=first)
        for path in (here / organs).iterdir():
            write_nifti(path, (read_labels(path)[0] > 0).astype(np.uint8), _SPACING)
    volumes(here / "unlabelled", ("u1", "u2"), first=40, shape=flat)
    return {}


def large(here: Path, kept: Kept) -> World:
    """An OME-Zarr image and a dask array."""
    import dask.array as da

    kept.trained(here)
    shutil.copytree(here / MODEL, here / "MODEL")
    image = make_volume(70, SHAPE)[0]
    group = zarr.open_group(here / "brain.ome.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=image, chunks=(12, 20, 20), dimension_names=["z", "y", "x"])
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [*_SPACING]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }
    return {"dask_array": da.from_array(image, chunks=(12, 20, 20))}


def dicom(here: Path, kept: Kept) -> World:
    """A series of a scanner, and others with the contours of a planning system."""
    kept.trained(here)
    shutil.copytree(here / MODEL, here / "MODEL")
    write_series(here / "DICOM_FOLDER", np.rint(make_volume(80, SHAPE)[0]).astype(np.int16), spacing=_SPACING)
    for case in ("anna", "bert"):
        image = np.rint(make_volume(81, SHAPE)[0]).astype(np.int16)
        series, drawn = f"1.2.3.{ord(case[0])}", {"liver": boxed((1, 2, 3), (4, 10, 12))}
        write_series(here / "SERIES" / case, image, spacing=_SPACING, series=series)
        write_structures(here / "STRUCTURES" / f"{case}.dcm", series, drawn, spacing=_SPACING)
    return {}


def scaling(here: Path, kept: Kept) -> World:
    kept.trained(here)
    shutil.copytree(here / MODEL, here / "MODEL")
    (here / "images").rename(here / "IMAGES")
    return {}


def carried(here: Path, kept: Kept) -> World:
    kept.trained(here)
    np.save(here / "image.npy", make_volume(90, SHAPE)[0])
    return {}


WORLDS: dict[str, Callable[[Path, Kept], World]] = {
    "start.md": start,
    "training-data.md": training_data,
    "train.md": train,
    "ensemble.md": ensemble,
    "objects.md": objects,
    "labelling.md": labelling,
    "labels.md": train,
    "dicom.md": dicom,
    "large-images.md": large,
    "scaling.md": scaling,
    "carried-models.md": carried,
}


def described(here: Path) -> str:
    """Tell what lies in a folder, for the message of a command that failed."""
    return json.dumps(sorted(p.name for p in here.iterdir()))

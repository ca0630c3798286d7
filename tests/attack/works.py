"""A small world of datasets, models, images and results, and everything that writes in it."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass

import numpy as np
from tally import contents

from choices import SHAPE, label_folder, member_folder, random_labels, validated
from helpers import TRAINED, Recipe, make_dataset, make_model, make_trainable, smooth_image, write_nifti
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_writer import create_dataset, drop_case, set_spacing
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.formats.json_lines import read_lines
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.model_trash import trash_model
from napari_nnunet.formats.preprocessed.cases import open_case
from napari_nnunet.formats.results.postprocessing import write_cleaning
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.manage import remove_dataset, rename_dataset
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.sharing import ExportSettings

TINY = "Dataset001_Tiny"
_SHORT = (
    "--epochs",
    "3",
    "--iterations",
    "3",
    "--validation_iterations",
    "2",
    "--workers",
    "0",
    "--threads",
    "1",
    "-device",
    "cpu",
)
_OF_TRAINED = f"{TRAINED}/nnUNetTrainer__nnUNetPlans__3d_fullres"


@dataclass(frozen=True)
class Work:
    """Something that writes.

    Parameters
    ----------
    words : tuple of str
        Its command, or one of :data:`ACTS`; {root} is the folder of the world.
    again : tuple of str
        What is added when it is run again after it was killed.
    once : bool
        Whether it is refused, or makes another thing, where it was carried out before.
    """

    words: tuple[str, ...]
    again: tuple[str, ...] = ()
    once: bool = False

    def line(self, root, *more):
        """Return its words in a world."""
        words = [word.format(root=root) for word in (*self.words, *more)]
        return words if words[0] in ACTS else [*words, "--workspace", str(root), "--no_pbar"]


#: What docks do and no command does: each takes the folder of the world.
ACTS = {
    "rename_dataset": lambda root: drain(rename_dataset(Workspace.at(root), TRAINED, "Renamed")),
    "remove_dataset": lambda root: drain(remove_dataset(Workspace.at(root), TRAINED)),
    "drop_case": lambda root: drop_case(root / "nnUNet_raw" / TRAINED, "c3"),
    "set_spacing": lambda root: set_spacing(root / "nnUNet_raw" / TRAINED, (2.0, 1.0, 1.0)),
    "trash_model": lambda root: trash_model(root / "nnUNet_results" / _OF_TRAINED),
    "trash_tiny": lambda root: trash_model(root / "nnUNet_results" / TINY / "nnUNetTrainer__nnUNetPlans__3d_fullres"),
}

WORKS = {
    "import": Work(("import_folders", "-i", "{root}/images", "-m", "{root}/masks", "-n", "New", "-np", "0"), once=True),
    "import 20": Work(("import_folders", "-i", "{root}/images", "-m", "{root}/masks", "-n", "Dataset020_New", "-np", "0"),
                      once=True),
    "convert v1": Work(("convert_old_nnUNet_dataset", "{root}/Task07_Liver", "Dataset020_Old"), once=True),
    "convert MSD": Work(("convert_MSD_dataset", "-i", "{root}/Task07_Liver", "-overwrite_id", "20", "-np", "0"), once=True),
    "derive_objects": Work(("derive_objects", "2", "--width", "2", "-np", "0")),
    "dataset.json": Work(("generate_dataset_json", "{root}/nnUNet_raw/" + TRAINED, "--channels", "MR", "--labels", "organ=1",
                          "lesion=2", "--file_ending", ".nii.gz")),
    "fingerprint": Work(("extract_fingerprint", "-d", TRAINED, "-np", "0", "--clean")),
    "plan": Work(("plan_and_preprocess", "-d", TRAINED, "-np", "0", "-npfp", "0", "-c", "3d_fullres", "--clean",
                  "-overwrite_plans_name", "Other")),
    "preprocess": Work(("preprocess", "-d", TRAINED, "-c", "3d_fullres", "-np", "0", "--clean")),
    "folds": Work(("folds", "-d", TRAINED, "--folds", "2")),
    "move plans": Work(("move_plans_between_datasets", "-s", "1", "-t", TRAINED, "-sp", "nnUNetPlans", "-tp", "Moved")),
    "train": Work(("train", TRAINED, "3d_fullres", "0", *_SHORT), again=("--c",)),
    "train 1": Work(("train", TRAINED, "3d_fullres", "1", *_SHORT), again=("--c",)),
    "predict": Work(("predict", "-i", "{root}/in", "-o", "{root}/out", "-d", "1", "-c", "3d_fullres", "-f", "0", "-device",
                     "cpu"), again=("--continue_prediction",)),
    "ensemble": Work(("ensemble", "-i", "{root}/a", "{root}/b", "-o", "{root}/out", "-np", "0")),
    "postprocess": Work(("apply_postprocessing", "-i", "{root}/seg", "-o", "{root}/out", "-pp_pkl_file",
                         "{root}/postprocessing.pkl", "-dataset_json", "{root}/seg/dataset.json", "-np", "0")),
    "determine": Work(("determine_postprocessing", "-i", "{root}/seg", "-ref", "{root}/ref", "-dataset_json",
                       "{root}/seg/dataset.json", "-np", "0")),
    "evaluate": Work(("evaluate_folder", "{root}/ref", "{root}/seg", "-djfile", "{root}/seg/dataset.json", "-np", "0",
                      "--csv", "{root}/seg/cases.csv")),
    "accumulate": Work(("accumulate_crossval_results", "1", "-c", "3d_fullres", "-f", "0", "1", "-np", "0")),
    "calibrate": Work(("calibrate", "1", "-c", "3d_fullres", "-f", "0", "1")),
    "find best": Work(("find_best_configuration", TINY, "-c", "2d", "3d_fullres", "-f", "0", "1", "-np", "0")),
    "export": Work(("export_model_to_zip", "-d", "1", "-o", "{root}/mine.zip", "-c", "3d_fullres", "-f", "0", "1",
                    "--replace", "--light")),
    "carry": Work(("export_model", "-m", "{root}/nnUNet_results/" + TINY + "/nnUNetTrainer__nnUNetPlans__3d_fullres", "-o",
                   "{root}/carried.zip", "-f", "0", "--replace")),
    "carry openvino": Work(("export_model", "-m", "{root}/nnUNet_results/" + TINY + "/nnUNetTrainer__nnUNetPlans__3d_fullres",
                            "-o", "{root}/carried.zip", "-f", "0", "--replace", "--format", "openvino")),
    "measure": Work(("measure", "-i", "{root}/numbered", "-o", "{root}/out.csv", "-np", "0")),
    "track": Work(("track", "-i", "{root}/numbered", "-o", "{root}/out", "-np", "0")),
    "evaluate objects": Work(("evaluate_objects", "{root}/numbered", "{root}/numbered", "-o", "{root}/out.json", "--csv",
                              "{root}/out.csv", "-np", "0")),
    "label errors": Work(("find_label_errors", "-d", "1", "-c", "3d_fullres", "-f", "0", "1", "-np", "0")),
    "compare": Work(("compare", "{root}/ref", "{root}/seg", "-djfile", "{root}/seg/dataset.json", "--csv", "{root}/out.csv",
                     "-np", "0")),
    "quantize": Work(("quantize", "-m", "{root}/nnUNet_results/" + TINY + "/nnUNetTrainer__nnUNetPlans__3d_fullres", "-f", "0",
                      "--cases", "1")),
    "predict image": Work(("predict_image", "-m", "{root}/nnUNet_results/" + TINY + "/nnUNetTrainer__nnUNetPlans__3d_fullres",
                           "-i", "{root}/in/c0_0000.nii.gz", "-o", "{root}/large.zarr", "-f", "0", "-device", "cpu", "--chunks",
                           "6", "10", "10"), again=("--continue",)),
    "suggest": Work(("suggest", "-d", "1", "-i", "{root}/in/c2_0000.nii.gz", "-c", "3d_fullres", "-device", "cpu",
                     "--proposals", "{root}/proposals")),
    "overlays": Work(("plot_overlay_pngs", "-d", TRAINED, "-o", "{root}/out", "--use_raw", "-np", "0")),
    "install": Work(("install_pretrained_model_from_zip", "{root}/m.zip"), once=True),
    **{name.replace("_", " "): Work((name, "{root}"), once=True) for name in ACTS},
}  # fmt: skip


def make_world(root):
    """Make the world, in which every work can be done."""
    make_trainable(root, cases=4)
    for i, configuration in enumerate(("2d", "3d_fullres")):
        validated(root, configuration, (0, 1), quality=0.6 + i / 10)
    tiny = root / "nnUNet_raw" / TINY / "imagesTr"
    tiny.mkdir(parents=True)
    for i, case in enumerate(("c0", "c1", "t2")):
        write_nifti(tiny / f"{case}_0000.nii.gz", smooth_image(SHAPE, seed=i)[0])
    (root / "in").mkdir()
    for i in range(3):
        write_nifti(root / "in" / f"c{i}_0000.nii.gz", smooth_image((12, 20, 20), seed=i)[0])
    for i, name in enumerate("ab"):
        member_folder(root / name, seed=i)
    label_folder(root / "seg", {name: random_labels(i) for i, name in enumerate("ab")})
    label_folder(root / "ref", {name: random_labels(i // 2) for i, name in enumerate("ab")})
    _folders_to_import(root)
    _objects(root)
    _task(root / "Task07_Liver")
    model = make_model(root / "sent", Recipe(name="Dataset003_Sent"))
    drain(export_models([model], root / "m.zip", ExportSettings(light=True)))
    shutil.rmtree(root / "sent")
    write_cleaning(root / "postprocessing.pkl", Cleaning.of([1]))


def _folders_to_import(root):
    folder = make_dataset(root / "source", cases=3, shape=(6, 8, 7))
    (folder / "imagesTr").rename(root / "images")
    (folder / "labelsTr").rename(root / "masks")
    for path in (root / "images").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    shutil.rmtree(root / "source")


def _objects(root):
    folder, numbered = root / "nnUNet_raw" / "Dataset002_Squares", root / "numbered"
    numbered.mkdir()
    create_dataset(folder, ["grey"], {"background": 0, "object": 1}, ".tif")
    for part in ("objectsTr", "kindsTr"):
        (folder / part).mkdir()
    plane = Geometry(spacing=(1.0, 1.0))
    for time, case in enumerate("abc"):
        objects = np.zeros((30, 40), np.uint16)
        for number, (y, x) in enumerate([(2, 2), (2, 10), (16, 4), (18, 24)], start=1):
            objects[y : y + 8, x : x + 8] = number
        picture = np.random.default_rng(ord(case)).integers(0, 255, (30, 40), dtype=np.uint8)
        write_labels(picture, plane, folder / "imagesTr" / f"{case}_0000.tif")
        write_labels(objects, plane, folder / "objectsTr" / f"{case}.tif")
        write_labels(np.roll(objects, time, axis=1), plane, numbered / f"cells_t{time:03}.tif")


def _task(folder):
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for i in range(3):
        write_nifti(folder / "imagesTr" / f"case_{i}.nii.gz", smooth_image((6, 8, 9), seed=i)[0])
        write_nifti(folder / "imagesTs" / f"test_{i}.nii.gz", smooth_image((6, 8, 9), seed=i)[0])
        write_nifti(folder / "labelsTr" / f"case_{i}.nii.gz", np.ones((6, 8, 9), np.uint8))
    description = {"name": "Liver", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"},
                   "tensorImageSize": "3D", "numTraining": 3, "numTest": 3, "training": [], "test": []}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))


# --- what is there afterwards ----------------------------------------------------------------------------------------

#: Dates, durations, process numbers and paths differ between two runs of anything.
_NEVER_THE_SAME = ("recipe.json", "debug.json", "events.jsonl", "progress.png", "inference_instructions.txt",
                   "dataset_fingerprint_sources.json", "dataset_fingerprint_values.json", "objects_sources.jsonl", "eight_bit.json",
                   "dataset_labels_checked.json")  # fmt: skip
_TIMES = ("training_log", "film/", ".cases.jsonl")  # a journal has a line for every case, in the order of their ends


def state(root):
    """Return what a world holds, without what never is the same; of checkpoints their weights."""
    found = {}
    for name, data in contents(root, _NEVER_THE_SAME).items():
        if any(part in name for part in _TIMES):
            continue
        if name.endswith(".pth"):
            weights = read_raw(root / name)["network_weights"]
            data = b"".join(np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in weights.values())
        elif name.endswith(".zip"):
            with zipfile.ZipFile(root / name) as archive:
                entries = [
                    (e.filename, e.CRC)
                    for e in archive.infolist()
                    if not e.filename.endswith(("model_card.json", ".xml"))
                ]
            data = repr(sorted(entries)).encode()
        found[_undated(name)] = data.replace(str(root).encode(), b"ROOT")
    return found


def _undated(name):
    """Leave the time out of the name of something in a trash."""
    parts = name.split("/")
    return "/".join(part.rpartition(" ")[0].rpartition(" ")[0] if " 20" in part else part for part in parts)


def broken(root, world=None):
    """Return the files of a world that are there, but not whole; those that are as they were in another one are."""
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        if world and (world / name).is_file() and path.read_bytes() == (world / name).read_bytes():
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.relative_to(root)}: {error!r:.200}")
    return found


def _read(path):
    if path.name.endswith(".json"):
        json.loads(path.read_text(encoding="utf-8"))
    elif path.name.endswith(".jsonl"):  # the last line may be torn; the next one closes it off
        assert list(read_lines(path)) or not path.stat().st_size
    elif path.name.endswith((".nii.gz", ".tif")):
        read_labels(path) if "labels" in path.parent.name else read_volume([path])
    elif path.suffix == ".b2nd" and not path.stem.endswith("_seg"):
        case = open_case(path.parent, path.stem)
        assert case.data[:].size and case.labels[:].size and case.read_properties()
    elif path.suffix == ".pth":
        read_raw(path)
    elif path.suffix in (".npz", ".zip"):
        assert path.stat().st_size > 0


def left_behind(root):
    """Return what no ended work leaves: claims, and files that were never finished."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.name.startswith(".")]
    return [name for name in names if ".partial-" in name or "claimed" in name or name.endswith(".unfinished")] + [
        str(path.relative_to(root)) for path in root.rglob("running.json")
    ]

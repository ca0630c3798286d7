"""Datasets in: folders of images and masks, DICOM, the Decathlon, nnU-Net v1."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK as sitk

from helpers import smooth_image, write_nifti
from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import Note, Progress, drain
from napari_nnunet.formats.dataset.new_dataset import next_dataset_name
from napari_nnunet.formats.dataset.pairs import pair_folders
from napari_nnunet.formats.dataset.raw_dataset import dataset_json, open_dataset
from napari_nnunet.formats.dataset.raw_writer import create_dataset, save_case
from napari_nnunet.formats.dataset.relabel import compact_values
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.convert import convert_msd, convert_old_nnunet
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import (
    ConvertMsdRequest,
    ConvertOldRequest,
    ImportFoldersRequest,
    VerifyRequest,
)

pytestmark = pytest.mark.usefixtures("in_one_process")


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path / "workspace")


@pytest.fixture
def folders(tmp_path):
    for name in ("input", "ground_truth"):
        (tmp_path / name).mkdir()
    return tmp_path / "input", tmp_path / "ground_truth"


def picture(seed, shape=(40, 50)):
    return np.clip(smooth_image((1, *shape), seed=seed)[0, 0], 0, 255).astype(np.uint8)


def run(workspace, folders, name="Cells", **changes):
    notes, job = (
        [],
        import_folders(workspace, ImportFoldersRequest(images=folders[0], masks=folders[1], name=name, **changes)),
    )
    while True:
        try:
            event = next(job)
        except StopIteration as done:
            return done.value, notes
        if isinstance(event, Note):
            notes.append(event.text)


def sound(workspace, folder):
    return [
        str(p)
        for p in drain(verify(workspace, VerifyRequest(dataset=folder.name))).problems
        if "five folds" not in p.text
    ]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a1.png", "a2.png"], ["a1.png", "a2.png"]),
        (["a1_image.png", "a2_image.png"], ["a1_mask.png", "a2_mask.png"]),
        (["image-7.png", "image-8.png"], ["label007.png", "label008.png"]),
        (["CellImg_x.png", "CellImg_y.png"], ["cell_x_gt.png", "cell_y_gt.png"]),
        (["p 1.png", "p 2.png"], ["p-1 seg.png", "p-2 seg.png"]),
    ],
)
def test_names_that_belong_together(folders, images, masks):
    for folder, names in zip(folders, (images, masks), strict=True):
        for name in names:
            iio.imwrite(folder / name, picture(0))
    pairing = pair_folders(*folders)
    assert [(pair.images[0].name, pair.mask.name) for pair in pairing.pairs] == list(zip(images, masks, strict=True))
    assert not pairing.images + pairing.masks


def test_pictures_with_255_masks_become_a_dataset(workspace, folders):
    for i in range(3):
        iio.imwrite(folders[0] / f"cell_{i}.png", picture(i))
        iio.imwrite(folders[1] / f"cell_{i}.png", (picture(i) > 120).astype(np.uint8) * 255)
    iio.imwrite(folders[0] / "lonely_9.png", picture(9))
    folder, notes = run(workspace, folders, class_names={255: "cell"})
    assert folder.name == "Dataset001_Cells"
    assert "Mask values are renumbered: 255 -> 1." in notes
    assert "1 file is left out (no mask has its name): lonely_9.png." in notes
    dataset = open_dataset(folder)
    assert dataset.info.labels.labels == {"background": 0, "cell": 1}
    assert dataset.info.file_ending == ".png"
    labels, _ = read_labels(dataset.cases[0].label)
    np.testing.assert_array_equal(labels, picture(0) > 120)
    np.testing.assert_array_equal(read_volume(dataset.cases[0].images).array[0], picture(0))
    assert not sound(workspace, folder)
    assert run(workspace, folders)[0].name == "Dataset002_Cells"  # the next free number


def test_files_that_fit_are_copied_as_they_are(workspace, folders):
    for i in range(2):
        iio.imwrite(folders[0] / f"{i}.png", np.stack([picture(i)] * 3, axis=-1))
        iio.imwrite(folders[1] / f"{i}.png", (picture(i) > 120).astype(np.uint8))
    folder, _ = run(workspace, folders)
    assert (folder / "imagesTr" / "0_0000.png").read_bytes() == (folders[0] / "0.png").read_bytes()
    assert open_dataset(folder).info.channel_names == ("R", "G", "B")
    assert not sound(workspace, folder)


def test_photographs_are_rewritten_without_further_loss(workspace, folders):
    for i in range(2):
        iio.imwrite(folders[0] / f"{i}.jpg", np.stack([picture(i), picture(i + 5), picture(i)], axis=-1))
        iio.imwrite(folders[1] / f"{i}.png", (picture(i) > 120).astype(np.uint8))
    folder, _ = run(workspace, folders)
    dataset = open_dataset(folder)
    assert len(dataset.cases[0].images) == 3
    np.testing.assert_array_equal(read_volume(dataset.cases[0].images).array, read_volume([folders[0] / "0.jpg"]).array)
    assert not sound(workspace, folder)


@pytest.mark.parametrize("suffixes", [(), ("_red", "_green")])
def test_channels_by_suffix(workspace, folders, suffixes):
    ends = suffixes or ("_0000", "_0001")
    for i in range(2):
        for c, end in enumerate(ends):
            write_nifti(folders[0] / f"s{i}{end}.nii.gz", smooth_image((8, 20, 22), seed=10 * i + c)[0], (2, 1, 1))
        write_nifti(
            folders[1] / f"s{i}.nii.gz", (smooth_image((8, 20, 22), seed=i)[0] > 120).astype(np.uint8), (2, 1, 1)
        )
    folder, _ = run(workspace, folders, suffixes=suffixes, channel_names=("T1", "T2"))
    dataset = open_dataset(folder)
    assert dataset.info.channel_names == ("T1", "T2")
    volume = read_volume(dataset.cases[1].images)
    np.testing.assert_array_equal(volume.array[1], smooth_image((8, 20, 22), seed=11)[0])
    assert volume.geometry.spacing == (2, 1, 1)
    assert not sound(workspace, folder)


def test_dicom_series_are_read_as_volumes(workspace, folders):
    for i in range(2):
        array = (smooth_image((6, 20, 22), seed=i)[0] * 3).astype(np.int16)
        series = folders[0] / f"patient_{i}"
        series.mkdir()
        _write_dicom(series, array, (2.5, 0.7, 0.7))
        (other,) = read_dicom(series)
        np.testing.assert_array_equal(other[0], array)
        np.testing.assert_allclose(other[1]["scale"], (2.5, 0.7, 0.7), rtol=1e-5)
        write_nifti(folders[1] / f"patient_{i}.nii.gz", (array > 360).astype(np.uint8), (2.5, 0.7, 0.7))
    folder, _ = run(workspace, folders, channel_names=("CT",))
    volume = read_volume(open_dataset(folder).cases[0].images)
    np.testing.assert_array_equal(volume.array[0], (smooth_image((6, 20, 22), seed=0)[0] * 3).astype(np.int16))
    np.testing.assert_allclose(volume.geometry.spacing, (2.5, 0.7, 0.7), rtol=1e-5)
    assert not sound(workspace, folder)


def read_dicom(series):
    """Open a folder as napari does when it is dropped."""
    from napari_nnunet.widgets.files.reader import get_reader

    return get_reader(str(series))(str(series))


def _write_dicom(folder, array, spacing):
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(array[::-1]):
        place = len(array) - 1 - z
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing(tuple(reversed(spacing)))
        image.SetOrigin((0, 0, place * spacing[0]))
        for tag, value in (
            ("0008|0016", "1.2.840.10008.5.1.4.1.1.2"), ("0020|000d", "1.2.3"), ("0020|000e", "1.2.3.4"),
            ("0008|0018", f"1.2.3.4.{z + 1}"), ("0020|0013", str(z + 1)), ("0008|0060", "CT"),
            ("0020|0032", f"0\\0\\{place * spacing[0]}"), ("0020|0037", "1\\0\\0\\0\\1\\0"),
            ("0018|0050", str(spacing[0])),
        ):  # fmt: skip
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"slice{z:02d}.dcm"))
        writer.Execute(image)


def test_what_cannot_be_imported_is_explained(workspace, folders):
    with pytest.raises(DatasetError, match="contains no images that can be read. It holds no files; images end in"):
        run(workspace, folders)
    (folders[0] / "a.gif").write_text("GIF89a")
    with pytest.raises(DatasetError, match=r"Its files have \.gif; images end in \.bmp, .*, or are DICOM\.$"):
        run(workspace, folders)
    (folders[0] / "a.gif").unlink()
    iio.imwrite(folders[0] / "apple.png", picture(0))
    iio.imwrite(folders[1] / "pear.png", picture(0))
    with pytest.raises(
        DatasetError, match=r"No image in .* has a mask of the same name in .* \(e.g. apple.png and pear.png\)"
    ):
        run(workspace, folders)
    iio.imwrite(folders[1] / "apple.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(
        DatasetError, match=r"apple: the image and its mask do not lie on the same grid: 40 x 50 voxels and 9 x 9"
    ):
        run(workspace, folders)
    iio.imwrite(folders[1] / "apple.png", np.zeros((40, 50), np.uint8))
    with pytest.raises(DatasetError, match="only 0: there is no class to learn"):
        run(workspace, folders)
    iio.imwrite(folders[1] / "apple.png", (picture(0) > 120).astype(np.uint8))
    with pytest.raises(DatasetError, match="The values 9 are named, but occur in no mask"):
        run(workspace, folders, class_names={9: "core"})
    with pytest.raises(DatasetError, match="2 channel names were given, but the images have 1 channel"):
        run(workspace, folders, channel_names=("a", "b"))
    with pytest.raises(DatasetError, match="is not a valid dataset name"):
        run(workspace, folders, name="../up")
    assert not (workspace.raw / "Dataset001_Cells").exists()


def _task(folder, name="Task07_Liver", **content):
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name / part).mkdir(parents=True)
    two = sitk.JoinSeries([sitk.GetImageFromArray(smooth_image((6, 8, 9), seed=s)[0].astype(np.int16)) for s in (1, 2)])
    for part in ("imagesTr/case_1", "imagesTs/case_9"):
        sitk.WriteImage(two, str(folder / name / f"{part}.nii.gz"))
    write_nifti(folder / name / "labelsTr" / "case_1.nii.gz", np.ones((6, 8, 9), np.uint8))
    (folder / name / "imagesTr" / "._case_1.nii.gz").write_bytes(b"x")
    description = {
        "name": "Liver", "tensorImageSize": "4D", "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "liver"}, "numTraining": 1, "numTest": 1,
        "training": [{"image": "x"}], "test": ["y"], **content,
    }  # fmt: skip
    (folder / name / "dataset.json").write_text(json.dumps(description))
    return folder / name


def test_a_task_of_the_decathlon(workspace, tmp_path):
    folder = drain(convert_msd(workspace, ConvertMsdRequest(source=_task(tmp_path))))
    assert folder.name == "Dataset007_Liver"
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "liver": 1}
    assert content["channel_names"] == {"0": "T2", "1": "ADC"}
    assert content["file_ending"] == ".nii.gz"
    assert not {"modality", "training", "test"} & set(content)
    assert {"tensorImageSize", "numTest"} <= set(content)
    assert sorted(p.name for p in (folder / "imagesTr").iterdir()) == ["case_1_0000.nii.gz", "case_1_0001.nii.gz"]
    assert len(list((folder / "imagesTs").iterdir())) == 2
    second = sitk.ReadImage(str(folder / "imagesTr" / "case_1_0001.nii.gz"))
    assert second.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(second), smooth_image((6, 8, 9), seed=2)[0].astype(np.int16))
    with pytest.raises(DatasetError, match="The number 7 is taken by"):
        drain(convert_msd(workspace, ConvertMsdRequest(source=tmp_path / "Task07_Liver")))
    assert (
        drain(convert_msd(workspace, ConvertMsdRequest(source=tmp_path / "Task07_Liver", number=12))).name
        == "Dataset012_Liver"
    )


def test_a_task_is_converted_in_a_shell(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["-i", _task(tmp_path).name, "-overwrite_id", "12", "--workspace", str(workspace.raw.parent)]
    assert main(["convert_MSD_dataset", *words]) == 0
    assert (workspace.raw / "Dataset012_Liver" / "dataset.json").is_file()


def test_folders_that_are_no_task(workspace, tmp_path):
    (tmp_path / "Liver").mkdir()
    with pytest.raises(DatasetError, match="is not the name of a Decathlon task"):
        drain(convert_msd(workspace, ConvertMsdRequest(source=tmp_path / "Liver")))
    (tmp_path / "Task01_X").mkdir()
    with pytest.raises(DatasetError, match="lacks imagesTr, labelsTr, imagesTs, dataset.json"):
        drain(convert_msd(workspace, ConvertMsdRequest(source=tmp_path / "Task01_X")))


def test_a_dataset_of_nnunet_v1(workspace, tmp_path):
    source = _task(tmp_path, "Task004_Old")
    folder = drain(convert_old_nnunet(workspace, ConvertOldRequest(source=source, name="Dataset104_Old")))
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert list(content) == ["name", "labels", "numTraining", "channel_names", "file_ending"]
    assert (folder / "imagesTr" / "case_1.nii.gz").is_file()
    with pytest.raises(DatasetError, match="already exists"):
        drain(convert_old_nnunet(workspace, ConvertOldRequest(source=source, name="Dataset104_Old")))
    with pytest.raises(DatasetError, match="is not of the form DatasetXXX_Name"):
        drain(convert_old_nnunet(workspace, ConvertOldRequest(source=source, name="Old")))


def test_cases_are_saved_replaced_and_counted(workspace, tmp_path):
    folder = workspace.raw / next_dataset_name(workspace, "My cells")
    assert folder.name == "Dataset001_My_cells"
    create_dataset(folder, ["a", "b"], {"background": 0, "cell": 1}, ".nii.gz")
    geometry = Geometry(spacing=(2.0, 1.0, 1.0))
    image, labels = smooth_image((6, 8, 9)), np.zeros((6, 8, 9), int)
    labels[2:4] = 1
    save_case(folder, "x", [image[0], image[0] * 2], labels, geometry)
    save_case(folder, "x", [image[0], image[0] * 3], labels, geometry)
    dataset = open_dataset(folder)
    assert dataset.info.num_training == 1
    volume = read_volume(dataset.cases[0].images)
    np.testing.assert_allclose(volume.array[1], 3 * volume.array[0], rtol=1e-6)
    assert volume.geometry.spacing == (2.0, 1.0, 1.0)
    for channels, painted, name, words in (
        ([image[0]], labels, "y", r"has 2 channels \(a, b\), but 1 were given"),
        ([image[0], image[0][:3]], labels, "y", "must have the same shape"),
        ([image[0]] * 2, labels * 5, "y", "contain 5, which dataset.json does not define; it has 0 background, 1 cell"),
        ([image[0]] * 2, labels, "a/b", "cannot name a case"),
        ([image[0]] * 2, labels, "a_seg", "cannot name a case"),
    ):
        with pytest.raises(DatasetError, match=words):
            save_case(folder, name, channels, painted, geometry)
    with pytest.raises(DatasetError, match="already contains a dataset"):
        create_dataset(folder, ["a"], {"background": 0, "cell": 1}, ".png")


def test_rules_of_dataset_json():
    content = dataset_json(["CT"], {"background": 0, "a": 1}, 3, ".nii.gz", reader="NibabelIO", licence="CC0")
    assert list(content) == [
        "channel_names", "labels", "numTraining", "file_ending", "overwrite_image_reader_writer", "licence",
    ]  # fmt: skip
    with pytest.raises(DatasetError, match="'regions_class_order'"):
        dataset_json(["CT"], {"background": 0, "whole": [1, 2], "core": 2}, 3, ".nii.gz")
    with pytest.raises(DatasetError, match="lack 'background': 0"):
        dataset_json(["CT"], {"a": 1}, 3, ".nii.gz")
    assert compact_values([7, 3], ignore=3) == {0: 0, 7: 1, 3: 2}


@pytest.fixture
def pictures(folders):
    for i in range(3):
        iio.imwrite(folders[0] / f"a{i}.png", picture(i))
        iio.imwrite(folders[1] / f"a{i}.png", (picture(i) > 120).astype(np.uint8))
    return folders


def test_two_imports_at_once_never_get_the_same_number(workspace, pictures):
    request = ImportFoldersRequest(images=pictures[0], masks=pictures[1], name="Cells")
    first = import_folders(workspace, request)
    next(first)
    second = import_folders(workspace, request.replace(name="Dataset001_Others"))
    with pytest.raises(SettingsError, match="Dataset001_Cells is already being made by"):
        next(second)
    assert run(workspace, pictures)[0].name == "Dataset002_Cells"
    assert drain(first).name == "Dataset001_Cells"
    assert sorted(path.name for path in workspace.raw.iterdir()) == ["Dataset001_Cells", "Dataset002_Cells"]


def test_an_import_that_was_killed_leaves_no_half_of_a_dataset_and_no_gap(workspace, pictures):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from napari_nnunet.formats.workspace import Workspace\n"
        "from napari_nnunet.jobs.dataset.import_folders import import_folders\n"
        "from napari_nnunet.schema.requests.dataset import ImportFoldersRequest\n"
        "root, images, masks = map(Path, sys.argv[1:])\n"
        "request = ImportFoldersRequest(images=images, masks=masks, name='Cells', workers=1)\n"
        "for event in import_folders(Workspace.at(root), request):\n"
        "    if getattr(event, 'name', '').startswith('Writing'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = workspace.raw.parent
    subprocess.run([sys.executable, "-c", program, root, *pictures], check=False)
    assert any(path.name.startswith(".") for path in workspace.raw.iterdir())
    assert workspace.raw_datasets() == []
    assert run(workspace, pictures)[0].name == "Dataset001_Cells"
    assert [path.name for path in workspace.raw.iterdir()] == ["Dataset001_Cells"]


@pytest.mark.parametrize("kind", ["msd", "old"])
def test_a_conversion_that_was_broken_off_can_be_run_again(workspace, tmp_path, kind):
    source = tmp_path / "Task07_Organ"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (source / part).mkdir(parents=True)
    for i in range(2):
        image = smooth_image((6, 12, 12), seed=i)[0]
        write_nifti(source / "imagesTr" / f"o_{i}.nii.gz", image)
        write_nifti(source / "labelsTr" / f"o_{i}.nii.gz", (image > 120).astype(np.uint8))
    content = {"labels": {"0": "background", "1": "organ"}, "modality": {"0": "CT"}}
    (source / "dataset.json").write_text(json.dumps(content))

    def convert():
        if kind == "msd":
            return convert_msd(workspace, ConvertMsdRequest(source=source))
        return convert_old_nnunet(workspace, ConvertOldRequest(source=source, name="Dataset007_Organ"))

    with closing(convert()) as first:
        for event in first:
            if isinstance(event, Progress):
                break
    assert list(workspace.raw.iterdir()) == []
    assert drain(convert()).name == "Dataset007_Organ"

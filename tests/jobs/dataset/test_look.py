"""A look at images says how each is read, and what looks odd, before anything runs."""

from __future__ import annotations

import gzip

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from helpers import make_dataset, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.jobs.dataset.look import look, look_at, look_table
from napari_nnunet.schema.requests.dataset import LookRequest

STACK = np.arange(4 * 6 * 7, dtype=np.uint8).reshape(4, 6, 7)


@pytest.fixture
def folder(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", (STACK > 9).astype(np.uint8), (2.0, 0.5, 0.5))
    words = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "b.tif", STACK, imagej=True, resolution=(4, 4), metadata=words)
    tifffile.imwrite(tmp_path / "c.tif", STACK * 0, metadata={"axes": "ZYX"})
    (tmp_path / "d.nii.gz").write_bytes(b"nothing of the kind")
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_every_image_of_a_folder_is_said(folder):
    first, second, third, last = drain(look(LookRequest(paths=(folder,))))
    assert (first.shape, first.kind, first.values) == ((4, 6, 7), "uint8", "0, 1")
    assert (first.spacing, first.source) == ((2, 0.5, 0.5), "header")
    assert first.remarks == ()
    assert second.spacing == pytest.approx((0.0005, 0.00025, 0.00025))
    assert (second.source, second.values) == ("ImageJ's metadata", "0 to 167")
    assert third.spacing is None
    assert third.remarks == ("it has no voxel size; 1 mm would be assumed", "all its voxels are equal")
    assert "d.nii.gz" in last.error


def test_the_status_tells_whether_all_can_be_read(folder, capsys):
    assert main(["look", str(folder)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["file", "voxels", "voxel", "size", "(mm)", "axes", "type", "channels", "values"]
    assert any(line.startswith("d.nii.gz: ") for line in shown)
    (folder / "d.nii.gz").unlink()
    assert main(["look", str(folder)]) == 0


def test_a_dataset_is_read_by_its_reader_and_what_it_leaves_out_is_shown(tmp_path):
    make_dataset(tmp_path, cases=1)
    folder = tmp_path / "nnUNet_raw" / "Dataset005_Test"
    (folder / "imagesTr" / "other_0000.nii").write_bytes(
        gzip.decompress((folder / "imagesTr" / "c0_0000.nii.gz").read_bytes())
    )
    found = drain(look(LookRequest(paths=(folder,))))
    assert [entry.path.name for entry in found] == ["c0_0000.nii.gz", "c0.nii.gz", "other_0000.nii"]


def test_subfolders_are_looked_into_on_request(folder):
    (folder / "more").mkdir()
    (folder / "a.nii.gz").rename(folder / "more" / "a.nii.gz")
    assert len(drain(look(LookRequest(paths=(folder,))))) == 3
    assert len(drain(look(LookRequest(paths=(folder,), subfolders=True)))) == 4
    said = []
    drain(look(LookRequest(paths=(folder,))), lambda event: said.append(getattr(event, "text", "")))
    assert any("Not looked into: more/ (1 subfolder with images). --subfolders does." in text for text in said)


def test_links_that_lead_back_are_not_followed(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
    (folder / "one" / "there").symlink_to(folder / "two", target_is_directory=True)
    (folder / "two" / "back").symlink_to(folder / "one", target_is_directory=True)
    (folder / "itself").symlink_to(folder, target_is_directory=True)
    assert len(drain(look(LookRequest(paths=(folder,), subfolders=True)))) == 4


def test_files_that_are_no_images_are_counted_and_named(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", np.ones((2, 3, 4), np.uint8), (1.0, 1.0, 1.0))
    sitk.WriteImage(sitk.Image(2, 3, 4, sitk.sitkUInt8), str(tmp_path / "c.mhd"))
    for name in ("mask.gif", "b.nrrd.gz", "dataset.json", "a.json", "notes.txt", "table.csv", ".hidden"):
        (tmp_path / name).write_text("{}")
    notes = []
    assert len(drain(look(LookRequest(paths=(tmp_path,))), notes.append)) == 2
    assert [note.text for note in notes if isinstance(note, Note)] == [
        "2 entries of the input are left out: b.nrrd.gz, mask.gif."
    ]


def test_a_folder_without_images_says_what_came_and_what_can_be_read(tmp_path):
    (tmp_path / "mask.gif").write_text("GIF89a")
    (tmp_path / "b.nrrd.gz").write_text("")
    said = r"There are no images in .*\. Its files have \.gif, \.nrrd\.gz; images end in .*\.nii\.gz.*, or are DICOM\."
    with pytest.raises(DatasetError, match=said):
        drain(look(LookRequest(paths=(tmp_path,))))


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        drain(look(LookRequest(paths=(tmp_path / "nowhere",))))
    with pytest.raises(DatasetError, match="There are no images in"):
        drain(look(LookRequest(paths=(tmp_path,))))


def test_what_looks_odd_stands_below_its_file(folder):
    lines = look_table([look_at(folder / "c.tif")])
    assert lines[1].split()[:3] == ["c.tif", "4", "x"]
    assert lines[2:] == ["    ! it has no voxel size; 1 mm would be assumed", "    ! all its voxels are equal"]


def test_masks_are_recognised_as_an_import_does(tmp_path):
    for folder in ("masks", "photos"):
        (tmp_path / folder).mkdir()
    soft = np.zeros((20, 20), np.float32)
    soft[5:10, 5:10] = 0.7
    for folder in ("masks", "photos"):
        iio.imwrite(tmp_path / folder / "soft.tif", soft)
        iio.imwrite(tmp_path / folder / "sharp.tif", (soft > 0).astype(np.uint8))
    soft = look_at(tmp_path / "masks" / "soft.tif")
    (remark,) = [text for text in soft.remarks if text.startswith("as a mask")]
    assert "not whole numbers (0.7)" in remark and "--" not in remark
    assert look_table([soft])[-1] == "    ! If that is right, import it with: --threshold 0.5"
    for path in (tmp_path / "photos" / "soft.tif", tmp_path / "masks" / "sharp.tif"):
        assert not any(text.startswith("as a mask") for text in look_at(path).remarks)


def numbered(path, first, count=12):
    mask = np.zeros((40, 48), np.uint16)
    for i in range(count):
        row, column = divmod(i, 4)
        mask[12 * row + 2 : 12 * row + 8, 11 * column + 2 : 11 * column + 8 + i % 3] = first + i
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, mask)


def test_the_masks_of_a_folder_are_judged_together(tmp_path):
    for i in range(3):
        numbered(tmp_path / "masks" / f"c{i}.tif", 1 + 100 * i)
        numbered(tmp_path / "atlas_labels" / f"c{i}.tif", 1)
    (tmp_path / "masks" / "broken.tif").touch()
    found = drain(look(LookRequest(paths=(tmp_path / "masks", tmp_path / "atlas_labels"))))
    asked = [text for entry in found for text in entry.remarks if "masks of this folder" in text]
    assert len(asked) == 1
    assert asked[0].startswith("the 3 masks of this folder: The masks number their objects")
    ways = [line for line in look_table(found) if "import it with" in line]
    assert ways == ["    ! If that is right, import it with: --objects (all of them one class: --map nonzero=object)"]
    assert "as a mask" in look_at(tmp_path / "atlas_labels" / "c0.tif").remarks[-1], "alone, it may be objects as well"


def _said(*paths):
    return "\n".join(look_table(drain(look(LookRequest(paths=paths)))))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("checkpoint_final.pth", "it is a file of weights, not an image"),
        ("model.zip", "it is an archive that is to be unpacked first"),
        ("plans.json", "it is text; look at the folder in which it lies"),
        ("case_0.b2nd", "it is an array of Python's or of preprocessing's"),
    ],
)
def test_a_file_that_is_no_image_is_named_as_what_it_is(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"x")
    assert f"{name}: {said}" in _said(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"), "It is a trained model"),
        (("M/plans.json", "M/dataset.json", "M/fold_0/checkpoint_final.pth"), "It holds trained models"),
        (("checkpoint_final.pth",), "It is a fold of a trained model"),
        (("plans_3d/case_0.b2nd",), "It holds preprocessed cases"),
        (("nnUNet_raw/Dataset001_X/dataset.json",), "It is a workspace; its datasets lie in nnUNet_raw"),
        (("Dataset001_X/dataset.json", "Dataset001_X/imagesTr/c.png"), "It holds datasets: Dataset001_X. Look at one"),
        (("more/c.png",), r"Its subfolders more/ hold images: name one, or look into all of them \(--subfolders\)"),
    ],
)
def test_a_folder_without_images_is_named_as_what_it_is(tmp_path, files, said):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DatasetError, match=said):
        _said(tmp_path)


def test_cases_that_a_dataset_cannot_use_are_rows_of_its_table(tmp_path):
    """A case without its label was left out of the table without a word."""
    make_dataset(tmp_path, cases=2)
    folder = tmp_path / "nnUNet_raw" / "Dataset005_Test"
    (folder / "labelsTr" / "c1.nii.gz").unlink()
    (folder / "imagesTs").mkdir()
    notes = []
    table = "\n".join(look_table(drain(look(LookRequest(paths=(folder,))), notes.append)))
    assert "c1" in table.splitlines()[-1]
    assert "label" in table.splitlines()[-1]
    assert any("imagesTs, which no training uses" in note.text for note in notes if isinstance(note, Note))
    assert main(["look", str(folder)]) == 1


def test_links_that_lead_nowhere_and_in_circles_end_no_folder(folder):
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "gone.nii.gz").symlink_to(folder / "nothing.nii.gz")
    table = _said(folder)
    assert "a.nii.gz  4 x 6 x 7" in table
    assert "gone.nii.gz: " in table
    assert "gone.nii.gz: " in _said(folder / "gone.nii.gz")
    assert "one voxel thick" not in table


def test_a_volume_one_voxel_thick_is_pointed_out(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", STACK[:, :1], (1.0, 1.0, 1.0))
    assert "! it is one voxel thick along y" in _said(tmp_path)

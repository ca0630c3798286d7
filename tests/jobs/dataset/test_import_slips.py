"""What is told of masks and cannot be meant so is refused, before anything is written."""

from __future__ import annotations

import json

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from helpers import write_nifti
from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.schema.requests.dataset import (
    ImportFoldersRequest,
    read_class_names,
    read_class_values,
    read_label_words,
)
from napari_nnunet.schema.requests.mask_words import read_map
from napari_nnunet.schema.requests.training import read_class_weights

pytestmark = pytest.mark.usefixtures("in_one_process")


@pytest.fixture
def folder(tmp_path):
    """Images, and masks with the values 0 (the larger part), 1 and 2."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for i in range(2):
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 4 : 12 + i], mask[14:20, 18:28] = 1, 2
        iio.imwrite(tmp_path / "images" / f"c{i}.png", np.random.default_rng(i).integers(0, 250, mask.shape, np.uint8))
        iio.imwrite(tmp_path / "masks" / f"c{i}.png", mask)
    return tmp_path


def refused(folder, **changes):
    request = ImportFoldersRequest(images=folder / "images", masks=folder / "masks", name="New", workers=1, **changes)
    with pytest.raises(DatasetError) as told:
        drain(import_folders(Workspace.at(folder), request))
    assert not list((folder / "nnUNet_raw").glob("*"))
    return told.value.message


@pytest.mark.parametrize(
    ("read", "words", "said"),
    [
        (read_map, ["1=a", "1=b", "2=c"], "'1' is given twice, with 'a' and with 'b'"),
        (read_map, ["nonzero=a", "NONZERO=b"], "'nonzero' is given twice"),
        (read_map, ["nonzero=a", "each=b"], "'nonzero' and 'each' are about the same values"),
        (read_class_names, ["1=a", "01=b"], "1 is given twice, with 'a' and with 'b'"),
        (read_class_values, ["3=membrane", "4=membrane"], "'membrane' is given twice, with 3 and with 4"),
        (read_label_words, ["liver=1", "liver=2"], "'liver' is given twice, with 1 and with 2"),
        (read_class_weights, ["tumour=5", "tumour=3"], "'tumour' is given twice, with 5.0 and with 3.0"),
    ],
)
def test_what_is_told_twice_differently_is_refused(read, words, said):
    with pytest.raises(SettingsError, match=said):
        read(words)
    assert len(read([words[0], words[0]])) == 1


@pytest.mark.parametrize("given", [{"mapping": {"1": "a", "2": "NAME"}}, {"class_names": {1: "a", 2: "NAME"}}])
@pytest.mark.parametrize("name", ["Ignore", "Background"])
def test_ignore_and_background_in_capitals_are_no_classes(folder, given, name):
    told = {field: {key: word.replace("NAME", name) for key, word in words.items()} for field, words in given.items()}
    assert refused(folder, **told).startswith(f"'{name}' would be a class to learn. Write '{name.lower()}', or")


@pytest.mark.parametrize("threshold", [0, -3])
def test_a_threshold_that_leaves_no_background_is_refused(folder, threshold):
    said = refused(folder, threshold=threshold)
    assert f"With the threshold {threshold} every voxel of every mask would be the class: the lowest value" in said


def test_negative_values_are_mapped_as_the_advice_writes_them(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    mask = np.zeros((4, 24, 32), np.int16)
    mask[1:3, 4:12, 4:12], mask[1:3, 14:20, 18:28] = -2, -1
    for i in range(2):
        image = np.random.default_rng(i).normal(size=mask.shape).astype(np.float32)
        write_nifti(tmp_path / "images" / f"c{i}.nii.gz", image)
        write_nifti(tmp_path / "masks" / f"c{i}.nii.gz", mask)
    words = ["import_folders", "-i", str(tmp_path / "images"), "-m", str(tmp_path / "masks"), "-n", "Balls"]
    words += ["--workspace", str(tmp_path / "w")]
    assert main([*words, "--map", "-2=ball", "-1=ignore"]) == 0
    assert main([*words, "--map", "-2..-2=ball", "--map=-1=ignore"]) == 0
    for made in (tmp_path / "w" / "nnUNet_raw").iterdir():
        dataset = open_dataset(made)
        assert dict(dataset.info.labels.labels) == {"background": 0, "ball": 1, "ignore": 2}
        stored = read_labels(dataset.cases[0].label)[0]
        np.testing.assert_array_equal(stored, np.select([mask == -2, mask == -1], [1, 2]))


@pytest.fixture
def stacks(tmp_path):
    """Return a function that writes stacks of TIFF pages with a text for the size beside images, and beside masks."""

    def make(image, mask):
        for part, factor, text in (("images", 20, image), ("masks", 1, mask)):
            (tmp_path / part).mkdir()
            for i in range(2):
                stack = np.zeros((3, 24, 32), np.uint8)
                stack[:, 4:12, 4 : 12 + i] = factor
                tifffile.imwrite(tmp_path / part / f"c{i}.tif", stack, metadata={"axes": "ZYX"})
                (tmp_path / part / f"c{i}.json").write_bytes(text)
        return tmp_path

    return make


SIZE = '{"spacing": [3.0, 0.5, 0.5], "by": "me"}'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_sizes_beside_stacks_are_kept_as_nnunet_reads_them(stacks, encoding):
    folder = stacks(SIZE.encode(encoding), SIZE.encode(encoding))
    request = ImportFoldersRequest(images=folder / "images", masks=folder / "masks", name="New", workers=1)
    made = drain(import_folders(Workspace.at(folder), request))
    for path in (made / "imagesTr" / "c0.json", made / "labelsTr" / "c0.json"):
        assert json.loads(path.read_bytes().decode("ascii")) == {"spacing": [3.0, 0.5, 0.5], "by": "me"}


def test_sizes_in_quotation_marks_are_said(stacks):
    folder = stacks(b'{"spacing": ["3", "0.5", "0.5"]}', SIZE.encode())
    assert "has the spacing ['3', '0.5', '0.5']; write numbers of mm, without quotation marks" in refused(folder)


def test_a_size_that_is_given_wins_over_those_of_image_and_mask(stacks):
    folder = stacks(SIZE.encode(), b'{"spacing": [2.0, 1.0, 1.0]}')
    assert "c0" in refused(folder)
    request = ImportFoldersRequest(
        images=folder / "images", masks=folder / "masks", name="New", workers=1, spacing=(4, 1, 1)
    )
    case = open_dataset(drain(import_folders(Workspace.at(folder), request))).cases[0]
    assert read_volume(case.images).geometry.spacing == read_labels(case.label)[1].spacing == (4.0, 1.0, 1.0)

"""A channel of an import is what its file's name says, in every case and in the dataset that gets the cases."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

_BRIGHT = {"SE": 10, "BSE": 20, "T1": 30, "T2": 40, "FLAIR": 50, "0000": 60, "0001": 70, "0002": 80, "ch1": 1, "ch3": 3}


@pytest.fixture
def bring(tmp_path):
    workspace = Workspace(tmp_path / "raw", tmp_path / "pre", tmp_path / "res")
    count = iter("abcdefgh")

    def run(files, masks, **options):
        """Import files whose brightness their last word says."""
        root = tmp_path / next(count)
        for part, names in (("images", files), ("masks", masks)):
            for name in names:
                path = root / part / f"{name}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                array = np.full((8, 8), _BRIGHT[name.rpartition("_")[2]] if part == "images" else 0, np.uint8)
                array[2:5, 2:5] = 1 if part == "masks" else array[0, 0] + 1
                tifffile.imwrite(path, array)
        request = ImportFoldersRequest(images=root / "images", masks=root / "masks", **{"name": "X", **options})
        return drain(import_folders(workspace, request))

    return run


def brightness(folder, case):
    paths = sorted((folder / "imagesTr").glob(f"{case}_*.tif"))
    return [int(tifffile.imread(path)[0, 0]) for path in paths]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([f"{c}_{n}" for c, ns in (("a1", "01"), ("a2", "02"), ("a3", "01")) for n in (f"000{n}" for n in ns)],
         "a2: its channels are 0000, 0002 .*others 0000, 0001"),
        ([f"{c}/{c}_{w}" for c, ws in (("a1", "1F"), ("a2", "12"), ("a3", "1F")) for w in
          ({"1": "T1", "2": "T2", "F": "FLAIR"}[w] for w in ws)], "a2: its channels are t1, t2 .*others flair, t1"),
    ],
)  # fmt: skip
def test_a_case_with_other_channels_is_named_and_nothing_is_written(bring, files, said, tmp_path):
    with pytest.raises(DatasetError, match=said) as told:
        bring(files, ["a1", "a2", "a3"])
    assert "--suffixes" in str(told.value)
    assert "--suffixes" not in told.value.in_window
    assert not list((tmp_path / "raw").glob("Dataset*"))


def test_cases_come_in_the_order_of_the_channels_of_the_dataset(bring):
    both = ["a-1_SE", "a-1_BSE", "a-2_SE", "a-2_BSE"]
    folder = bring(both, ["a-1", "a-2"], suffixes=("_SE", "_BSE"))
    bring([name.replace("a-", "b-") for name in both], ["b-1", "b-2"], dataset=folder.name, name="")
    assert [brightness(folder, case) for case in ("a-1", "b-1", "b-2")] == [[10, 20]] * 3


def test_channels_of_other_names_are_asked_about_and_suffixes_answer(bring):
    folder = bring(["a_0000", "a_0001"], ["a"], channel_names=("SE", "BSE"))
    files = ["b_T1", "b_T2"]
    with pytest.raises(DatasetError, match=r"dataset are SE, BSE, the channel files are named T1, T2\. .*--suffixes"):
        bring(files, ["b"], dataset=folder.name, name="")
    bring(files, ["b"], dataset=folder.name, name="", suffixes=("_T2", "_T1"))
    assert brightness(folder, "b") == [40, 30]
    bring(["c_0000", "c_0001"], ["c"], dataset=folder.name, name="")
    assert brightness(folder, "c") == [60, 70]
    with pytest.raises(DatasetError, match="named 0000, 0002"):
        bring(["d_0000", "d_0002"], ["d"], dataset=folder.name, name="")


def test_suffixes_in_another_order_than_the_channels_they_name_are_refused(bring):
    folder = bring(["a_0000", "a_0001"], ["a"], channel_names=("SE", "BSE"))
    with pytest.raises(DatasetError, match="dataset are SE, BSE, the channel files are given as BSE, SE"):
        bring(["b_SE", "b_BSE"], ["b"], dataset=folder.name, name="", suffixes=("_BSE", "_SE"))

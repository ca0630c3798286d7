"""Pictures of which some are grey and some in colour become one dataset as somebody says, or a question."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset, read_info
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.import_plan import plan_import
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (24, 30)


def grey(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.uint8)


def colours(seed, count=3):
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, count)).astype(np.uint8)


def folders(root, *images):
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i, image in enumerate(images):
        iio.imwrite(root / "images" / f"c{i}.png", image)
        mask = np.zeros(SHAPE, np.uint8)
        mask[4:12, 5 : 20 + i] = 1
        iio.imwrite(root / "masks" / f"c{i}.png", mask)
    return root


def request(root, **more):
    return ImportFoldersRequest(images=root / "images", masks=root / "masks", **{"name": "New", "workers": 1} | more)


def read(folder):
    return {case.name: np.asarray(read_volume(case.images).array) for case in open_dataset(folder).cases}


def test_what_is_done_with_a_mix_is_asked_once_with_the_words_that_answer_it(tmp_path, capsys):
    root = folders(tmp_path, grey(0), grey(1), colours(2), colours(3, 4))
    plan = drain(plan_import(Workspace.at(root), request(root)))
    assert not plan.problems
    with pytest.raises(
        DatasetError, match="Of 4 pictures, 2 are grey, 1 is in colour and 1 is in colour with transparency"
    ) as told:
        plan.require()
    assert "Unlike most: c2, c3." in told.value.message
    for way in ("--colours grey", "--colours rgb", "--colours leave_out"):
        assert way in told.value.message and way not in told.value.in_window
    words = [str(root / "images"), "-m", str(root / "masks"), "-n", "New", "--workspace", str(root), "--no_pbar"]
    assert main(["import_folders", "-i", *words, "--colours", "leave_out"]) == 0
    assert "left out (as asked): c2.png" in capsys.readouterr().err
    assert set(read(root / "nnUNet_raw" / "Dataset001_New")) == {"c0", "c1"}


@pytest.mark.parametrize("count", [3, 4])
def test_as_grey_pictures_colours_count_by_their_brightness(tmp_path, count):
    root = folders(tmp_path, grey(0), colours(1, count), np.repeat(grey(2)[..., None], 3, axis=2))
    events = []
    made = drain(import_folders(Workspace.at(root), request(root, colours="grey")), events.append)
    found = read(made)
    assert np.array_equal(found["c0"][0], grey(0))
    assert np.array_equal(found["c1"][0], np.rint(colours(1, count)[..., :3] @ [0.299, 0.587, 0.114]))
    assert np.array_equal(found["c2"][0], grey(2))  # colours of a screenshot that are none
    assert all(len(array) == 1 for array in found.values()) and len(read_info(made).channel_names) == 1
    said = " ".join(event.text for event in events if isinstance(event, Note))
    assert "2 of 3 pictures are made grey (c1, c2). What is segmented later must be grey as well." in said


def test_as_colour_pictures_grey_ones_have_equal_channels_and_transparency_goes(tmp_path):
    root = folders(tmp_path, grey(0), colours(1), colours(2, 4))
    made = drain(import_folders(Workspace.at(root), request(root, colours="rgb")))
    found = read(made)
    assert np.array_equal(found["c0"], [grey(0)] * 3)
    assert np.array_equal(found["c1"], np.moveaxis(colours(1), -1, 0))
    assert np.array_equal(found["c2"], np.moveaxis(colours(2, 4)[..., :3], -1, 0))
    assert read_info(made).channel_names == ("R", "G", "B")


def test_pictures_are_added_in_the_colours_of_the_dataset(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    workspace = Workspace.at(tmp_path)
    drain(import_folders(workspace, request(folders(tmp_path / "a", grey(0), grey(1)))))
    root = folders(tmp_path / "b", colours(2), colours(3))
    (root / "images" / "c0.png").rename(root / "images" / "d0.png")
    (root / "masks" / "c0.png").rename(root / "masks" / "d0.png")
    with pytest.raises(DatasetError, match="The images have 3 channels, the dataset has 1") as told:
        drain(import_folders(workspace, request(root, dataset="1", skip=("c1",))))
    assert "--colours grey" in told.value.message
    made = drain(import_folders(workspace, request(root, dataset="1", skip=("c1",), colours="grey")))
    assert np.array_equal(read(made)["d0"][0], np.rint(colours(2) @ [0.299, 0.587, 0.114]))

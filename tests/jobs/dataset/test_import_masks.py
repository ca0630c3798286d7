"""Masks as people have them become classes, or a question with the table and the words that answer it."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from helpers import write_nifti
from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders, import_planned
from napari_nnunet.jobs.dataset.import_plan import decide, plan_import
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (48, 64)
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]], dtype=np.uint8)


def drawn(seed):
    """Return a mask of two blobs with the values 1 and 2."""
    mask = np.zeros(SHAPE, np.uint8)
    y, x = 6 + 2 * seed, 8 + 3 * seed
    mask[y : y + 18, x : x + 20] = 1
    mask[y + 4 : y + 14, x + 24 : x + 34] = 2
    return mask


@pytest.fixture
def folders(tmp_path):
    """Return a function that writes masks beside noisy images."""

    def make(masks, ending=".png"):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        for i, mask in enumerate(masks):
            shape = mask.size[::-1] if isinstance(mask, Image.Image) else mask.shape
            image = np.random.default_rng(i).integers(0, 250, shape[:2]).astype(np.uint8)
            write(tmp_path / "images" / f"c{i}{'.nii.gz' if ending == '.nii.gz' else '.png'}", image)
            write(tmp_path / "masks" / f"c{i}{ending}", mask)
        return tmp_path

    return make


def write(path, array):
    if isinstance(array, Image.Image):
        array.save(path, **({"quality": 60} if path.suffix == ".jpg" else {}))
    elif path.name.endswith(".nii.gz"):
        write_nifti(path, array[None] if array.ndim == 2 else array)
    else:
        iio.imwrite(path, array)


def request(folder, **changes):
    return ImportFoldersRequest(images=folder / "images", masks=folder / "masks", name="New", workers=1, **changes)


def imported(folder, **changes):
    """Import and return the classes and the labels of the first case."""
    made = drain(import_folders(Workspace.at(folder), request(folder, **changes)))
    dataset = open_dataset(made)
    labels = [read_labels(case.label)[0].reshape(SHAPE) for case in dataset.cases]
    return dict(dataset.info.labels.labels), labels


def question(folder, **changes):
    with pytest.raises(DatasetError) as told:
        drain(import_folders(Workspace.at(folder), request(folder, **changes)))
    assert not list((folder / "nnUNet_raw").glob("*"))
    return told.value


def palette(mask, colours=COLOURS):
    picture = Image.fromarray(mask, "P")
    picture.putpalette(colours.ravel().tolist())
    return picture


@pytest.mark.parametrize(
    "stored",
    [palette, lambda m: np.repeat(m[..., None], 3, axis=2), lambda m: np.repeat(m[..., None], 4, axis=2) | [0, 0, 0, 255]],
    ids=["palette", "grey as RGB", "grey as RGBA"],
)  # fmt: skip
def test_numbers_in_another_coat_are_classes(folders, stored):
    masks = [drawn(i) for i in range(2)]
    folder = folders([np.uint8(made) if isinstance(made := stored(m), np.ndarray) else made for m in masks])
    classes, labels = imported(folder)
    assert classes == {"background": 0, "class_1": 1, "class_2": 2}
    np.testing.assert_array_equal(labels, masks)


def test_palettes_that_differ_are_told_apart_by_colour(folders):
    other = np.array([2, 0, 1], np.uint8)  # the same picture, with its colours in another order
    folder = folders([palette(drawn(0)), palette(other[drawn(1)], COLOURS[[1, 2, 0]])])
    assert "drawn in 2 colours on #000000" in question(folder).message
    _, labels = imported(folder, mapping={"#ff0000": "a", "#0080ff": "b"})
    np.testing.assert_array_equal(labels, [drawn(0), drawn(1)])


def test_a_palette_whose_black_is_not_its_first_entry_asks_for_its_background(folders):
    other = np.array([2, 0, 1], np.uint8)  # red is 0 and black is 2, in all files
    folder = folders([palette(other[drawn(i)], COLOURS[[1, 2, 0]]) for i in range(2)])
    assert "drawn in 2 colours on #000000" in question(folder).message
    classes, labels = imported(folder, mapping={"#ff0000": "a", "#0080ff": "b"})
    assert classes == {"background": 0, "a": 1, "b": 2}
    np.testing.assert_array_equal(labels, [drawn(0), drawn(1)])


def test_drawings_ask_for_the_classes_of_their_colours(folders):
    folder = folders([COLOURS[drawn(i)] for i in range(2)])
    told = question(folder)
    assert "--map '#0080ff=class_1' '#ff0000=class_2'" in told.message
    assert "--map" not in told.in_window
    assert "becomes" in told.in_window
    classes, labels = imported(folder, mapping={"#ff0000": "red", "#0080ff": "blue"})
    assert classes == {"background": 0, "red": 1, "blue": 2}
    np.testing.assert_array_equal(labels, [drawn(0), drawn(1)])
    assert "No class was given for the values #0080ff" in question_again(folder, mapping={"#ff0000": "red"})


def question_again(folder, **changes):
    with pytest.raises(DatasetError) as told:
        drain(import_folders(Workspace.at(folder), request(folder, **changes)))
    return told.value.message


@pytest.mark.parametrize("kind", ["jpeg", "smoothed"])
def test_noise_around_two_values_asks_for_a_threshold(folders, kind):
    whole = [Image.fromarray((drawn(i) > 0).astype(np.uint8) * 255) for i in range(2)]
    if kind == "smoothed":
        whole = [
            m.resize((19, 14), Image.Resampling.BILINEAR).resize(SHAPE[::-1], Image.Resampling.BICUBIC) for m in whole
        ]
    folder = folders(whole, ".jpg" if kind == "jpeg" else ".png")
    told = question(folder)
    assert "--threshold 128" in told.message
    assert "below 128" in told.message
    assert ("saved as JPEG" if kind == "jpeg" else "smoothed") in told.message
    classes, labels = imported(folder, threshold=128, class_names={1: "cell"})
    assert classes == {"background": 0, "cell": 1}
    assert (labels[0] != (drawn(0) > 0)).mean() < 0.03


def test_probabilities_ask_for_a_threshold_and_float32_does_not(folders):
    soft = [ndimage.gaussian_filter((drawn(i) > 0).astype(np.float32), 2) for i in range(2)]
    folder = folders(soft, ".nii.gz")
    told = question(folder)
    assert "2 of 2 masks have values that are not whole numbers" in told.message
    assert "--threshold 0.5" in told.message
    _, labels = imported(folder, threshold=0.5)
    np.testing.assert_array_equal(labels, [s >= 0.5 for s in soft])
    harmless = folders([np.float32(1.0000001) * drawn(i) for i in range(2)], ".nii.gz")
    assert imported(harmless)[0] == {"background": 0, "class_1": 1, "class_2": 2}


def numbered(seed, first=1, count=12):
    mask = np.zeros(SHAPE, np.uint16)
    for number, (y, x) in enumerate(list(np.ndindex(5, 6))[:count]):
        mask[9 * y + 1 : 9 * y + 5 + seed, 10 * x + 1 : 10 * x + 7] = first + number
    return mask


@pytest.mark.parametrize(("first", "counts"), [((1, 1, 1), (12, 9, 14)), ((1, 13, 27), (12, 12, 12))])
def test_numbered_objects_are_no_classes(folders, first, counts):
    folder = folders([numbered(i, f, n) for i, (f, n) in enumerate(zip(first, counts, strict=True))])
    told = question(folder)
    assert "The masks number their objects" in told.message
    assert "--map nonzero=object" in told.message
    assert "--map each=class" in told.message
    classes, labels = imported(folder, mapping={"nonzero": "cell"})
    assert classes == {"background": 0, "cell": 1}
    np.testing.assert_array_equal(labels[1], numbered(1, first[1], counts[1]) > 0)


def test_an_atlas_of_forty_classes_is_imported_as_it_is(folders):
    atlas = [
        np.roll(np.pad(np.arange(40, dtype=np.uint8).repeat(64).reshape(40, 64), ((4, 4), (0, 0))), i, 0)
        for i in range(3)
    ]
    classes, labels = imported(folders(atlas))
    assert len(classes) == 40
    np.testing.assert_array_equal(labels, atlas)


def test_minus_one_is_what_nobody_annotated(folders):
    masks = [drawn(i).astype(np.int16) for i in range(2)]
    for mask in masks:
        mask[:, :2] = -1
    folder = folders(masks, ".nii.gz")
    told = question(folder)
    assert "value -1, which often means that nobody annotated" in told.message
    assert "--ignore=-1" in told.message
    classes, labels = imported(folder, ignore=-1)
    assert classes == {"background": 0, "class_1": 1, "class_2": 2, "ignore": 3}
    assert (labels[0][:, :2] == 3).all()


def test_several_values_may_mean_that_nobody_annotated(folders):
    masks = [drawn(i) for i in range(2)]
    for mask in masks:
        mask[:, :2], mask[:, 2:4] = 200, 255
    folder = folders(masks)
    classes, labels = imported(folder, ignore=(200, 255))
    assert classes == {"background": 0, "class_1": 1, "class_2": 2, "ignore": 3}
    assert (labels[0][:, :4] == 3).all()
    words = ["import_folders", "-i", str(folder / "images"), "-m", str(folder / "masks"), "-n", "Shell"]
    assert main([*words, "--ignore", "200", "255", "--workspace", str(folder / "w")]) == 0
    dataset = open_dataset(next((folder / "w" / "nnUNet_raw").iterdir()))
    assert dataset.info.labels.ignore_label == 3


def test_several_values_of_one_class_are_written_as_one(folders):
    folder = folders([drawn(i) for i in range(2)])
    classes, labels = imported(folder, class_names={1: "particle", 2: "particle"})
    assert classes == {"background": 0, "particle": 1}
    np.testing.assert_array_equal(labels, [drawn(i) > 0 for i in range(2)])


@pytest.mark.parametrize("given", [{"class_names": {255: "cell"}}, {"mapping": {"255": "cell"}}, {}])
def test_a_few_voxels_of_another_value_do_not_become_a_class(folders, given):
    masks = [(drawn(i % 4) > 0).astype(np.uint8) * 255 for i in range(60)]
    masks[1][0, :9] = 7
    folder = folders(masks)
    told = question(folder, **given)
    assert "7 (9 voxels)" in told.message
    classes, labels = imported(folder, mapping={"255": "cell", "7": "background"})
    assert classes == {"background": 0, "cell": 1}
    assert not labels[1][0].any()


def test_scribbles_name_their_background(folders):
    scribble = [np.where(drawn(i) == 0, 0, drawn(i)) for i in range(2)]
    classes, labels = imported(folders(scribble), mapping={"0": "ignore", "1": "background", "2": "cell"})
    assert classes == {"background": 0, "cell": 1, "ignore": 2}
    np.testing.assert_array_equal(labels[0], np.array([2, 0, 1])[scribble[0]])


def test_a_plan_shows_what_an_import_will_do_and_takes_answers(folders):
    folder = folders([COLOURS[drawn(i)] for i in range(3)])
    (folder / "masks" / "c2.png").rename(folder / "masks" / "lonely.png")
    workspace = Workspace.at(folder)
    plan = drain(plan_import(workspace, request(folder)))
    assert [case.name for case in plan.cases] == ["c0", "c1"]
    assert [(row.word, row.colour, row.becomes, row.files) for row in plan.recognised.rows] == [
        ("#000000", "#000000", "background", 2),
        ("#0080ff", "#0080ff", "class_1", 2),
        ("#ff0000", "#ff0000", "class_2", 2),
    ]
    assert sum(row.voxels for row in plan.recognised.rows) == 2 * drawn(0).size
    assert sorted((left.path.name, left.why) for left in plan.left_out) == [
        ("c2.png", "no mask has its name"),
        ("lonely.png", "no image has its name"),
    ]
    assert plan.translation is None
    answer = request(folder, mapping={"#ff0000,#0080ff": "cell"}, skip=("c1",))
    ready = decide(plan, answer)
    assert ready.question is None
    assert [case.name for case in ready.cases] == ["c0"]
    made = drain(import_planned(workspace, answer, ready))
    assert [case.name for case in open_dataset(made).cases] == ["c0"]


def test_all_cases_that_cannot_be_imported_are_named_and_can_be_left_out(folders, capsys):
    folder = folders([drawn(i) for i in range(4)])
    (folder / "masks" / "c1.png").write_bytes(b"no picture")
    iio.imwrite(folder / "masks" / "c2.png", drawn(0)[:20])
    words = ["import_folders", "-i", folder / "images", "-m", folder / "masks", "-n", "New", "--workspace", folder]
    assert main([*map(str, words), "--no_pbar"]) == 1
    said = capsys.readouterr().err
    assert "2 of 4 cases could not be imported" in said
    assert "c1:" in said
    assert "c2: the image and its mask do not lie on the same grid" in said
    assert "--skip c1 c2" in said
    assert main([*map(str, words), "--no_pbar", "--skip", "c1", "c2"]) == 0


def test_the_proposal_can_be_typed_as_it_stands(folders, capsys):
    folder = folders([COLOURS[drawn(i)] for i in range(2)])
    words = ["import_folders", "-i", folder / "images", "-m", folder / "masks", "-n", "New", "--workspace", folder]
    assert main([*map(str, words), "--map", "#ff0000=red blood cell", "#0080ff=red blood cell"]) == 0
    assert main([*map(str, words), "--map", "red"]) == 1
    assert "write it like 1,2=cell" in capsys.readouterr().err
    assert main([*map(str, words), "--map", "1=cell"]) == 1
    assert "the masks are drawn in colours" in capsys.readouterr().err


def test_folders_that_are_swapped_are_said(folders):
    folder = folders([drawn(i) for i in range(2)])
    swapped = ImportFoldersRequest(images=folder / "masks", masks=folder / "images", name="New", workers=1)
    with pytest.raises(DatasetError, match="the two folders look swapped") as told:
        drain(import_folders(Workspace.at(folder), swapped))
    assert "Press 'Swap the folders'" in told.value.in_window


def test_cases_are_added_to_a_dataset_in_its_classes(folders):
    folder = folders([(drawn(i) > 0).astype(np.uint8) * 255 for i in range(2)])
    workspace = Workspace.at(folder)
    made = drain(import_folders(workspace, request(folder, class_names={255: "cell"})))
    more = request(folder, dataset="1")
    with pytest.raises(
        DatasetError, match=r"2 of 2 cases could not be imported:\n  c0: Dataset001_New has a case of this"
    ):
        drain(import_folders(workspace, more))
    for part in ("images", "masks"):
        for path in (folder / part).iterdir():
            path.rename(path.with_name(f"new_{path.name}"))
    assert drain(import_folders(workspace, more)) == made
    dataset = open_dataset(made)
    assert dataset.info.num_training == len(dataset.cases) == 4
    for case in dataset.cases:
        assert set(np.unique(read_labels(case.label)[0])) == {0, 1}
    for part in ("images", "masks"):
        for path in (folder / part).iterdir():
            path.rename(path.with_name(f"other_{path.name}"))
    with pytest.raises(DatasetError, match="has no class tumour; it has background, cell"):
        drain(import_folders(workspace, more.replace(mapping={"255": "tumour"})))


def test_the_voxel_size_beside_a_stack_comes_along(tmp_path):
    for part, names in (("images", ["c0_0000", "c1_0000"]), ("masks", ["c0", "c1"])):
        (tmp_path / part).mkdir()
        for name in names:
            stack = np.stack([drawn(0)] * 3) * (1 if part == "masks" else 20)
            tifffile.imwrite(tmp_path / part / f"{name}.tif", stack, metadata={"axes": "ZYX"})
            (tmp_path / part / f"{name[:2]}.json").write_text('{"spacing": [3.0, 0.5, 0.5]}')
    made = drain(import_folders(Workspace.at(tmp_path), request(tmp_path)))
    for case in open_dataset(made).cases:
        assert read_volume(case.images).geometry.spacing == (3.0, 0.5, 0.5)
        assert read_labels(case.label)[1].spacing == (3.0, 0.5, 0.5)

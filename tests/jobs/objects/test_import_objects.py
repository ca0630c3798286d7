"""Folders of images and numbered masks become a dataset of objects in one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.io import imread, imsave

from napari_nnunet.cli import main
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.objects import object_scheme, read_objects
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.objects.import_objects import import_objects
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")


def folders(root: Path, *, dtype: type = np.uint16, factor: int = 1) -> Path:
    """Three pictures, each with four squares of their own numbers."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i, name in enumerate("abc"):
        mask = np.zeros((40, 50), dtype=dtype)
        for n, (y, x) in enumerate([(2, 2), (2, 12), (20, 5), (22, 30)], start=1 + 10 * i):
            mask[y : y + 10, x : x + 10] = n * factor
        image = np.random.default_rng(i).integers(0, 50, mask.shape) + 100 * (mask > 0)
        imsave(root / "images" / f"{name}.png", image.astype(np.uint8), check_contrast=False)
        imsave(root / "masks" / f"{name}.{'tif' if mask.dtype.itemsize > 2 else 'png'}", mask, check_contrast=False)
    return root


def request(root: Path, **changes: object) -> ImportFoldersRequest:
    """Import as nuclei."""
    return ImportFoldersRequest(
        **{"images": root / "images", "masks": root / "masks", "name": "Nuclei", "objects": "nucleus", **changes}
    )


def test_the_masks_are_kept_and_cores_and_borders_are_derived(tmp_path: Path) -> None:
    root, workspace = folders(tmp_path / "in"), Workspace.at(tmp_path / "ws")
    folder = drain(import_objects(workspace, request(root)))
    scheme = object_scheme(folder)
    assert scheme is not None and scheme.kinds == {"nucleus": (1, 2)}
    objects, _ = read_objects(folder / "objectsTr" / "b.png")
    assert np.unique(objects).tolist() == [0, 11, 12, 13, 14]
    labels, _ = read_labels(folder / "labelsTr" / "b.png")
    np.testing.assert_array_equal(labels > 0, objects > 0)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert not (folder / "trash").exists()  # nothing was anybody's work


def test_numbers_too_large_for_label_files_become_small_ones(tmp_path: Path) -> None:
    root, workspace = folders(tmp_path / "in", dtype=np.uint32, factor=70_001), Workspace.at(tmp_path / "ws")
    folder = drain(import_objects(workspace, request(root)))
    (path,) = (folder / "objectsTr").glob("b.*")
    objects, _ = read_objects(path)
    assert np.bincount(objects.ravel()).tolist() == [40 * 50 - 400, 100, 100, 100, 100]


def test_the_shell_does_it_with_one_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folders(tmp_path / "in")
    words = ["import_folders", "-i", str(root / "images"), "-m", str(root / "masks"), "-n", "Nuclei", "--objects"]
    assert main([*words, "--workspace", str(tmp_path / "ws"), "-np", "1"]) == 0
    scheme = object_scheme(tmp_path / "ws" / "nnUNet_raw" / "Dataset001_Nuclei")
    assert scheme is not None and scheme.only_kind == "object"
    assert "12 objects in 3 cases" in "".join(capsys.readouterr())


@pytest.mark.parametrize("changes", [{"mapping": {"1": "a"}}, {"ignore": 255}, {"class_names": {1: "a"}}])
def test_translating_numbers_of_objects_is_refused(tmp_path: Path, changes: dict) -> None:
    root = folders(tmp_path / "in")
    with pytest.raises(NnunetError, match="their values are not translated"):
        drain(import_objects(Workspace.at(tmp_path / "ws"), request(root, **changes)))


@pytest.mark.parametrize("kind", ["fractions", "colours"])
def test_masks_that_hold_no_numbers_of_objects_are_refused(tmp_path: Path, kind: str) -> None:
    root = folders(tmp_path / "in")
    for path in (root / "masks").iterdir():
        path.unlink()
    for name in "abc":
        if kind == "fractions":
            soft = np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
            imsave(root / "masks" / f"{name}.tif", soft, check_contrast=False)
        else:
            drawn = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
            imsave(root / "masks" / f"{name}.png", drawn, check_contrast=False)
    with pytest.raises(NnunetError, match="a whole number of its own for every object"):
        drain(import_objects(Workspace.at(tmp_path / "ws"), request(root)))
    assert not list((tmp_path / "ws" / "nnUNet_raw").glob("Dataset*"))


def spoiled(root: Path, how: str) -> Path:
    """The masks as TIFFs, of which the first is as people have them."""
    masks = folders(root) / "masks"
    for path in sorted(masks.iterdir()):
        mask = imread(path).astype(np.int32)
        path.unlink()
        if path.stem == "a":
            mask = {
                "negative": lambda m: np.where(m == 1, -1, m),
                "fractions": lambda m: m.astype(np.float32) * np.float32(0.3),
                "NaN": lambda m: np.where(m == 1, np.nan, m).astype(np.float32),
                "whole floats": lambda m: m.astype(np.float32),
                "another size": lambda m: m[:-3],
                "empty": np.zeros_like,
                "one voxel": lambda m: np.where((np.arange(m.size) == m.size - 1).reshape(m.shape), 99, m),
                "two pieces": lambda m: np.where(m == 3, 1, m),
                "thin": lambda m: np.where(np.arange(len(m))[:, None] == len(m) - 1, 99, m),
            }[how](mask)
        tifffile.imwrite(masks / f"{path.stem}.tif", mask)
    return root


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("negative", "1 mask has values below 0 (a: -1). Objects are numbered from 1"),
        ("fractions", "The masks of a hold fractions"),
        ("NaN", "a.tif has 100 voxels that are NaN or infinite"),
        ("another size", "do not lie on the same grid: 40 x 50 voxels and 37 x 50"),
    ],
)
def test_masks_that_cannot_be_numbers_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    root, ws = spoiled(tmp_path / "in", how), tmp_path / "ws"
    words_of_verb = ("import_folders", "-i", root / "images", "-m", root / "masks", "-n", "N", "--objects", "cell")
    assert main([*map(str, words_of_verb), "--workspace", str(ws)]) == 1
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not [path for path in ws.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("how", "count", "words"),
    [
        ("whole floats", 12, ""),
        ("empty", 8, "1 case has no object: a."),
        ("one voxel", 13, "1 of 13 objects is one voxel large (a)"),
        ("two pieces", 11, "1 of 11 objects lies in several pieces (a)"),
        ("thin", 13, "1 object is thinner than its border"),
    ],
)
def test_masks_that_are_odd_are_imported_by_a_rule_that_is_said(
    tmp_path: Path, how: str, count: int, words: str
) -> None:
    said: list[str] = []
    folder = drain(
        import_objects(Workspace.at(tmp_path / "ws"), request(spoiled(tmp_path / "in", how))),
        lambda event: said.append(getattr(event, "text", "")),
    )
    assert sum(len(np.unique(read_objects(path)[0])) - 1 for path in (folder / OBJECTS).iterdir()) == count
    assert any(words in text for text in said)
    for path in (folder / OBJECTS).iterdir():  # every object has a core, and nothing else has
        objects, labels = read_objects(path)[0], read_labels(folder / "labelsTr" / path.name)[0]
        assert set(np.unique(objects[labels == 1])) == set(np.unique(objects)) - {0}
        np.testing.assert_array_equal(labels > 0, objects > 0)


def test_what_is_only_shown_says_that_values_are_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folders(tmp_path / "in")
    for path in (root / "masks").iterdir():  # the same numbers in all: these look like classes
        imsave(path, (imread(path) % 10).astype(np.uint8), check_contrast=False)
    words = ("import_folders", "-i", root / "images", "-m", root / "masks", "--objects", "nucleus", "--dry_run")
    assert main([*map(str, words), "--workspace", str(tmp_path / "ws")]) == 0
    shown = capsys.readouterr().out
    assert "Every value besides 0 of a mask is an object of its own: nucleus." in shown
    assert "class" not in shown


@pytest.mark.slow
def test_more_objects_than_a_picture_has_numbers_are_imported(tmp_path: Path) -> None:
    root, side = folders(tmp_path / "in"), 257
    mask = np.zeros((2 * side, 2 * side), np.uint32)
    mask[::2, ::2] = np.arange(1, side**2 + 1).reshape(side, side)
    imsave(root / "images" / "d.png", np.zeros(mask.shape, np.uint8), check_contrast=False)
    imsave(root / "masks" / "d.tif", mask, check_contrast=False)
    folder = drain(import_objects(Workspace.at(tmp_path / "ws"), request(root)))
    objects, _ = read_objects(folder / OBJECTS / "d.tif")
    assert len(np.unique(objects)) == side**2 + 1


COLOURS = np.random.default_rng(3).integers(30, 255, (64, 3)).astype(np.uint8)


def coloured(root: Path, *, cycle: int = 60, ground: int = 0, ending: str = ".png") -> Path:
    """Three pictures with 12, 14 and 16 squares, each drawn in a colour; the colours begin anew after some."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i, name in enumerate("abc"):
        drawn = np.full((60, 80, 3), ground, dtype=np.uint8)
        for n in range(12 + 2 * i):
            y, x = divmod(n, 4)
            drawn[14 * y + 1 : 14 * y + 10, 18 * x + 2 : 18 * x + 12 + (5 * i + 7 * n) % 6] = COLOURS[
                (n + 20 * i) % cycle
            ]
        image = np.random.default_rng(i).integers(0, 250, drawn.shape[:2])
        imsave(root / "images" / f"{name}.png", image.astype(np.uint8), check_contrast=False)
        imsave(root / "masks" / f"{name}{ending}", drawn, check_contrast=False)
    return root


def test_objects_in_colours_are_asked_about_and_numbered(tmp_path: Path) -> None:
    root, workspace = coloured(tmp_path / "in"), Workspace.at(tmp_path / "ws")
    with pytest.raises(NnunetError) as told:
        drain(import_folders(workspace, request(root, objects=None)))
    assert "The masks draw their objects in colours: up to 16 colours" in told.value.message
    assert "If every colour is an object of its own, import with: --objects" in told.value.message
    folder = drain(import_objects(workspace, request(root)))
    objects, _ = read_objects(folder / "objectsTr" / "c.png")
    assert np.unique(objects).tolist() == list(range(17))
    drawn = imread(root / "masks" / "c.png")
    for number in range(1, 17):
        assert len(np.unique(drawn[objects == number], axis=0)) == 1
    np.testing.assert_array_equal(objects > 0, drawn.any(axis=2))


def test_objects_that_share_a_colour_are_told_apart(tmp_path: Path) -> None:
    root, workspace = coloured(tmp_path / "in", cycle=3), Workspace.at(tmp_path / "ws")
    folder = drain(import_objects(workspace, request(root)))
    objects, _ = read_objects(folder / "objectsTr" / "b.png")
    assert np.unique(objects).tolist() == list(range(15))


def test_colours_without_black_and_of_a_jpeg_number_no_objects(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / "ws")
    with pytest.raises(NnunetError, match="The masks of a, b, c have nothing black"):
        drain(import_objects(workspace, request(coloured(tmp_path / "white", ground=255))))
    with pytest.raises(NnunetError, match="The masks of a, b, c hold fractions, classes or the values of a JPEG"):
        drain(import_objects(workspace, request(coloured(tmp_path / "jpeg", ending=".jpg"))))


def test_smoothed_drawings_number_no_objects(tmp_path: Path) -> None:
    root, workspace = coloured(tmp_path / "in"), Workspace.at(tmp_path / "ws")
    for path in (root / "masks").iterdir():
        picture = Image.open(path)
        picture.resize((97, 73), Image.Resampling.LANCZOS).resize(picture.size, Image.Resampling.LANCZOS).save(path)
    with pytest.raises(NnunetError, match="connected pieces of its colours have no more than 2 voxels. That is a draw"):
        drain(import_objects(workspace, request(root)))
    assert not workspace.raw.exists() or not list(workspace.raw.iterdir())


def test_a_grey_mask_among_coloured_ones_is_read_as_they_are(tmp_path: Path) -> None:
    root, workspace = coloured(tmp_path / "in"), Workspace.at(tmp_path / "ws")
    drawn = imread(root / "masks" / "b.png")
    drawn[drawn.any(axis=2)] = 255
    imsave(root / "masks" / "b.png", drawn, check_contrast=False)
    folder = drain(import_objects(workspace, request(root)))
    objects, _ = read_objects(folder / "objectsTr" / "b.png")
    assert np.unique(objects).tolist() == list(range(15))


def test_a_palette_whose_black_is_not_its_first_entry_has_a_background(tmp_path: Path) -> None:
    root, workspace = coloured(tmp_path / "in"), Workspace.at(tmp_path / "ws")
    for path in (root / "masks").iterdir():
        colours, places = np.unique(imread(path).reshape(-1, 3), axis=0, return_inverse=True)
        table = np.roll(colours, -1, axis=0)  # black comes last
        picture = Image.fromarray(((places.reshape(60, 80) - 1) % len(colours)).astype(np.uint8), "P")
        picture.putpalette(table.ravel().tolist())
        picture.save(path)
    folder = drain(import_objects(workspace, request(root)))
    objects, _ = read_objects(folder / "objectsTr" / "a.png")
    assert np.unique(objects).tolist() == list(range(13))
    assert objects[0, 0] == 0

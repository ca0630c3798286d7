"""What the files of an image do not say, or say twice, is asked about; what is not stored is counted."""

import numpy as np
import pytest
import tifffile

from formats_large import ome_zarr
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.opening import Say, open_image

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")

IMAGE = (np.random.default_rng(0).integers(1, 4000, size=(9, 20, 30))).astype(np.uint16)


def opened(path, **said):
    return open_image([path], Say(**said))


def test_levels_of_other_times_or_of_another_place_are_refused(tmp_path):
    series = [np.stack([IMAGE] * 3), np.stack([IMAGE[::2, ::2, ::2]] * 2)]
    path = ome_zarr(tmp_path / "a.zarr", series, axes="tzyx", scales=[[1, 1, 1, 1], [1, 2, 2, 2]])
    with pytest.raises(ImageError, match=r"along t, level 0 is 3 x 1 = 3 long, but level 1 is 2 x 1 = 2\. Write the"):
        opened(path)
    path = ome_zarr(tmp_path / "b.zarr", [IMAGE, IMAGE[::2, ::2, ::2]], scales=[[1, 1, 1], [2, 2, 2]])
    group = zarr.open_group(str(path), mode="a")
    content = group.attrs["ome"]
    moved = [0.5, 500.0, 0.5]  # half a voxel is what averaging moves
    steps = content["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    steps.append({"type": "translation", "translation": moved})
    group.attrs["ome"] = content
    with pytest.raises(ImageError, match="along y, level 0 begins at 0, but level 1 at 500"):
        opened(path)
    moved[1] = 0.5
    group.attrs["ome"] = content
    assert opened(path, level="1").lies.origin == (5e-4, 5e-4, 5e-4)


def test_a_coarse_level_that_says_the_size_of_the_finest_is_asked_about(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE, IMAGE[::2, ::2, ::2]], scales=[[1, 1, 1], [1, 1, 1]])
    with pytest.raises(ImageError, match=r"Level 1 of a\.zarr has 5 x 10 x 15 voxels and level 0 9 x 20 x 30, but the"):
        opened(path, level="1")
    assert opened(path, level="1", spacing=(0.002,) * 3).geometry.spacing == (0.002,) * 3
    assert opened(path, level="0").geometry.spacing == (0.001,) * 3


@pytest.mark.parametrize("named", [["time", "lat", "lon"], ["a", "b", "c"], ["t", None, None], ["tile", "y", "x"]])
@pytest.mark.parametrize("version", [2, 3])
def test_axes_whose_names_are_not_known_are_asked_about(tmp_path, named, version):
    how = {"dimension_names": named} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": named}}
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=IMAGE, chunks=(9, 10, 30), zarr_format=version, **how)
    with pytest.raises(ImageError, match=rf"a\.zarr calls its axes {named[0]}, .*which is what.*--axes CZYX"):
        opened(path)
    assert opened(path, axes="TYX").times == 9


@pytest.mark.parametrize("named", [["time", "y", "x"], ["t", "Y", "X"]])
def test_axes_are_what_an_array_of_another_program_calls_them(tmp_path, named):
    path = tmp_path / "a.zarr"
    attributes = {"_ARRAY_DIMENSIONS": named}
    zarr.create_array(str(path), data=IMAGE, chunks=(9, 10, 30), zarr_format=2, attributes=attributes)
    assert (opened(path).axes, opened(path).times, opened(path).shape) == ("TYX", 9, (20, 30))


@pytest.mark.parametrize("shards", [None, (8, 16, 16)])
def test_what_is_not_stored_is_counted_as_it_lies_in_files(tmp_path, shards):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=IMAGE.shape, chunks=(4, 8, 8), shards=shards, dtype=IMAGE.dtype)[...] = IMAGE
    files = 3 * 3 * 4 if shards is None else 2 * 2 * 2
    assert opened(path).missing_chunks() == (0, files, 0)
    next(file for file in sorted((path / "c").rglob("*")) if file.is_file()).unlink()
    assert opened(path).missing_chunks() == (1, files, 0)


def test_what_a_desktop_leaves_in_a_folder_of_planes_is_no_change_of_the_image(tmp_path):
    for z, plane in enumerate(IMAGE):
        tifffile.imwrite(tmp_path / f"p{z}.tif", plane)
    image = opened(tmp_path)
    before = image.stamp()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("")
    assert image.stamp() == before
    tifffile.imwrite(tmp_path / "p9.tif", IMAGE[0])
    assert image.stamp() != before

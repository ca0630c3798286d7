"""Images that are read box by box are what their files hold."""

import gzip
import json

import nibabel
import numpy as np
import pytest
import tifffile

from formats_large import axis, ome_zarr
from helpers import smooth_image, write_nifti
from napari_nnunet import read_volume
from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats.large.ome_zarr import open_zarr
from napari_nnunet.formats.large.opening import Say, image_of, open_image

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")

IMAGE = (np.random.default_rng(0).integers(0, 4000, size=(9, 20, 30))).astype(np.uint16)
BOX = ((2, 7), (3, 20), (11, 29))
PART = IMAGE[2:7, 3:20, 11:29][None]


def test_very_many_chunks_as_small_as_voxels_are_refused_and_others_not_counted(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(1 << 12, 1 << 12, 1 << 12), chunks=(1, 8, 8), dtype="u1")
    with pytest.raises(ImageError, match="lies in 1,073,741,824 chunks of 64 voxels each"):
        open_zarr(tmp_path / "a.zarr")
    zarr.create_array(tmp_path / "b.zarr", shape=(1 << 16, 1 << 12, 1 << 12), chunks=(16, 16, 16), dtype="u1")
    assert open_zarr(tmp_path / "b.zarr").missing_chunks() is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_level_of_ome_zarr_is_read_with_its_size(tmp_path, version):
    path = ome_zarr(
        tmp_path / "a.zarr", [IMAGE, IMAGE[::2, ::2, ::2]], scales=[[2, 0.5, 0.5], [4, 1, 1]], version=version
    )
    image = open_image([path])
    assert (image.axes, image.shape, image.geometry.spacing) == ("ZYX", IMAGE.shape, (2e-3, 5e-4, 5e-4))
    assert np.array_equal(image.read(BOX), PART)
    coarse = open_image([path], Say(level="1"))
    assert coarse.geometry.spacing == (4e-3, 1e-3, 1e-3)
    assert np.array_equal(coarse.read(((0, 5), (0, 10), (0, 15)))[0], IMAGE[::2, ::2, ::2])


def test_the_transformation_of_a_whole_image_counts(tmp_path):
    whole = [{"type": "scale", "scale": [10.0, 10.0, 10.0]}]
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE], scales=[[2, 1, 1]], coordinateTransformations=whole)
    assert open_image([path]).geometry.spacing == pytest.approx((0.02, 0.01, 0.01))


def test_time_and_channels_are_found_by_their_names(tmp_path):
    both = np.stack([np.stack([IMAGE, IMAGE + 1]), np.stack([IMAGE + 2, IMAGE + 3])])
    image = open_image([ome_zarr(tmp_path / "a.zarr", [both], axes="tczyx", scales=[[1, 1, 2, 1, 1]])])
    assert (image.times, image.channels, image.shape) == (2, 2, IMAGE.shape)
    assert np.array_equal(image.read(BOX, time=1), np.concatenate([PART + 2, PART + 3]))


def test_axes_may_lie_in_any_order():
    turned = np.moveaxis(np.stack([IMAGE, IMAGE + 1]), 0, -1).transpose(2, 1, 0, 3)  # X Y Z C
    image = image_of(turned, (2.0, 1.0, 1.0), "XYZC")
    assert np.array_equal(image.read(BOX), np.concatenate([PART, PART + 1]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chunks": [0, 20, 30]}, "say that its chunks hold no voxel"),
        ({"levels": 20_000}, "name 20,000 levels, more than any image has"),
        ({"path": "../secret.zarr"}, "do not describe an image"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_metadata_that_no_image_has_are_refused(tmp_path, changes, words):
    path = tmp_path / "a.zarr"
    ome_zarr(path, [np.zeros((9, 20, 30), np.uint8)], version="0.4")
    attributes = json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    datasets = attributes["multiscales"][0]["datasets"]
    datasets[0]["path"] = changes.get("path", "0")
    attributes["multiscales"][0]["datasets"] = datasets * changes.get("levels", 1)
    (path / ".zattrs").write_text(json.dumps(attributes))
    array = json.loads((path / "0" / ".zarray").read_text(encoding="utf-8"))
    (path / "0" / ".zarray").write_text(json.dumps({**array, "chunks": changes.get("chunks", array["chunks"])}))
    with pytest.raises(ImageError, match=words):
        open_zarr(path)


def test_a_plain_zarr_is_a_stack(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=IMAGE, chunks=(4, 8, 8))
    image = open_image([tmp_path / "a.zarr"], Say(spacing=(3.0, 1.0, 1.0)))
    assert (image.geometry.spacing, image.chunk_3d) == ((3.0, 1.0, 1.0), (4, 8, 8))
    assert np.array_equal(image.read(BOX), PART)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_folder_of_planes_is_a_stack_in_the_order_of_its_numbers(tmp_path, compression):
    folder = tmp_path / "planes"
    folder.mkdir()
    for z, plane in enumerate(IMAGE):
        tifffile.imwrite(folder / f"plane_{z + 5}.tif", plane, compression=compression)
    image = open_image([folder])
    assert image.shape == IMAGE.shape
    assert np.array_equal(image.read(BOX), PART)


@pytest.mark.parametrize(
    "how", [{}, {"bigtiff": True, "byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16), "compression": "zlib"}]
)
def test_a_tiff_is_read_where_it_is_looked_at(tmp_path, how):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack", metadata={"axes": "ZYX"}, **how)
    image = open_image([tmp_path / "a.tif"])
    assert np.array_equal(image.read(BOX), PART)
    assert not isinstance(image.arrays[0], np.ndarray) or isinstance(image.arrays[0], np.memmap)


def test_a_nifti_is_read_as_in_memory(tmp_path):
    write_nifti(tmp_path / "a.nii", IMAGE.astype(np.int16), (3.0, 0.5, 0.7))
    image, volume = open_image([tmp_path / "a.nii"]), read_volume([tmp_path / "a.nii"])
    assert image.geometry == volume.geometry
    assert np.array_equal(image.read(BOX), np.asarray(volume.array)[:, 2:7, 3:20, 11:29])


def test_several_files_are_channels(tmp_path):
    for c in range(2):
        zarr.create_array(str(tmp_path / f"{c}.zarr"), data=IMAGE + c, chunks=(4, 8, 8))
    image = open_image([tmp_path / "0.zarr", tmp_path / "1.zarr"])
    assert np.array_equal(image.read(BOX), np.concatenate([PART, PART + 1]))


def test_a_dask_array_is_never_read_as_a_whole():
    dask = pytest.importorskip("dask.array")
    array = dask.from_array(IMAGE, chunks=(3, 7, 11))
    image = image_of(array, (1.0, 1.0, 1.0))
    assert image.chunk_3d == (3, 7, 11)
    assert np.array_equal(image.read(BOX), PART)


def opened(path, **said):
    return open_image([path], Say(**said))


def test_levels_that_contradict_each_other_are_refused(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE, IMAGE[::2, ::2, ::2]], scales=[[1, 1, 1], [2, 2, 4]])
    with pytest.raises(
        ImageError, match=r"levels of a\.zarr contradict each other: along x, level 0 is 30 x 1 = 30 long"
    ):
        opened(path)


def test_a_level_that_is_not_there_is_named(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE])
    with pytest.raises(ImageError, match=r"a\.zarr has no level 7; it has 0\."):
        opened(path, level="7")


def test_five_axes_without_a_say_are_asked_about(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=IMAGE[None, None], chunks=(1, 1, 4, 8, 8))
    with pytest.raises(ImageError, match=r"a\.zarr has 5 axes, and 'nothing' does not say which is what.*--axes CZYX"):
        opened(tmp_path / "a.zarr")
    assert opened(tmp_path / "a.zarr", axes="TCZYX").shape == IMAGE.shape


def test_a_group_that_is_no_image_lists_what_it_holds(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_group("raw")
    with pytest.raises(ImageError, match=r"without the metadata of an image \(multiscales\)\. It holds raw"):
        opened(tmp_path / "a.zarr")


def test_axes_and_shapes_that_contradict_each_other_are_refused(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE], axes="zyx", scales=[[1, 1, 1]])
    group = zarr.open_group(str(path), mode="a")
    content = group.attrs["ome"]
    content["multiscales"][0]["axes"].insert(0, axis("c"))
    content["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"].insert(0, 1.0)
    group.attrs["ome"] = content
    with pytest.raises(ImageError, match="name 4 axes, but level 0 has 3: 9 x 20 x 30"):
        opened(path)


def test_a_missing_plane_is_noticed(tmp_path):
    for z in (1, 2, 4, 5):
        tifffile.imwrite(tmp_path / f"p{z}.tif", IMAGE[z])
    with pytest.raises(ImageError, match=r"Planes are missing in .*: 3 between p1\.tif and p5\.tif"):
        opened(tmp_path)


def test_a_missing_plane_is_noticed_among_those_that_are_counted_in_steps(tmp_path):
    for z in (0, 10, 20, 40):
        tifffile.imwrite(tmp_path / f"p{z:03}.tif", IMAGE[z // 10])
    with pytest.raises(ImageError, match=r"Planes are missing in .*: 30 between"):
        opened(tmp_path)
    (tmp_path / "p040.tif").rename(tmp_path / "p030.tif")
    assert opened(tmp_path).shape == (4, 20, 30)


def test_planes_of_two_channels_are_not_stacked(tmp_path):
    for z, channel in ((z, c) for z in range(3) for c in "ab"):
        tifffile.imwrite(tmp_path / f"{channel}_{z}.tif", IMAGE[z])
    with pytest.raises(ImageError, match=r"several planes of one number: a_0\.tif and b_0\.tif"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["p0.png", "p0.dcm"])
def test_a_folder_of_something_else_is_named_as_what_it_is(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name.endswith("dcm") else b"")
    said = "holds a DICOM series, which predict" if name.endswith("dcm") else "holds no TIFF planes"
    with pytest.raises(ImageError, match=said):
        opened(tmp_path)


@pytest.mark.parametrize("kind", ["version 2", "fourth axis", "offset 0", "packed"])
def test_odd_nifti_is_read_as_everywhere_else(tmp_path, kind):
    array, path = np.moveaxis(IMAGE.astype(np.int16), 0, -1), tmp_path / "a.nii"
    make = nibabel.Nifti2Image if kind == "version 2" else nibabel.Nifti1Image
    content = make(array[..., None] if kind == "fourth axis" else array, np.eye(4)).to_bytes()
    if kind == "offset 0":
        content = content[:108] + bytes(4) + content[112:]
    path.write_bytes(gzip.compress(content) if kind == "packed" else content)
    image = opened(path)
    found = image.read(tuple((0, n) for n in image.shape))
    np.testing.assert_array_equal(found, read_volume([path]).array)
    np.testing.assert_array_equal(found[0], array.T)


@pytest.mark.parametrize(("affine", "said"), [
    (np.array([[-1, 0, 0, 29], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "is stored in another " "orientation than a.nii"),
    (np.eye(4) + 40 * np.eye(4, k=3), "does not lie on the grid of a.nii"),
])  # fmt: skip
def test_channels_that_lie_apart_are_refused(tmp_path, affine, said):
    for name, place in (("a", np.eye(4)), ("b", affine), ("c", np.eye(4))):
        nibabel.save(nibabel.Nifti1Image(IMAGE.T.astype(np.int16), place), tmp_path / f"{name}.nii")
    with pytest.raises(ImageError, match=f"b.nii {said}, but is a channel of the same image"):
        open_image([tmp_path / "a.nii", tmp_path / "b.nii"])
    assert open_image([tmp_path / "a.nii", tmp_path / "c.nii"]).channels == 2


def test_a_plane_of_another_size_is_named_with_what_was_read(tmp_path):
    for z in range(3):
        tifffile.imwrite(tmp_path / f"p{z}.tif", IMAGE[z, : 20 - z])
    with pytest.raises(ImageError, match=r"z 0 to 2.*cannot be read: p1\.tif has 19 x 30 pixels"):
        opened(tmp_path).read(((0, 2), (0, 5), (0, 5)))


def test_a_damaged_chunk_is_named_by_its_voxels(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=IMAGE, chunks=(9, 8, 8))
    next((tmp_path / "a.zarr" / "c" / "0" / "1").iterdir()).write_bytes(b"no")
    image = opened(tmp_path / "a.zarr")
    with pytest.raises(ImageError, match="The voxels z 0 to 9, y 8 to 12, x 0 to 30 of a.zarr cannot be read"):
        image.read(((0, 9), (8, 12), (0, 30)))


def test_chunks_that_are_not_stored_are_counted(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=IMAGE, chunks=(9, 10, 30))
    next((tmp_path / "a.zarr" / "c" / "0" / "1").iterdir()).unlink()
    assert opened(tmp_path / "a.zarr").missing_chunks() == (1, 2, 0)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", [None, "ZYX"])
def test_axes_that_are_given_do_not_drop_the_size_of_the_voxels(tmp_path, axes, compression):
    path, words = tmp_path / "a.tif", {"spacing": 2.0, "unit": "mm", "axes": "ZYX"}
    how = {"imagej": True} if compression is None else {"photometric": "minisblack", "compression": compression}
    tifffile.imwrite(path, IMAGE.astype(np.uint16), resolution=(2.0, 4.0), metadata=words, **how)
    geometry = open_image([path], Say(axes=axes)).geometry
    assert (geometry.spacing, geometry.spacing_known) == ((2.0, 0.25, 0.5), True)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [3, 2, 1]}))
    assert open_image([path], Say(axes=axes)).geometry.spacing == (3.0, 2.0, 1.0)
    assert open_image([path], Say(axes=axes, spacing=(7.0, 7.0, 7.0))).geometry.spacing == (7.0, 7.0, 7.0)


def test_a_size_that_is_given_needs_no_file_beside_that_can_be_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE.astype(np.uint16), photometric="minisblack")
    (tmp_path / "a.json").write_text("{")
    for axes in (None, "ZYX"):
        assert open_image([tmp_path / "a.tif"], Say(axes=axes, spacing=(3.0, 2.0, 1.0))).geometry.spacing == (3, 2, 1)
        with pytest.raises(ImageError, match="is not valid JSON"):
            open_image([tmp_path / "a.tif"], Say(axes=axes))


def test_pixels_of_a_model_of_pictures_have_no_size_with_axes_either(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE[0].astype(np.uint8), resolution=(20.0, 20.0), resolutionunit="CENTIMETER"
    )
    for reader, known in (("NaturalImage2DIO", False), (None, True)):
        say = Say(axes="YX", reader=None if reader is None else lambda path: "NaturalImage2DIO")
        assert open_image([tmp_path / "a.tif"], say).geometry.spacing_known == known


def test_a_truncated_nifti_is_refused(tmp_path):
    write_nifti(tmp_path / "a.nii", smooth_image((9, 20, 30))[0])
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(content[:-100])
    with pytest.raises(ImageError, match="truncated"):
        opened(tmp_path / "a.nii")


def _changed(path, **metadata):
    """Change the metadata of the finest level."""
    file = path / "0" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **metadata}))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"shape": [2**20] * 3}, "more than any image"),
        (
            {
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**17, 2**15, 2**15]}},
                "shape": [2**14] * 3,
            },
            "GB of memory are free",
        ),
    ],
)
def test_an_image_that_claims_more_than_can_be_is_refused_before_a_voxel_is_read(tmp_path, metadata, words):
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE])
    _changed(path, **metadata)
    with pytest.raises((ImageError, ResourceError), match=words):
        open_image([path], Say(spacing=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize("name", [None, 3, ["z"], "depth"])
def test_an_axis_without_a_letter_is_asked_for(tmp_path, name):
    axes = [{**axis("z"), "name": name}, axis("y"), axis("x")]
    path = ome_zarr(tmp_path / "a.zarr", [IMAGE])
    file = path / "zarr.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["attributes"]["ome"]["multiscales"][0]["axes"] = axes
    file.write_text(json.dumps(content))
    with pytest.raises(ImageError, match="Give one letter per axis"):
        open_image([path])
    assert open_image([path], Say(axes="ZYX", spacing=(1.0, 1.0, 1.0))).shape == IMAGE.shape


def test_a_plane_that_names_another_file_is_not_followed_there(tmp_path):
    """Files of an OME set name each other, and may name any file of the computer."""
    tifffile.imwrite(tmp_path / "secret.tif", np.full((8, 8), 77, np.uint8))
    (tmp_path / "planes").mkdir()
    own = 'http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1'
    pixels = 'Type="uint8" SizeX="8" SizeY="8" SizeZ="1" SizeC="1" SizeT="1" DimensionOrder="XYCZT" ID="P:0"'
    other = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="../secret.tif">urn:uuid:2</UUID></TiffData>'
    text = (
        f'<?xml version="1.0"?><OME xmlns="{own}"><Image ID="I:0"><Pixels {pixels}>'
        f'<Channel ID="C:0" SamplesPerPixel="1"/>{other}</Pixels></Image></OME>'
    )
    for number in range(3):
        path = tmp_path / "planes" / f"p{number}.tif"
        tifffile.imwrite(path, np.full((8, 8), 5, np.uint8), description=text, metadata=None, compression="zlib")
    assert tifffile.imread(path).max() > 5, "left alone, the library goes there"
    try:
        found = opened(tmp_path / "planes").read(((0, 3), (0, 8), (0, 8)))
    except ImageError:
        return
    assert np.unique(found).tolist() == [5]


def test_channels_whose_voxel_sizes_differ_by_rounding_lie_on_one_grid(tmp_path):
    image = np.zeros((6, 7, 8), np.int16)
    for c, size in enumerate((0.9, 0.9000001)):
        nibabel.save(nibabel.Nifti1Image(image, np.diag([size, 1.0, 3.0, 1.0])), tmp_path / f"a_{c:04d}.nii")
    assert open_image(sorted(tmp_path.glob("*.nii"))).channels == 2
    nibabel.save(nibabel.Nifti1Image(image, np.diag([0.95, 1.0, 3.0, 1.0])), tmp_path / "a_0001.nii")
    with pytest.raises(ImageError, match="do not lie on one grid"):
        open_image(sorted(tmp_path.glob("*.nii")))

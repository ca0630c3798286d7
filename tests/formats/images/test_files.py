"""Laws of image files: what is written comes back equal or is refused, and a failed write changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_nnunet.errors import ImageError, NnunetError, ResourceError
from napari_nnunet.formats.atomic import remove_leftovers
from napari_nnunet.formats.images import files
from napari_nnunet.formats.images.files import (
    ADAPTERS,
    ENDINGS,
    adapter_for,
    common_ending,
    count_invalid,
    ending_of,
    read_header,
    read_labels,
    read_volume,
    split_channels,
    write_image,
    write_labels,
)
from napari_nnunet.schema.geometry import Geometry

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".tiff")
SLICES = (".nii.gz", ".nrrd", ".mha", ".mhd", ".png", ".bmp", ".tif", ".tiff")
UNIT = Geometry(spacing=(1.0, 1.0, 1.0))
FLAT = Geometry(spacing=(1.0, 1.0))

sides = st.integers(1, 5)
spacings = st.floats(0.01, 900.0)
label_types = st.sampled_from(["u1", "u2", ">u2", "u4", "i2", ">i4", "i8", ">u8", "?"])
image_types = st.sampled_from(["u1", "i1", ">i2", "u2", "i4", ">u4", "i8", "f2", "f4", ">f4", "f8", "?"])
turns = st.sampled_from([None, (0, 1, 2, 1), (2, 0, 1, 0), (1, 2, 0, 3), (2, 1, 0, 6)])


def direction_of(turn):
    """A direction whose axes are permuted and mirrored: a permutation, and a bit for each axis that is mirrored."""
    if turn is None:
        return None
    *axes, mirrored = turn
    matrix = np.zeros((3, 3))
    for row, axis in enumerate(axes):
        matrix[row, axis] = -1.0 if mirrored >> row & 1 else 1.0
    return tuple(matrix.ravel())


def values_of(shape, kind, seed, *, highest=65535):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(kind)
    top = 1 if dtype.kind == "b" else min(highest, np.iinfo(dtype).max if dtype.kind in "iu" else highest)
    return np.asfortranarray(rng.integers(0, top, shape, endpoint=True).astype(dtype))


@settings(max_examples=120)
@given(st.sampled_from(VOLUMES), st.tuples(sides, sides, sides), label_types, st.tuples(*[spacings] * 3), turns,
       st.integers(0, 99))  # fmt: skip
@example(".tif", (3, 5, 6), "u1", (1.0,) * 3, None, 0)  # no colours, though three
@example(".tif", (4, 5, 2), "u2", (1.0,) * 3, None, 0)
@example(".tiff", (1, 1, 1), "u1", (1.0,) * 3, None, 0)
def test_label_volumes_come_back_equal_or_are_refused(tmp_path_factory, ending, shape, kind, spacing, turn, seed):
    path = tmp_path_factory.mktemp("labels") / f"Fall ä 1{ending}"
    labels = values_of(shape, kind, seed)
    geometry = Geometry(spacing=spacing, origin=(1.5, -20.25, 3.0), direction=direction_of(turn))
    if ending == ".gipl" and turn is not None:
        with pytest.raises(ImageError, match="GIPL"):
            write_labels(labels, geometry, path)
        assert list(path.parent.iterdir()) == []
        return
    write_labels(labels, geometry, path)
    found, where = read_labels(path)
    np.testing.assert_array_equal(found, labels.astype(np.int32))
    assert where.spacing == pytest.approx(spacing, rel=1e-6)
    assert read_header(path)[0] == (1, *shape)
    if ending in (".nrrd", ".mha", ".mhd", ".nii.gz"):
        assert where.direction == pytest.approx(direction_of(turn) or tuple(np.eye(3).ravel()), abs=1e-6)
        assert where.origin == pytest.approx(geometry.origin, abs=1e-5)


@settings(max_examples=60)
@given(st.sampled_from(SLICES), st.tuples(sides, sides), label_types, st.integers(0, 99))
def test_label_slices_come_back_equal_or_are_refused(tmp_path_factory, ending, shape, kind, seed):
    path = tmp_path_factory.mktemp("labels") / f"a{ending}"
    labels = values_of(shape, kind, seed)
    if ending == ".bmp" and labels.max() >= 255:
        with pytest.raises(ImageError, match="BMP .* up to 254"):
            write_labels(labels, FLAT, path)
        return
    write_labels(labels, FLAT, path)
    found, where = read_labels(path)
    np.testing.assert_array_equal(found, labels.astype(np.int32))
    assert where.ndim == 2


@settings(max_examples=80)
@given(st.sampled_from(VOLUMES), st.tuples(sides, sides, sides), image_types, st.integers(0, 99))
def test_images_come_back_equal_whatever_their_type(tmp_path_factory, ending, shape, kind, seed):
    path = tmp_path_factory.mktemp("images") / f"a_0000{ending}"
    image = values_of(shape, kind, seed, highest=2000)
    if image.dtype.kind in "if":
        image = (-(image // 2)).astype(kind)
    write_image(image, UNIT, path)
    volume = read_volume([path])
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], image.astype(np.float32))
    shape_in_header, size, _ = read_header(path)
    assert shape_in_header == (1, *shape)
    assert size in (1, 2, 4)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[[0, -1]]]),
        np.array([[[2**31, 0]]]),
        np.array([[[2**40, 0]]]),
        np.array([[[0.0, 1.0]]]),
        np.array([[[np.nan, 1.0]]]),
        np.array([[[np.inf, 1.0]]]),
        np.array([[[1j, 0]]]),
    ],
    ids=["negative", "32 bits", "41 bits", "whole floats", "nan", "infinite", "complex"],
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".tif"])
def test_label_values_that_files_do_not_hold_are_refused_and_the_old_file_stays(tmp_path, labels, ending):
    path = tmp_path / f"a{ending}"
    write_labels(np.full((1, 1, 2), 7, np.uint8), UNIT, path)
    old = path.read_bytes()
    with pytest.raises(ImageError, match="labels are whole numbers from 0 to 2147483647"):
        write_labels(labels, UNIT, path)
    assert path.read_bytes() == old


def test_labels_up_to_sixteen_bits_are_written_as_nnunet_does(tmp_path):
    for highest, kind in ((254, np.uint8), (65535, np.uint16), (65536, np.int32)):
        write_labels(np.full((1, 1, 2), highest), UNIT, tmp_path / "a.nii.gz")
        labels, _ = read_labels(tmp_path / "a.nii.gz", as_stored=True)
        assert labels.dtype == kind
        assert labels.max() == highest


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 3), (4, 5, 4), (1, 5, 6), (4, 5, 1)])
def test_a_volume_is_not_written_into_a_picture(tmp_path, ending, shape):
    with pytest.raises(ImageError, match="is a picture"):
        write_labels(np.ones(shape, np.uint8), UNIT, tmp_path / f"a{ending}")
    assert list(tmp_path.iterdir()) == []


def test_a_slice_is_not_written_as_a_stack_or_as_gipl(tmp_path):
    flat = np.ones((4, 5), np.uint8)
    with pytest.raises(ImageError, match="a stack has 3"):
        write_labels(flat, FLAT, tmp_path / "a.tif", writer="Tiff3DIO")
    with pytest.raises(ImageError, match="no slices"):
        write_labels(flat, FLAT, tmp_path / "a.gipl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "kind"), [(".png", np.int16), (".png", np.float32), (".bmp", np.uint16)])
def test_pictures_of_types_that_their_format_lacks_are_refused(tmp_path, ending, kind):
    with pytest.raises(ImageError, match="PNG|BMP"):
        write_image(np.zeros((4, 5), kind), FLAT, tmp_path / f"a{ending}")
    assert list(tmp_path.iterdir()) == []


def test_metaimage_headers_hold_their_voxels_whatever_is_tidied_up_later(tmp_path, monkeypatch):
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    for write in (write_labels, write_image):
        write(labels, UNIT, tmp_path / "a.mhd")
        assert [path.name for path in tmp_path.iterdir()] == ["a.mhd"]
        monkeypatch.setattr("napari_nnunet.formats.atomic.os.getpid", lambda: 1)
        remove_leftovers(tmp_path)
        np.testing.assert_array_equal(read_labels(tmp_path / "a.mhd")[0], labels)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mhd", ".tif"])
@pytest.mark.parametrize("write", [write_labels, write_image], ids=["labels", "image"])
def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch, ending, write):
    path, array = tmp_path / f"a{ending}", np.ones((3, 4, 5), np.uint8)
    write(array, UNIT, path)
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_nnunet.formats.atomic.os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write(2 * array, UNIT, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old


def test_itks_own_failure_to_write_is_a_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Exception thrown in SimpleITK WriteImage:\n  ITK ERROR: cannot write\n")

    monkeypatch.setattr("napari_nnunet.formats.images.itk.sitk.WriteImage", refuse)
    for write in (write_labels, write_image):
        with pytest.raises(ResourceError, match=r"a\.nrrd could not be written: ITK ERROR: cannot write"):
            write(np.ones((2, 2, 2), np.uint8), UNIT, tmp_path / "a.nrrd")


# --- images of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_file_is_named_with_its_reader(tmp_path, ending):
    path = tmp_path / f"a b{ending}"
    path.write_bytes(b"\x1f\x8bnothing of the kind")
    for read in (lambda: read_volume([path]), lambda: read_labels(path), lambda: read_header(path)):
        with pytest.raises(ImageError, match="a b") as caught:
            read()
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file_is_an_error_of_images(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=f"a{ending}"):
        read_volume([path])


def test_channels_keep_the_type_of_the_file_on_request(tmp_path):
    paths = [tmp_path / f"a_000{i}.nrrd" for i in range(2)]
    for value, path in enumerate(paths):
        write_image(np.full((2, 3, 4), value, np.int16), UNIT, path)
    assert read_volume(paths, as_stored=True).array.dtype == np.int16
    assert read_volume(paths).array[:, 0, 0, 0].tolist() == [0.0, 1.0]


def test_all_missing_channel_files_are_named_at_once(tmp_path):
    with pytest.raises(ImageError, match="Missing channel files: .*a_0000.nrrd, .*a_0001.nrrd"):
        read_volume([tmp_path / "a_0000.nrrd", tmp_path / "a_0001.nrrd"])
    with pytest.raises(ImageError, match="No image file was given"):
        read_volume([])
    with pytest.raises(ImageError, match="does not exist"):
        read_header(tmp_path / "a_0000.nrrd")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".tif"])
def test_voxels_that_are_no_numbers_are_counted(tmp_path, ending):
    image = np.zeros((3, 4, 5), np.float32)
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    write_image(image, UNIT, tmp_path / f"a{ending}")
    path = tmp_path / f"a{ending}"
    assert count_invalid(path, read_volume([path])) == 3
    write_image(np.zeros((3, 4, 5), np.int16), UNIT, path)
    assert count_invalid(path, read_volume([path])) == 0


# --- which adapter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ending"), [("a.nii.gz", ".nii.gz"), ("a.NII.GZ", ".nii.gz"), ("a.b.Tiff", ".tiff"), ("ä ö.PNG", ".png")]
)
def test_endings_are_known_in_any_case(tmp_path, name, ending):
    assert ending_of(tmp_path / name) == ending


@pytest.mark.parametrize("name", ["a.gz", "a", ".nii", "a.dcm", "a.nii.gz.tmp", "nii.gz.txt"])
def test_unknown_endings_are_refused_with_the_known_ones(tmp_path, name):
    if name == ".nii":
        assert ending_of(tmp_path / name) == ".nii"
        return
    with pytest.raises(ImageError, match=r"unknown kind of image. Known endings: \.bmp"):
        ending_of(tmp_path / name)


def test_the_images_of_a_folder_have_one_ending(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        common_ending(tmp_path / "none")
    with pytest.raises(ImageError, match="no images"):
        common_ending(tmp_path)
    for name in ("a.NII.GZ", "b.nii.gz", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.tif").mkdir()
    assert common_ending(tmp_path) == ".nii.gz"
    (tmp_path / "c.png").touch()
    with pytest.raises(ImageError, match=r"several kinds: \.nii\.gz, \.png"):
        common_ending(tmp_path)


def test_a_reader_that_is_not_in_the_table_is_refused_with_the_list(tmp_path):
    with pytest.raises(ImageError, match="Unknown image reader 'os.system'. Known: NaturalImage2DIO, SimpleITKIO"):
        adapter_for(tmp_path / "a.nii.gz", "os.system")
    for name in ADAPTERS:
        assert adapter_for(tmp_path / "a.nii.gz", name).name == name


@pytest.mark.parametrize("ending", [".tif", ".tiff"])
def test_slices_and_stacks_of_one_ending_are_told_apart(tmp_path, ending):
    write_labels(np.ones((5, 6), np.uint8), FLAT, tmp_path / f"slice{ending}")
    write_labels(np.ones((3, 5, 6), np.uint8), UNIT, tmp_path / f"stack{ending}")
    assert adapter_for(tmp_path / f"slice{ending}").name == "NaturalImage2DIO"
    assert adapter_for(tmp_path / f"stack{ending}").name == "Tiff3DIO"


def test_a_file_of_several_volumes_is_split_or_left(tmp_path):
    parts = [sitk.GetImageFromArray(np.full((2, 3, 4), i, np.int16)) for i in range(3)]
    sitk.WriteImage(sitk.JoinSeries(parts), str(tmp_path / "four.nii.gz"))
    targets = [tmp_path / f"a_{i:04d}.nii.gz" for i in range(3)]
    with pytest.raises(ImageError, match="3 volumes; 2 were expected"):
        split_channels(tmp_path / "four.nii.gz", targets[:2])
    assert not targets[0].exists()
    split_channels(tmp_path / "four.nii.gz", targets)
    assert [int(read_labels(path)[0][0, 0, 0]) for path in targets] == [0, 1, 2]
    with pytest.raises(ImageError, match="only four can be split"):
        split_channels(targets[0], targets)


def test_every_error_of_a_library_is_one_sentence_of_ours(tmp_path, monkeypatch):
    write_image(np.ones((2, 3, 4), np.uint8), UNIT, tmp_path / "a.nrrd")

    class Odd:
        @staticmethod
        def read(path):
            raise LookupError  # without a word

    monkeypatch.setattr(files, "import_module", lambda name: Odd)
    with pytest.raises(NnunetError, match="a.nrrd cannot be read as NibabelIO: LookupError"):
        read_volume([tmp_path / "a.nrrd"], reader="NibabelIO")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
def test_values_of_atlases_and_objects_are_kept(tmp_path, ending):
    labels = np.zeros((3, 4, 5), np.int64)
    labels[0, 0], labels[1], labels[2, 1:] = 997, 70001, 312782546
    write_labels(labels, UNIT, tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_labels(tmp_path / f"a{ending}")[0], labels)


@pytest.mark.parametrize(("ending", "shape"), [(".png", (4, 5)), (".gipl", (3, 4, 5))])
def test_a_format_that_cannot_hold_a_value_names_it(tmp_path, ending, shape):
    geometry = Geometry(spacing=(1.0,) * len(shape))
    with pytest.raises(ImageError, match="70001"):
        write_labels(np.full(shape, 70001), geometry, tmp_path / f"a{ending}")
    assert not list(tmp_path.iterdir())

"""By their ending alone, slices and channels in NIfTI-2 are read as those in NIfTI-1 are; and no file is another one."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import adapter_for, read_header, read_labels, read_volume
from napari_nnunet.jobs.dataset.look import look_at

AFFINE = np.diag([0.5, 0.75, 2, 1.0])
TILTED = np.array([[0.5, 0.2, 0, 0], [0, 0.75, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
VERSIONS = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}


def written(folder, version, shape, ending=".nii.gz", affine=AFFINE, order="<"):
    array = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    image = VERSIONS[version](array.T, affine)
    if order == ">":
        image = VERSIONS[version](array.T.astype(">i2"), affine, VERSIONS[version].header_class(endianness=">"))
    path = folder / f"version{version}{ending}"
    nibabel.save(image, path)
    return array, path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shape", [(6, 7), (3, 5, 6, 7)])
def test_slices_and_channels_of_both_versions_are_read_alike_by_their_ending(tmp_path, shape, order):
    array, one = written(tmp_path, 1, shape, order=order)
    _, two = written(tmp_path, 2, shape, order=order)
    first, second = read_volume([one]), read_volume([two])
    np.testing.assert_array_equal(second.array, array if array.ndim == 4 else array[None])
    np.testing.assert_array_equal(second.array, first.array)
    assert second.geometry == first.geometry
    assert read_header(two) == read_header(one)
    seen = [look_at(path) for path in (one, two)]
    assert [{**found.cells, "file": ""} for found in seen] == [{**seen[0].cells, "file": ""}] * 2
    if array.ndim == 2:
        np.testing.assert_array_equal(read_labels(two)[0], read_labels(one)[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_volumes_that_itk_refuses_stay_with_nibabel(tmp_path, version):
    affine = AFFINE if version == 2 else TILTED
    for shape in [(5, 6, 7), (1, 5, 6, 7)]:
        _, path = written(tmp_path, version, shape, affine=affine)
        assert adapter_for(path).name == "NibabelIO"
        assert read_volume([path]).array.shape == (1, 5, 6, 7)


def test_channels_of_a_tilted_file_are_read(tmp_path):
    array, path = written(tmp_path, 1, (3, 5, 6, 7), affine=TILTED)
    np.testing.assert_array_equal(read_volume([path]).array, array)
    assert "not at right angles" in read_volume([path]).geometry.remarks[0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("shape", "way"), [((6, 7), "as .nii.gz"), ((3, 5, 6, 7), "a volume of its own")])
def test_without_compression_both_versions_are_refused_with_the_way_out(tmp_path, version, shape, way):
    _, path = written(tmp_path, version, shape, ending=".nii")
    with pytest.raises(ImageError, match=f"has {len(shape)} dimensions.*{way}"):
        read_volume([path])
    assert way in look_at(path).error


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", None])
@pytest.mark.parametrize("kind", ["i2", "i8", "u8", ">i2", "scaled"])
@pytest.mark.parametrize("ending", [".nii.gz", ".NII.GZ"])
def test_a_packed_file_is_not_taken_for_one_of_its_name_that_lies_beside(tmp_path, reader, kind, ending):
    array = np.random.default_rng(0).integers(0, 90, (4, 5, 6))
    header = nibabel.Nifti1Header(endianness=">" if kind[0] == ">" else "<")
    image = nibabel.Nifti1Image(array.T.astype("i2" if kind == "scaled" else kind), AFFINE, header, dtype=None)
    if kind == "scaled":
        image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "one.nii.gz")
    array = nibabel.load(tmp_path / "one.nii.gz").get_fdata().T
    assert 300 not in array
    (tmp_path / "one.nii.gz").rename(tmp_path / f"a{ending}")
    nibabel.save(nibabel.Nifti1Image(np.full((6, 5, 4), 300, "i2"), AFFINE), tmp_path / f"a{ending[:-3]}")
    found = read_volume([tmp_path / f"a{ending}"], reader=reader).array
    turned = found[..., ::-1, ::-1] if reader == "SimpleITKIOWithReorient" else found
    assert any(np.array_equal(way, array[None]) for way in (found, turned))

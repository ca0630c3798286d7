"""A part of a layer larger than memory becomes a training case; nothing else of it is read."""

from __future__ import annotations

import dask.array as da
import numpy as np
from docks import MM, open_dock
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.widgets.large.correct import region_in_view

SHAPE = (60, 40, 36)


def lazy(voxels, read):
    def block(block_info):
        place = block_info[None]["array-location"]
        read.append(place[0])
        return voxels[tuple(slice(*span) for span in place)]

    return da.map_blocks(block, chunks=((2,) * 30, (40,), (36,)), dtype=voxels.dtype)


def cut(viewer, dock, qtbot):
    qtbot.mouseClick(dock.cut_out.cut, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.cut_out.busy)


def test_a_part_becomes_a_case_that_lies_where_it_was_cut_out(home, viewer, qtbot):
    voxels, read = smooth_image(SHAPE)[0].astype(np.float32), []
    place = {"units": MM, "scale": (1.5, 1, 2), "translate": (10, -5, 3)}
    image = viewer.add_image(lazy(voxels, read), name="image", contrast_limits=(0, 300), **place)
    dock = open_dock(viewer, "Training cases")
    viewer.dims.set_point(0, 10 + 30 * 1.5)
    read.clear()
    cut(viewer, dock, qtbot)
    assert {lo for lo, _ in read} <= set(range(14, 48))
    region, labels = viewer.layers["image – region"], viewer.layers["image – region labels"]
    corner = tuple(round(float(i)) for i in image.world_to_data(region.data_to_world((0, 0, 0))))
    ends = tuple(slice(lo, lo + n) for lo, n in zip(corner, region.data.shape, strict=True))
    assert ends[0] == slice(14, 47) and np.array_equal(region.data, voxels[ends])
    assert labels.data.shape == region.data.shape
    np.testing.assert_allclose(labels.data_to_world((1, 2, 3)), region.data_to_world((1, 2, 3)))
    np.testing.assert_allclose(labels.scale, image.scale)
    assert labels.units == image.units and "Cut out z 14 to 46, y" in dock.cut_out.said.text()


def test_without_a_lazy_image_nothing_is_offered(home, viewer, qtbot):
    viewer.add_image(smooth_image((8, 16, 16))[0], units=MM)
    dock = open_dock(viewer, "Training cases")
    assert not dock.cut_out.isVisibleTo(dock)


def test_a_part_that_cannot_be_read_is_a_sentence(home, viewer, qtbot):
    def broken(block_info):
        if block_info[None]["array-location"][0][0] == 34:
            raise OSError("chunk 17 is damaged")
        return np.zeros((2, 40, 36), np.float32)

    array = da.map_blocks(broken, chunks=((2,) * 30, (40,), (36,)), dtype=np.float32)
    viewer.add_image(array, name="image", contrast_limits=(0, 1), units=MM)
    dock = open_dock(viewer, "Training cases")
    viewer.dims.set_point(0, 20)
    cut(viewer, dock, qtbot)
    assert (
        "'image' cannot be read here: chunk 17 is damaged. Copy or export the image again" in dock.cut_out.said.text()
    )
    assert len(viewer.layers) == 1


def test_of_time_points_told_by_their_unit_or_place_the_one_in_view_is_taken(home, viewer, qtbot):
    for units in (("second", "mm", "mm", "mm"), ("pixel",) * 4):
        viewer.layers.clear()
        layer = viewer.add_image(da.zeros((5, 20, 24, 24), chunks=(1, 4, 24, 24), dtype=np.float32), units=units)
        viewer.dims.set_point(0, 2)
        assert region_in_view(layer, viewer.dims)[0] == (2, 3)

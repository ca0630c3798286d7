"""A layer of 2000 x 4000 x 4000 voxels that nobody has read: the form answers at once, and reads nothing either."""

from __future__ import annotations

import time

import dask.array as da
import numpy as np
import pytest

from helpers import smooth_image
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.frame.layers import frames_of
from napari_nnunet.widgets.large.order import ON_DISK

SHAPE = (2000, 4000, 4000)
AT_ONCE = 0.2  # seconds


class Unread:
    """An image that notes what is read of it."""

    shape, dtype, ndim = SHAPE, np.dtype(np.uint16), 3

    def __init__(self):
        self.read = []

    def __getitem__(self, key):
        sizes = [len(range(*part.indices(n))) for part, n in zip(key, self.shape, strict=True)]
        self.read.append(np.prod(sizes))
        return np.zeros(sizes, self.dtype)


@pytest.fixture
def unread(viewer):
    image = Unread()
    array = da.from_array(image, chunks=128, name=False)
    viewer.add_image(array, units=["mm"] * 3, name="image", contrast_limits=(0, 100))
    image.read.clear()  # napari's own slice
    return image


def rows_of(form):
    """Give every row of the form, and the values it offers."""
    for part in (form, form.image, form.image.scope):
        for name, widget in vars(part).items():
            if hasattr(widget, "choices") and len(widget.choices) > 1:
                yield name, widget, [*widget.choices, widget.value]
    for name, widget in form.rows.widgets.items():
        match getattr(widget, "value", None):
            case list():
                yield name, widget, [[choice] for choice in widget.choices]
            case bool(value):
                yield name, widget, [not value, value]
            case float(value) | int(value):
                yield name, widget, [value + widget.step, value]
            case _:
                yield name, widget, [*widget.choices, widget.value]
    yield "spacing", form.image.spacing_edit, ["1 1", "2 1 1", "1", ""]


@pytest.mark.parametrize(("output", "said"), [("Labels", "160.0 GB at least"), (ON_DISK, "2000 × 4000 × 4000")])
def test_every_change_of_the_form_is_answered_at_once_and_reads_nothing(
    viewer, dock, model, unread, tmp_path, output, said
):
    dock.add_model(model.folder)
    dock.form.image.output_box.value = output
    dock.form.image.target.edit.setText(str(tmp_path / "labels.zarr"))
    spent = {}
    for name, widget, values in rows_of(dock.form):
        for value in values:
            began = time.thread_time()
            widget.value = value
            dock.check()
            spent[f"{name}: {value}"] = time.thread_time() - began
    assert len(spent) > 30 and said in dock.summary.text()
    assert dock.form.image.channel_boxes[0].value is viewer.layers["image"]
    assert not {what: seconds for what, seconds in spent.items() if seconds > AT_ONCE}
    assert not unread.read


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "CZYX", "ZCYX", "TCZYX", "TYX", "CYX", "YX"])
def test_lazy_layers_give_the_voxels_of_layers_in_memory(viewer, axes):
    sizes = {"T": 3, "C": 2, "Z": 5, "Y": 7, "X": 6}
    array = np.random.default_rng(0).integers(0, 99, [sizes[a] for a in axes], dtype=np.int16)
    ndim, channels = sum(a in axes for a in "ZYX"), 2 if "C" in axes else 1
    geometry = Geometry(spacing=(1.0,) * ndim)
    there, lazy = (viewer.add_image(a, channel_axis=None) for a in (array, da.from_array(array, chunks=3)))
    known = [frames_of([layer], axes, geometry, channels=channels, times=None) for layer in (there, lazy)]
    for own, read in zip(*known, strict=True):
        assert own.index == read.index and own.volume.shape == read.volume.shape
        assert own.volume.array.dtype == read.volume.array.dtype
        for key in (slice(None), (slice(None), slice(1, 4)), (slice(None), slice(None, None, 2), slice(3, 5))):
            assert np.array_equal(own.volume.array[key], read.volume.array[key])
        assert np.array_equal(own.volume.array, np.asarray(read.volume.array))


def test_layers_that_are_channels_are_read_beside_each_other(viewer):
    one, other = smooth_image((5, 7, 6))[0], smooth_image((5, 7, 6), seed=3)[0]
    layers = [viewer.add_image(one), viewer.add_image(da.from_array(other, chunks=4))]
    (frame,) = frames_of(layers, "ZYX", Geometry(spacing=(1.0,) * 3), channels=2, times=None)
    assert np.array_equal(np.asarray(frame.volume.array), np.stack([one, other]))


def test_colours_of_a_lazy_picture_are_channels_and_its_transparency_is_left_out(viewer):
    picture = np.random.default_rng(0).integers(0, 255, (9, 8, 4), dtype=np.uint8)
    layer = viewer.add_image(da.from_array(picture, chunks=4), rgb=True)
    (frame,) = frames_of([layer], "YX", Geometry(spacing=(1.0, 1.0)), channels=3, times=None)
    assert np.array_equal(np.asarray(frame.volume.array), np.moveaxis(picture, -1, 0)[:3])

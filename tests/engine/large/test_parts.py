"""Any part of an image on the network grid is that part of the whole image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Recipe, make_model, smooth_image
from napari_nnunet.engine.image.axis_operators import apply_operator, axis_operator, operator_part
from napari_nnunet.engine.image.prepare import plan_grid, prepare
from napari_nnunet.engine.large.parts import Preparation
from napari_nnunet.engine.large.survey import Scan
from napari_nnunet.engine.prediction.tiles import TileGrid
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([0, 1, 3]), st.data())
def test_an_operator_in_parts_equals_the_whole(size, new_size, order, data):
    whole = axis_operator(size, new_size, order)
    if whole is None:
        return
    start = data.draw(st.integers(0, new_size - 1))
    stop = data.draw(st.integers(start + 1, new_size))
    line = np.random.default_rng(0).normal(size=(2, size, 3)).astype(np.float32)
    operator, first, last = operator_part(size, new_size, order, start, stop)
    part = apply_operator(line[:, first:last], operator, 1)
    np.testing.assert_allclose(part, apply_operator(line, whole, 1)[:, start:stop], atol=2e-6)


@pytest.mark.parametrize(
    ("recipe", "spacing"),
    [
        (Recipe(spacing=(1.5, 0.8, 0.9)), (1.0, 1.0, 1.0)),
        (Recipe(spacing=(6.0, 1.0, 1.0), transpose=(1, 0, 2)), (0.8, 4.0, 0.8)),
        (Recipe(spacing=(1.5, 0.8, 0.9), schemes=("RescaleTo01Normalization",)), (1.0, 1.0, 1.0)),
        (Recipe(spacing=(1.5, 0.8, 0.9), schemes=("CTNormalization",)), (1.0, 1.0, 1.0)),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_a_part_equals_that_of_the_whole_image(tmp_path, recipe, spacing, kind):
    model = make_model(tmp_path, recipe)
    image = smooth_image((16, 30, 28)).astype(kind)
    image[:, :2] = image[:, :, 27:] = 0
    image[0, 5, 9] = 0
    if kind is np.float32:
        image[0, 8, 3, 4] = np.nan
    prepared, record = prepare(Volume(image, Geometry(spacing=spacing)), model.plans, model.configuration)
    forward = record.transpose_forward
    scan = Scan(1, image.shape[1:], 1 if spacing[1] == 4.0 else None)
    for z in range(0, 16, 5):
        for y in range(0, 30, 7):
            scan.add((z, y, 0), image[:, z : z + 5, y : y + 7])
    facts = scan.facts()
    box = tuple(facts.box[axis] for axis in forward)
    own = plan_grid(image.shape[1:], spacing, model.plans, model.configuration, box)
    assert (own.box, own.network_shape) == (record.box, record.network_shape)
    preparation = Preparation(
        lambda box: image[(slice(None), *(slice(lo, hi) for lo, hi in box))],
        own,
        model.configuration.resample_data,
        model.configuration.normalization_schemes,
        model.plans.intensities,
        facts,
    )
    rng = np.random.default_rng(1)
    for _ in range(12):
        ends = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in own.network_shape]
        part = preparation.part(tuple((int(lo), int(hi)) for lo, hi in ends))
        expected = prepared.numpy()[(slice(None), *(slice(lo, hi) for lo, hi in ends))]
        np.testing.assert_allclose(part, expected, atol=5e-6)


def test_windows_of_a_part_are_windows_of_the_whole():
    grid = TileGrid((9, 50, 20), (16, 32, 32), 0.5)
    whole = {
        tuple(s - before for s, (before, _) in zip(tile.start, grid.padding, strict=True)) for tile in grid.tiles()
    }
    part = grid.part(((0, 4), (20, 31), (9, 18)))
    found = {tuple(s + first for s, first in zip(tile.start, part.first, strict=True)) for tile in part.tiles()}
    assert found <= whole
    for start in whole - found:
        assert any(
            s >= hi or s + n <= lo
            for s, n, (lo, hi) in zip(start, grid.patch, ((0, 4), (20, 31), (9, 18)), strict=True)
        )


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, np.int32])
def test_intensities_found_in_pieces_are_those_of_the_whole(kind):
    image = (1000 * smooth_image((6, 17, 19), channels=2)).astype(kind)
    image[:, :, :4] = 0
    scan = Scan(2, image.shape[1:], 0)
    for z in range(6):
        scan.add((z, 0, 0), image[:, z : z + 1, :9])
        scan.add((z, 9, 0), image[:, z : z + 1, 9:])
    facts, inner = scan.facts(), image[:, :, 4:].astype(np.float64)
    assert facts.box == ((0, 6), (4, 17), (0, 19))
    for channel, known in zip(inner, facts.channels, strict=True):
        assert known.mean == pytest.approx(channel.mean(), rel=1e-6)
        assert known.std == pytest.approx(channel.std(), rel=1e-6)
        assert known.low == tuple(channel.min(axis=(1, 2)).astype(np.float32))
        assert known.high == tuple(channel.max(axis=(1, 2)).astype(np.float32))

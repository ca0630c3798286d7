"""Cores that touch are cut at their neck, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.engine.objects.match import Matching


def balls(
    shape: tuple[int, ...], middles: list[tuple[int, ...]], radius: float, voxel: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbered balls, and a core that a network could give which never saw a border: all of them in one part."""
    places = [np.arange(n) * edge for n, edge in zip(shape, voxel, strict=True)]
    truth = np.zeros(shape, dtype=np.int32)
    nearest = np.full(shape, np.inf)
    for number, middle in enumerate(middles, start=1):
        squares = [(place - m * edge) ** 2 for place, m, edge in zip(places, middle, voxel, strict=True)]
        distance = np.sqrt(sum(np.meshgrid(*squares, indexing="ij", sparse=True)))
        truth[(distance <= radius) & (distance < nearest)] = number
        nearest = np.minimum(nearest, distance)
    return truth, (truth > 0).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "middles", "voxel"),
    [
        ((40, 80), [(20, 20), (20, 36), (20, 52)], (1.0, 1.0)),
        ((14, 40, 60), [(7, 20, 20), (7, 20, 36)], (3.0, 1.0, 1.0)),
        ((24, 60), [(12, 20), (12, 28)], (1.0, 2.0)),
    ],
    ids=["a row of discs", "thick slices", "long pixels"],
)
def test_touching_objects_of_one_core_are_cut(
    shape: tuple[int, ...], middles: list[tuple[int, ...]], voxel: tuple[float, ...]
) -> None:
    truth, core = balls(shape, middles, 9.0, voxel)
    assert decode(core, core, Rule(2.0), voxel).max() == 1
    found = decode(core, core, Rule(2.0, split=0.75), voxel)
    assert Matching.of(truth, found).counts(0.8) == (len(middles), 0, 0)


@pytest.mark.parametrize("axes", [(20, 8), (12, 12), (25, 5)])
def test_an_ellipse_stays_whole(axes: tuple[int, int]) -> None:
    y, x = np.ogrid[-30:31, -30:31]
    turned = 0.8 * y + 0.6 * x, 0.8 * x - 0.6 * y
    core = ((turned[0] / axes[0]) ** 2 + (turned[1] / axes[1]) ** 2 <= 1).astype(np.float32)
    assert decode(core, core, Rule(2.0, split=0.1)).max() == 1


def test_what_would_be_too_small_is_not_cut_off() -> None:
    _, core = balls((40, 60), [(20, 20)], 12.0, (1.0, 1.0))
    core[18:22, 30:36] = 1  # a nose
    core[16:24, 35:42] = 1
    cut = decode(core, core, Rule(2.0, split=0.5))
    kept = decode(core, core, Rule(2.0, split=0.5, smallest_seed=100))
    assert (cut.max(), kept.max()) == (2, 1)


def test_a_part_too_large_to_be_looked_at_at_once_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    _, core = balls((40, 80), [(20, 20), (20, 36)], 9.0, (1.0, 1.0))
    monkeypatch.setattr("napari_nnunet.engine.objects.split._LARGEST", 100)
    assert decode(core, core, Rule(2.0, split=0.75)).max() == 1


@pytest.mark.parametrize("shape", [(60, 180), (29, 60, 180)], ids=["discs", "balls"])
def test_a_share_of_the_height_cuts_necks_of_all_sizes(shape: tuple[int, ...]) -> None:
    middle = shape[0] // 2
    depth = (middle,) * (len(shape) - 2)
    large, core = balls(shape, [(*depth, 30, 28), (*depth, 30, 70)], 24.0, (1.0,) * len(shape))
    small, more = balls(shape, [(*depth, 30, 130), (*depth, 30, 139)], 5.0, (1.0,) * len(shape))
    ragged = core.copy()
    for angle in np.arange(0.5, 2.6, 0.4):  # noses, which are no objects
        y, x = round(30 - 25 * np.sin(angle)), round(28 + 25 * np.cos(angle))
        ragged[..., y - 3 : y + 4, x - 3 : x + 4] = 1
    truth = np.where(small, small + 2, large)
    together = np.maximum(ragged, more)
    found = decode(together, together, Rule(2.0, neck=0.2))
    assert Matching.of(truth, found).counts(0.7) == (4, 0, 0)
    assert decode(core, core, Rule(2.0, split=30.0, neck=0.2)).max() == 2, "the share goes first"


def test_a_shallow_neck_is_kept_by_a_large_share() -> None:
    _, core = balls((60, 120), [(30, 36), (30, 81)], 24.0, (1.0, 1.0))  # a pass at a third of the middles' height
    assert [int(decode(core, core, Rule(2.0, neck=neck)).max()) for neck in (0.3, 0.9)] == [2, 1]


@pytest.mark.parametrize("cut", [{"neck": 0.4}, {"neck": 0.8}, {"split": 0.5}], ids=str)
@pytest.mark.parametrize(("half", "angle"), [(1.2, 45), (1.5, 0), (1.5, 20), (2.5, 0), (6.0, 20), (1.2, 30)])
def test_a_bent_rod_is_one_object(half: float, angle: float, cut: dict[str, float]) -> None:
    turn = np.deg2rad(angle)
    along = np.linspace(-30, 30, 600)
    bow = 0.006 * along**2
    y, x = np.mgrid[:90, :90]
    places = np.stack([45 + along * np.sin(turn) + bow * np.cos(turn), 45 + along * np.cos(turn) - bow * np.sin(turn)])
    distance = np.sqrt((y[..., None] - places[0]) ** 2 + (x[..., None] - places[1]) ** 2).min(axis=-1)
    core = (distance <= half).astype(np.float32)
    _, parts = ndimage.label(core)
    assert decode(core, core, Rule(1.0, **cut)).max() == parts == 1

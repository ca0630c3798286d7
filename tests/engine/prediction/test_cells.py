"""Deciding labels by the corners of cells gives what interpolating every class gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.prediction import decode
from napari_nnunet.engine.prediction.cells import UNDECIDED, ClassComparison
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.plans import Resampling

SIZES = st.tuples(*[st.integers(1, 24)] * 3)


class ByClasses(decode.Assembler):
    """Interpolates every class everywhere."""

    def _write(self, outputs, planes, first):
        self._write_class_by_class(outputs, planes, first)


class ByWholePlanes(decode.Assembler):
    """Interpolates every class everywhere, and compares all classes of a plane at once."""

    def _write(self, outputs, planes, first):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decode, "_TWO", 0)
            self._write_by_planes(outputs, planes, first)


class ByCells(decode.Assembler):
    """Looks at corners, however few the classes are and however many voxels they leave open."""

    def _write(self, outputs, planes, first):
        self._write_by_cells(outputs, planes, first)

    def _cells_pay(self, _unclear):
        return True


def _scheme(classes, *, regions):
    if not regions:
        return LabelScheme(labels={"background": 0, **{f"c{i}": i for i in range(1, classes)}})
    labels = {"background": 0, **{f"r{i}": list(range(i, classes + 1)) for i in range(1, classes + 1)}}
    return LabelScheme(labels=labels, regions_class_order=tuple(3 * i for i in range(1, classes + 1)))


def _record(network, image, thick):
    spacing = (5.0, 0.5, 0.5) if thick else (1.0, 1.0, 1.0)
    ratio = [n / m for n, m in zip(image, network, strict=True)]
    box = tuple((0, n) for n in image)
    return PrepareRecord(
        (0, 1, 2), image, box, spacing, network, tuple(s * r for s, r in zip(spacing, ratio, strict=True))
    )


def _labels(kind, record, scheme, logits, cuts, head=None, average="logits"):
    labels = np.zeros(record.shape, dtype=scheme.dtype)
    rule = Resampling(function="resample_data_or_seg_to_shape", order=1, order_z=0)
    assembler = kind(record, scheme, rule, labels, None, head, average)
    bounds = sorted({0, record.network_shape[0], *(c for c in cuts if c < record.network_shape[0])})
    for lo, hi in pairwise(bounds):
        assembler.push(lo, hi, logits[:, lo:hi])
    return labels


@settings(max_examples=150)
@given(
    network=SIZES, image=SIZES, cuts=st.sets(st.integers(1, 23)), classes=st.integers(1, 20), seed=st.integers(0, 99),
    thick=st.booleans(), regions=st.booleans(), features=st.booleans(), kind=st.sampled_from(["smooth", "noise", "ties"]),
    way=st.sampled_from([ByCells, ByWholePlanes]),
)  # fmt: skip
def test_labels_are_those_of_interpolating_every_class(
    network, image, cuts, classes, seed, thick, regions, features, kind, way
):
    scheme = _scheme(classes, regions=regions)
    generator = torch.Generator().manual_seed(seed)
    channels = 3 if features else scheme.heads
    logits = torch.randn((channels, *network), generator=generator)
    if kind == "smooth":
        coarse = torch.randn((1, channels, 2, 2, 2), generator=generator)
        logits = 5 * torch.nn.functional.interpolate(coarse, size=network, mode="trilinear")[0]
    if kind == "ties":
        logits = logits.round()
    head = None
    if features:
        head = torch.randn((scheme.heads, 3), generator=generator), torch.randn(scheme.heads, generator=generator)
    given_ = (_record(network, image, thick), scheme, logits, cuts, head)
    expected, found = _labels(ByClasses, *given_), _labels(way, *given_)
    different = expected != found
    if different.any():
        # Two values that are equal but for rounding; nothing else may differ.
        values = _values(*given_)
        if regions:
            gap = values.abs().min(0).values
        else:
            top = values.topk(2, dim=0).values
            gap = top[0] - top[1]
        assert float(gap[torch.from_numpy(different)].max()) < 1e-5


def _values(record, scheme, logits, cuts, head):
    """Return the logits (C, Z, Y, X) of every voxel of the image."""
    probabilities = np.zeros((scheme.heads, *record.shape), np.float32)
    rule = Resampling(function="resample_data_or_seg_to_shape", order=1, order_z=0)
    labels = np.zeros(record.shape, dtype=scheme.dtype)
    assembler = decode.Assembler(record, scheme, rule, labels, probabilities, head, "probabilities")
    assembler.push(0, record.network_shape[0], logits)
    return torch.from_numpy(probabilities)


@given(classes=st.integers(1, 200), seed=st.integers(0, 99), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]))
def test_the_class_that_is_ahead_is_the_largest_or_it_is_not_said(classes, seed, scale):
    values = torch.randn((classes, 50), generator=torch.Generator().manual_seed(seed)) * scale
    before = values.clone()
    comparison = ClassComparison(classes, None)
    found = comparison.ahead(values)
    assert torch.equal(comparison.largest(values).long(), values.argmax(0))
    assert torch.equal(values, before)
    said = found != UNDECIDED
    assert torch.equal(found[said].long(), values.argmax(0)[said])
    if 1 < classes < 50:
        assert said.float().mean() > 0.7


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nothing_is_said_of_values_that_are_no_numbers(value):
    ahead = ClassComparison(3, None).ahead
    assert ahead(torch.full((3, 4), value)).tolist() == [UNDECIDED] * 4
    assert ahead(torch.tensor([[0.0, 1.0], [1.0, 0.0], [float("nan")] * 2])).tolist() == [UNDECIDED] * 2


@pytest.mark.parametrize("classes", [3, 60])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_end_nothing_however_many_they_are(classes, value):
    values = torch.zeros((classes, 256))
    values[1] = value
    comparison = ClassComparison(classes, None)
    assert torch.equal(comparison.largest(values).long(), values.argmax(0))
    assert torch.equal(comparison.largest(torch.full((classes, 256), value)), torch.zeros(256, dtype=torch.int32))


def test_equal_values_leave_it_to_a_comparison_which_takes_the_first():
    three = ClassComparison(3, None)
    assert three.ahead(torch.tensor([[1.0], [1.0], [0.0]])).tolist() == [UNDECIDED]
    assert three.largest(torch.tensor([[-1.0, 0.0], [-1.0, 2.0], [-2.0, 2.0]])).tolist() == [0, 1]
    record = _record((4, 4, 4), (7, 7, 7), thick=False)
    for values in (torch.zeros((3, 4)), torch.full((3, 4), 1e-44), torch.full((3, 4), -1e-44)):
        assert three.ahead(values).tolist() == [UNDECIDED] * 4
        assert three.largest(values).tolist() == [0] * 4
    for way in (ByCells, ByWholePlanes):
        assert not _labels(way, record, _scheme(9, regions=False), torch.ones((9, 4, 4, 4)), ()).any()


def test_the_logits_that_are_given_stay_as_they_are():
    logits = torch.randn((9, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    _labels(decode.Assembler, _record((6, 6, 6), (9, 9, 9), thick=False), _scheme(9, regions=False), logits, (3,))
    assert torch.equal(logits, before)


def test_where_most_is_open_planes_are_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(decode.Assembler, "_write_by_planes", lambda _self, outputs, *_: taken.append(outputs))
    noise = torch.randn((20, 16, 8, 8), generator=torch.Generator().manual_seed(0))
    record, scheme = _record((16, 8, 8), (24, 12, 12), thick=False), _scheme(20, regions=False)
    _labels(decode.Assembler, record, scheme, noise, ())
    assert taken == [(0, 24)]
    clear = torch.zeros((20, 16, 8, 8))
    clear[3] = 1
    assert (_labels(decode.Assembler, record, scheme, clear, ()) == 3).all()
    assert len(taken) == 1


def test_where_the_image_has_no_more_voxels_than_the_network_grid_has_points_planes_are_taken(monkeypatch):
    """Looking at the corners of all cells would cost as much as deciding all voxels."""
    taken = []
    for name in ("_write_by_cells", "_write_by_whole_planes"):
        monkeypatch.setattr(decode.Assembler, name, lambda *_, name=name: taken.append(name))
    scheme, logits = _scheme(20, regions=False), torch.zeros((20, 16, 8, 8))
    for image in ((16, 8, 8), (24, 12, 12)):
        _labels(decode.Assembler, _record((16, 8, 8), image, thick=False), scheme, logits, ())
    assert taken == ["_write_by_whole_planes", "_write_by_cells"]


def test_points_of_many_classes_are_compared_in_pieces_that_fit_into_the_cache(monkeypatch):
    monkeypatch.setattr("napari_nnunet.engine.prediction.cells.AT_ONCE", 200)
    generator = torch.Generator().manual_seed(0)
    head = torch.randn((30, 5), generator=generator), torch.randn(30, generator=generator)
    plane = torch.randn((5, 7, 9), generator=generator)
    expected = (torch.einsum("ck,kyx->cyx", head[0], plane) + head[1][:, None, None]).argmax(0)
    assert torch.equal(ClassComparison(30, head).best(plane).long(), expected)

"""All channels of a slab interpolated at once, as on a GPU, against class by class, as on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.prediction.decode import Assembler
from napari_nnunet.engine.prediction.sampling import CornerSampling, sampling_parts, samplings
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.plans import Resampling

SHAPES = st.tuples(*[st.integers(1, 12)] * 3)
CPU = torch.device("cpu")


def _record(network, image, spacing):
    ends = tuple((0, n) for n in image)
    ratio = [n / m for n, m in zip(image, network, strict=True)]
    return PrepareRecord(
        (0, 1, 2), image, ends, spacing, network, tuple(s * r for s, r in zip(spacing, ratio, strict=True))
    )


@settings(max_examples=150)
@given(network=SHAPES, image=SHAPES, order=st.sampled_from([0, 1]), thick=st.booleans(), data=st.data())
def test_all_channels_at_once_are_what_each_is_by_itself(network, image, order, thick, data):
    record = _record(network, image, (9.0, 1.0, 1.0) if thick else (1.0, 1.0, 1.0))
    rule = Resampling(function="resample_data_or_seg_to_shape", order=order, order_z=0)
    logits = torch.randn((3, *network), generator=torch.Generator().manual_seed(sum(network)))
    lo = data.draw(st.integers(0, image[0] - 1))
    hi = data.draw(st.integers(lo + 1, image[0]))
    alone = Assembler(record, LabelScheme(labels={"background": 0}), rule, np.zeros(image, np.uint8))
    found = CornerSampling(samplings(record, rule), CPU)(logits, 0, lo, hi)
    expected = torch.stack([alone._interpolate(channel, 0, lo, hi) for channel in logits])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(network=SHAPES, image=SHAPES, data=st.data())
def test_a_part_of_an_image_is_what_it_is_in_the_whole(network, image, data):
    record, rule = _record(network, image, (1.0, 1.0, 1.0)), Resampling(function="resample_data_or_seg_to_shape")
    logits = torch.randn((2, *network), generator=torch.Generator().manual_seed(7))
    part = []
    for n in image:
        lo = data.draw(st.integers(0, n - 1))
        part.append((lo, data.draw(st.integers(lo + 1, n))))
    axes, needed = sampling_parts(record, rule, tuple(part))
    whole = CornerSampling(samplings(record, rule), CPU)(logits, 0, 0, image[0])
    own = logits[(slice(None), *(slice(lo, hi) for lo, hi in needed))]
    found = CornerSampling(axes, CPU)(own, 0, 0, part[0][1] - part[0][0])
    expected = whole[(slice(None), *(slice(lo, hi) for lo, hi in part))]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

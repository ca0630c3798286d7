"""Training cases in memory, and the rule by which batches are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from napari_nnunet.engine.batches.batch import BatchRule
from napari_nnunet.engine.batches.patches import patch_rule
from napari_nnunet.engine.batches.supervision import output_scales
from napari_nnunet.engine.image.locations import class_locations, location_keys
from napari_nnunet.schema.dataset import LabelScheme

PLAIN = LabelScheme(labels={"background": 0, "a": 1, "b": 2})
REGIONS = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, regions_class_order=(1, 2))
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2))


@dataclass
class Case:
    """A preprocessed case in memory, with a small cube of each label."""

    seed: int
    scheme: LabelScheme = PLAIN
    data: np.ndarray = field(init=False)
    labels: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.data = rng.normal(size=(2, 30, 40, 50)).astype(np.float32)
        self.labels = np.zeros((1, 30, 40, 50), np.int16)
        self.labels[0, 2:5, 3:6, 40:44] = 1
        self.labels[0, 20:23, 30:33, 5:8] = 2
        self.labels[0, :, 0] = -1
        if self.scheme.ignore_label is not None:
            self.labels[0, 6:] = self.scheme.ignore_label

    def locations(self):
        return class_locations(self.labels[0], location_keys(self.scheme))


CASES = {name: Case(i) for i, name in enumerate("abcd")}


def rule(patch=(8, 16, 16), scheme=PLAIN, **changes):
    strides = STRIDES if len(patch) == 3 else tuple(s[1:] for s in STRIDES)
    return BatchRule(patch_rule(patch), 3, scheme, tuple(output_scales(strides)), **changes)

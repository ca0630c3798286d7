"""How much memory a large image may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil

from napari_nnunet.engine.machine import shared_by
from napari_nnunet.engine.prediction.infer import Ensemble
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.prediction.predictor import run_bytes
from napari_nnunet.memory import available_memory

_SHARE = 0.5  # of the free memory
_LIBRARIES = 0.475e9  # bytes of a process that is ready to compute; 0.43 to 0.45 GB were measured
_STEP = 0.25e9  # what a process takes beyond that is rounded up, for the blocks of an image shall not depend on it
_AT_WORK = 0.225e9  # bytes that libraries take once they compute and write; 0.19 and 0.22 GB were measured


@dataclass(frozen=True)
class Budget:
    """Bytes that the process may take, all in all."""

    bytes: float

    @classmethod
    def of(cls, gigabytes: float) -> Budget:
        """Return what was asked for, or half of what is free, shared equally by the workers of this computer."""
        return cls(gigabytes * 1e9 if gigabytes else _SHARE * available_memory() / shared_by())

    @classmethod
    def free(cls) -> Budget:
        """Return all that this process has and could get, shared equally by the workers of this computer."""
        return cls((psutil.Process().memory_info().rss + available_memory()) / shared_by())

    @property
    def or_a_little_more(self) -> Budget:
        """What a process that was just started would take for it."""
        return Budget(1.1 * self.bytes + _STEP)

    def left_beside(self, model: TrainedModel, ensemble: Ensemble) -> float:
        """Return the bytes left for a block: less what the process takes already, libraries and the network at work.

        The process is taken to be of a known size, so that the blocks of an image are the same at every moment; one
        that holds more already, as a window with images does, counts as it is.
        """
        usual = _LIBRARIES + ensemble.bytes
        beyond = max(0.0, psutil.Process().memory_info().rss - usual)
        taken = usual + math.ceil(beyond / _STEP) * _STEP + _AT_WORK
        return self.bytes - taken - run_bytes(model, ensemble.batch, ensemble.windows_per_round, ensemble.channels)

    @property
    def left_now(self) -> float:
        """Bytes left for work without a network: less what the process takes already, libraries at work."""
        return self.bytes - max(psutil.Process().memory_info().rss, _LIBRARIES + _AT_WORK)

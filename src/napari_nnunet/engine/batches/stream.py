"""Batches that come to a GPU while it computes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from napari_nnunet.engine.batches.batch import Batch


class SideStream:
    """Where the next batch is made beside a step: a stream of its own on CUDA, nothing special elsewhere.

    What waits for the GPU in the thread that makes a batch does not wait for the step then.

    Parameters
    ----------
    device : str
        Where batches go.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def made(self, make: Callable[[], Batch]) -> Batch:
        """Make a batch, and return it when it is there."""
        if self._stream is None:
            return make()
        with torch.cuda.stream(self._stream):
            batch = make()
        self._stream.synchronize()
        return batch

    def handed_over(self, batch: Batch) -> Batch:
        """Return a batch to the thread that computes: its memory is not used anew before that is done with it."""
        if self._stream is not None:
            computing = torch.cuda.current_stream(self._device)
            for tensor in (batch.image, *batch.targets):
                tensor.record_stream(computing)
        return batch

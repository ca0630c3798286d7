"""Which arithmetic is the fastest on this computer: tried on the beginning of a network, each in turn.

What a processor lists is no promise (float16 without units for it is slower than float32), so it is measured. As a
module this is the child process in which it happens (:mod:`napari_nnunet.processes.probe` starts it): an instruction
that the processor lists but lacks ends the child, not the program of the person who waits.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from napari_nnunet.engine.network.backends import compile_network
from napari_nnunet.engine.network.device import Backend, BackendChoice, Precision, Timed, backend_candidates
from napari_nnunet.engine.network.unet import UNet, build, initialize, multiply_adds
from napari_nnunet.engine.planning.cost import Trial
from napari_nnunet.schema.architecture import Architecture

Purpose = Literal["prediction", "training"]
PURPOSES: tuple[Purpose, ...] = ("prediction", "training")
_BUDGET: dict[Purpose, float] = {"prediction": 3e9, "training": 1.5e9}  # multiply-adds of one forward pass
_TURNS = 3  # after one that is not counted; the fastest counts
_COARSE = 1e-3  # seconds; a clock of the process that ticks less often cannot tell runs apart
_VOXELS = 2**16  # of its image, at most
_HEADS = 3
_CLOSE = 1.2  # times the best time in a batch, for an image alone; more than a choice grants to exactness
_MAP = 24e6  # bytes of a map of that batch, in 16 bits: torch gets memory of that size anew for every layer
_BATCH_VOXELS = 0.75e6  # of it at most, as in prediction
_NARROWEST = 8  # features; below, any arithmetic is quick, and an image takes less time than the measurement


@dataclass
class _Candidate:
    backend: Backend
    precision: Precision
    run: Callable[[], Tensor]
    seconds: float = float("inf")


def is_worth_measuring(architecture: Architecture) -> bool:
    """Whether a network is large enough for its arithmetic to matter."""
    return architecture.features[0] >= _NARROWEST


def beginning(architecture: Architecture) -> Architecture:
    """Return the two finest stages of a network: where most of its time goes, whatever lies below."""
    a = architecture
    return a.model_copy(
        update={
            "features": a.features[:2],
            "kernel_sizes": a.kernel_sizes[:2],
            "strides": a.strides[:2],
            "blocks": a.blocks[:2],
            "decoder_convs": a.decoder_convs[-1:],
            "bottleneck_channels": a.bottleneck_channels and a.bottleneck_channels[:2],
            "dropout": None,
        }
    )


def time_candidates(
    purpose: Purpose, architecture: Architecture, without: Collection[list[str]] = ()
) -> Generator[list[str], None, list[Timed]]:
    """Try every candidate in turn.

    Parameters
    ----------
    purpose : {"prediction", "training"}
        Running the network, or a step forward and backward.
    architecture : Architecture
        The whole network.
    without : collection of [backend, precision]
        Candidates to leave out.

    Yields
    ------
    [backend, precision]
        Before a candidate runs for the first time.

    Returns
    -------
    list of Timed
        In no order.
    """
    small = beginning(architecture)
    patch = _patch(small, _BUDGET[purpose])
    tried: list[_Candidate] = []
    reference: Tensor | None = None
    deviations: list[float] = []
    for backend, precision in backend_candidates() if purpose == "prediction" else _training_candidates():
        if [backend, precision] in without:
            continue
        yield [backend, precision]
        make = _prediction if purpose == "prediction" else _training
        candidate = _Candidate(backend, precision, make(small, patch, backend, precision))
        found = candidate.run().clone()
        reference = found if reference is None else reference
        deviations.append(float((found - reference).norm() / reference.norm()))
        tried.append(candidate)
    # One thread, and the time that it really had: other programs are about, and they must not decide.
    coarse = time.get_clock_info("process_time").resolution > _COARSE
    clock = time.perf_counter if coarse else time.process_time
    for _ in range(_TURNS):
        for candidate in tried:
            began = clock()
            candidate.run()
            candidate.seconds = min(candidate.seconds, clock() - began)
    if purpose == "prediction":
        _time_batches(tried, small, patch, clock)
    return [
        Timed(candidate.backend, candidate.precision, candidate.seconds, off if off == off else float("inf"))
        for candidate, off in zip(tried, deviations, strict=True)
    ]


def _time_batches(
    tried: Sequence[_Candidate], architecture: Architecture, patch: tuple[int, ...], clock: Callable[[], float]
) -> None:
    """Replace the seconds of the fastest candidates by those of an image within a batch as large as in prediction.

    What is quick on an image that fits into the cache need not be so on a batch, for which the system hands out fresh
    memory: torch took 33 ms for a hippocampus volume and 76 ms for each of eight, OpenVINO 21 and 22 ms. In a batch
    an image takes no less than alone, so whoever is clearly slower alone than the best is in a batch is not run again,
    and keeps those seconds.
    """
    voxels = math.prod(patch)
    images = int(min(_MAP / (2 * architecture.features[0] * voxels), _BATCH_VOXELS / voxels))
    by_seconds = sorted(tried, key=lambda candidate: candidate.seconds)
    if images < 2 or len(tried) < 2:
        return
    best = float("inf")
    for candidate in by_seconds:
        if candidate.seconds > _CLOSE * best:
            break
        run = _prediction(architecture, patch, candidate.backend, candidate.precision, images)
        if candidate.backend == "openvino":  # keeps its memory from one batch to the next; torch gets it anew each time
            run()
        began = clock()
        run()
        candidate.seconds = (clock() - began) / images
        best = min(best, candidate.seconds)


def _training_candidates() -> list[tuple[Backend, Precision]]:
    return [pair for pair in backend_candidates() if pair[0] == "torch"]


def _patch(architecture: Architecture, budget: float) -> tuple[int, ...]:
    """Return a patch that is quick to run, as even as the strides allow."""
    patch = [4 * stride for stride in architecture.divisor]
    while multiply_adds(architecture, 1, _HEADS, patch) < budget / 2 and math.prod(patch) < _VOXELS:
        patch[patch.index(min(patch))] *= 2
    return tuple(patch)


def _prediction(
    architecture: Architecture, patch: tuple[int, ...], backend: Backend, precision: Precision, images: int = 1
) -> Callable[[], Tensor]:
    network = _network(architecture)
    choice = BackendChoice("cpu", backend, precision, "", 1)
    image = torch.randn((images, 1, *patch), generator=torch.Generator().manual_seed(1))
    compiled = compile_network(network, choice, image.shape)
    return lambda: compiled(image)


def _training(
    architecture: Architecture, patch: tuple[int, ...], _: Backend, precision: Precision
) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    trial = Trial(architecture, 1, _HEADS, patch, device="cpu", precision=precision)

    def run() -> Tensor:
        trial.step()
        return torch.cat([p.grad.flatten() for p in trial.network.parameters() if p.grad is not None])

    return run


def _network(architecture: Architecture) -> UNet:
    network = build(architecture, 1, _HEADS)
    initialize(network, torch.Generator().manual_seed(0))
    return network


def main() -> None:
    """Carry out the request in the first argument; one line of JSON per thing to know."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    job = time_candidates(request["purpose"], Architecture.model_validate(request["architecture"]), request["without"])
    while True:
        try:
            line: dict[str, object] = {"trying": next(job)}
        except StopIteration as end:
            line = {"timed": [vars(entry) for entry in end.value]}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        if "timed" in line:
            os._exit(0)  # what torch and OpenVINO take down at an end takes half a second, for which somebody waits


if __name__ == "__main__":
    main()

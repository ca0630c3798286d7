"""A network that learns: one step, one validation step, and the state from which it continues exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_nnunet.engine.batches.supervision import output_weights
from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.network.layout import Norms, best_layout, choose_norms, laid_out, lay_out
from napari_nnunet.engine.network.norms import compiled as loops
from napari_nnunet.engine.network.torch_backend import autocast
from napari_nnunet.engine.network.unet import Biases, UNet
from napari_nnunet.engine.training.loss import SegmentationLoss, count_matches, count_regions, supervised, unknown_heads
from napari_nnunet.engine.training.optimizers import (
    LARGEST_NORM,
    load_optimizer,
    make_optimizer,
    set_rate,
    sound_scaler,
)
from napari_nnunet.errors import ModelError, is_out_of_memory, some
from napari_nnunet.schema.trainers import TrainerRecipe


@dataclass(frozen=True)
class Matches:
    """Loss and counts of a validation step.

    Parameters
    ----------
    loss : float
        As in training.
    hits, false_positives, false_negatives : tuple of int
        Voxels per class (background left out) or region.
    """

    loss: float
    hits: tuple[int, ...]
    false_positives: tuple[int, ...]
    false_negatives: tuple[int, ...]


class Learner:
    """A U-Net with its loss and optimizer on a device.

    Parameters
    ----------
    network : UNet
        With its first weights.
    recipe : TrainerRecipe
        Optimizer, deep supervision.
    loss : SegmentationLoss
        Of one output.
    choice : BackendChoice
        Device and precision.
    compiled : bool
        Run the network through torch.compile.
    """

    def __init__(
        self,
        network: UNet,
        recipe: TrainerRecipe,
        loss: SegmentationLoss,
        choice: BackendChoice,
        *,
        compiled: bool = False,
    ) -> None:
        self.choice = choice
        self.loss = loss
        self.device = torch.device(choice.device)
        network.deep_supervision = recipe.deep_supervision
        outputs = network.architecture.stages - 1 if recipe.deep_supervision else 1
        self.weights = output_weights(outputs)
        self.network = network.to(self.device)
        self._arrange(compiled=compiled)
        self.optimizer = make_optimizer(network.parameters(), recipe)
        self._module: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]
        self._autocast = autocast(self.device, choice.precision)
        self.scaler = torch.amp.GradScaler("cuda") if choice.precision == "float16" and choice.kind == "cuda" else None

    def _arrange(self, *, compiled: bool) -> None:
        """Lay weights out and normalise in the way that is fast where the network is compiled, or is not."""
        choice = self.choice
        self.compiled = compiled
        self.layout = best_layout(self.network, choice.kind, precision=choice.precision, compiled=compiled)
        lay_out(self.network, self.layout)
        self.use_norms("samples" if choice.kind == "cpu" and not compiled else "torch")

    def use_norms(self, norms: Norms, biases: Biases = "rounded") -> None:
        """Normalise and add biases in another way; a training that is resumed keeps the one it began with.

        Where the loops of "kernels" cannot be compiled, "samples" takes their place.
        """
        kind = torch.bfloat16 if self.choice.precision == "bfloat16" else torch.float32
        if norms == "kernels" and not (self.layout == "channels_last" and loops.is_ready(kind)):
            norms = "samples"
        on_gpu: Norms = "formula" if self.compiled and self.choice.kind == "cuda" else "torch"
        self.norms: Norms = norms if self.choice.kind == "cpu" else on_gpu
        choose_norms(self.network, self.layout, self.norms, biases)

    def distribute(self) -> None:
        """Average gradients over all processes of the group; each must hold the same weights.

        Outputs that the loss leaves out would keep DistributedDataParallel waiting for their gradients.
        """
        heads = self.network.decoder.seg_layers
        for head, weight in zip(list(heads)[::-1], self.weights, strict=False):
            head.requires_grad_(weight > 0)
        ids = [self.device.index] if self.device.type == "cuda" else None
        self._module = nn.parallel.DistributedDataParallel(self._module, device_ids=ids)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        set_rate(self.optimizer, rate)

    def _outputs(self, image: Tensor, module: nn.Module | None = None) -> Sequence[Tensor]:
        image = laid_out(image.to(self.device, non_blocking=True), self.layout)
        with self._autocast():
            found = (module or self._module)(image)
        return found if isinstance(found, list) else [found]

    def _compare(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        return supervised(self.loss, outputs, self._moved(targets), self.weights)

    def _moved(self, targets: Sequence[Tensor]) -> list[Tensor]:
        return [target.to(self.device, non_blocking=True) for target in targets]

    def step(self, image: Tensor, targets: Sequence[Tensor], *, processes: int = 1) -> float:
        """Move the weights once and return the loss; where that is not finite, the weights stay as they are.

        With a scaler, on a GPU, gradients that are not finite do the same, as in nnU-Net, and the loss is read last:
        whoever reads it before waits for the GPU, which then waits for its next work (a twentieth of a step).

        Parameters
        ----------
        image : Tensor of float32, shape (B, C, [z,] y, x)
            Batch.
        targets : sequence of Tensor
            One per output, finest first.
        processes : int
            How many compute parts of the same batch.
        """
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        value = self._compare(self._outputs(image), targets)
        # Every process computes the loss of the whole batch from its part; averaging would divide it once too often.
        scaled = value * processes if processes > 1 else value
        if self.scaler is not None:
            self.scaler.scale(scaled).backward()
            self.scaler.unscale_(self.optimizer)
            self._clip()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return float(value.detach())
        found = float(value.detach())
        if math.isfinite(found):
            scaled.backward()
            self._clip()
            self.optimizer.step()
        return found

    def try_step(self, image: Tensor, targets: Sequence[Tensor]) -> tuple[float, str]:
        """Compute gradients as a step does, but leave everything as it is.

        Parameters
        ----------
        image, targets
            As for :meth:`step`.

        Returns
        -------
        seconds : float
            What it took when it was repeated.
        problem : str
            Why the network cannot be compiled, in torch's words: it learns without from now on. Empty if it can, or
            need not.
        """
        kept = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        problem = ""
        try:
            self._gradients(image, targets)
        except Exception as error:
            if not self.compiled or is_out_of_memory(error):
                raise
            problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            self._module = self.network
            self._arrange(compiled=False)
            self._gradients(image, targets)
        began = time.perf_counter()
        self._gradients(image, targets)
        seconds = time.perf_counter() - began
        self.optimizer.zero_grad(set_to_none=True)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(kept[name])
        return seconds, problem

    def _gradients(self, image: Tensor, targets: Sequence[Tensor]) -> None:
        """Compute gradients, and wait for the device."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        value = self._compare(self._outputs(image), targets)
        value.backward()
        float(next(p.grad for p in self.network.parameters() if p.grad is not None).sum())

    def _clip(self) -> None:
        self.last_norm = nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_NORM)

    def validate(self, image: Tensor, targets: Sequence[Tensor]) -> Matches:
        """Compare without learning; counts are those of the finest output."""
        self.network.eval()
        with torch.no_grad():
            outputs = self._outputs(image)
            moved = self._moved(targets)
            loss = float(supervised(self.loss, outputs, moved, self.weights))
            hits, wrong, missed = self._count(outputs[0], moved[0])
        return Matches(loss, _numbers(hits), _numbers(wrong), _numbers(missed))

    def _count(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ignore = self.loss.ignore_label
        if self.loss.regions:
            return count_regions(logits > 0, target, masked=ignore is not None)
        found, partial = logits.argmax(1), self.loss.partial
        if partial is not None:
            unknown = unknown_heads(target, partial)
            found = torch.where(unknown.gather(1, found.flatten(1)).view_as(found), 0, found)
            target = target % partial.base
        valid = None if ignore is None else target != ignore
        counts = count_matches(found, target, logits.shape[1], valid)
        return counts[0][1:], counts[1][1:], counts[2][1:]

    def sample_losses(self, image: Tensor, targets: Sequence[Tensor]) -> list[float]:
        """Return the loss of every sample by itself, to find the one that is at fault."""
        self.network.eval()
        with torch.no_grad():
            return [
                float(self._compare(self._outputs(image[i : i + 1]), [target[i : i + 1] for target in targets]))
                for i in range(len(image))
            ]

    def predict(self, image: Tensor) -> Tensor:
        """Return logits (B, heads, [z,] y, x) of the finest output, in float32 on the CPU."""
        self.network.eval()
        with torch.no_grad():
            return self._outputs(image, self.network)[0].float().cpu()

    def state(self) -> dict[str, Any]:
        """Return weights with nnU-Net's names, optimizer and scaler."""
        return {
            "network_weights": unet.nnunet_state(self.network),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load(self, state: Mapping[str, Any], *, where: str) -> None:
        """Continue from a state of ours or nnU-Net's.

        Raises
        ------
        ModelError
            If the weights or the optimizer belong to another network, or hold values that are no numbers.
        """
        unet.load_state(self.network, state["network_weights"], where=where)
        optimizer = state.get("optimizer_state")
        if optimizer is not None:
            load_optimizer(self.optimizer, optimizer, where=where)
        scaler = state.get("grad_scaler_state")
        if self.scaler is not None and scaler:
            self.scaler.load_state_dict(sound_scaler(scaler, where=where))


def load_pretrained(
    network: UNet,
    weights: Mapping[str, Tensor],
    *,
    where: str,
    heads: Sequence[int | None] | None = None,
    channels: Sequence[int | None] | None = None,
) -> list[str]:
    """Take weights from another training; returns the names of the heads' weights, which stay random.

    Parameters
    ----------
    network : UNet
        Its weights are replaced.
    weights : mapping of str to Tensor
        Of the other one.
    where : str
        Named in errors.
    heads : sequence of int or None, optional
        For each head the one of the other network to take over, None where it stays random; all do if not given.
    channels : sequence of int or None, optional
        For each input the one of the other network whose kernels it takes, see :func:`kernels_for`; the inputs must be
        the same if not given.

    Raises
    ------
    ModelError
        Naming what is missing or differs in shape.
    """
    own, given = network.state_dict(), unet.own_state(weights)
    first = first_convolution(own)
    if channels is not None and first in given:
        given[first] = kernels_for(given[first], channels)
    wanted = [name for name in own if ".seg_layers." not in name]
    missing = [name for name in wanted if name not in given]
    wrong = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != own[name].shape
    ]
    if missing or wrong:
        details = "; ".join(
            f"{label}: {some(names, 3)}" for label, names in (("missing", missing), ("wrong shape", wrong)) if names
        )
        raise ModelError(
            f"{where} cannot initialise this training ({details}). Both need the same network: the same plans, which "
            "'move_plans_between_datasets' carries over."
        )
    taken = {name: given[name] for name in wanted}
    for name in own:
        if heads is not None and name not in taken and name in given and given[name].shape[1:] == own[name].shape[1:]:
            # clones: a tensor of a state dict is the weight itself
            taken[name] = own[name].clone()
            for head, other in enumerate(heads):
                if other is not None:
                    taken[name][head] = given[name][other]
    network.load_state_dict({**own, **taken})
    return [name for name in own if name not in wanted]


def first_convolution(state: Mapping[str, Tensor]) -> str:
    """Return the name of the weights that see the image: the first of a network's own."""
    return next(name for name in state if name.endswith(".conv.weight"))


def kernels_for(kernels: Tensor, channels: Sequence[int | None]) -> Tensor:
    """Return the kernels of a first convolution for other channels.

    A channel that the other network knows keeps its kernels. One that it does not know begins with zeros, so that the
    network begins as what it was. Where it knows none, all begin with the same kernels: the sum over its channels
    divided by their number, so that equal channels give the response that they gave there.

    Parameters
    ----------
    kernels : Tensor, shape (features, other channels, [z,] y, x)
        Of the other network.
    channels : sequence of int or None
        For each channel the one of the other network, None where it has none.

    Returns
    -------
    Tensor, shape (features, channels, [z,] y, x)
    """
    if all(channel is None for channel in channels):
        return kernels.sum(1, keepdim=True).repeat_interleave(len(channels), 1) / len(channels)
    unknown = torch.zeros_like(kernels[:, 0])
    return torch.stack([unknown if channel is None else kernels[:, channel] for channel in channels], 1)


def _numbers(counts: Tensor) -> tuple[int, ...]:
    return tuple(int(n) for n in counts.tolist())

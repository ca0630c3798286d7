"""Whether a training step fits into memory, and which batch would."""

from __future__ import annotations

from napari_nnunet.engine.network.device import BackendChoice, free_memory
from napari_nnunet.engine.planning.cost import step_bytes
from napari_nnunet.engine.training.parallel import Group
from napari_nnunet.errors import ResourceError
from napari_nnunet.jobs.training.order import Order


def check_memory(order: Order, choice: BackendChoice, group: Group) -> None:
    """Refuse a step that cannot fit, and say what would."""
    places = group.places(order.configuration.batch_size)
    batch = order.configuration.batch_size if places is None else len(places)
    if _bytes(order, choice, batch) > free_memory(choice):
        raise too_large(order, choice)


def _bytes(order: Order, choice: BackendChoice, batch: int) -> float:
    return step_bytes(
        order.architecture,
        order.channels_in,
        order.info.labels.heads,
        order.configuration.patch_size,
        batch,
        itemsize=4 if choice.precision == "float32" else 2,
    )


def too_large(order: Order, choice: BackendChoice, *, tried: bool = False) -> ResourceError:
    """Return the error for a step that will not fit, or did not when it was tried, with the batch that would."""
    wanted, free = order.configuration.batch_size, free_memory(choice)
    needed = _bytes(order, choice, wanted)
    room = 0.9 * (min(free, needed) if tried else free)
    fitting = next((n for n in range(wanted - 1, 0, -1) if _bytes(order, choice, n) < room), 0)
    if fitting:
        what = f"A batch of {fitting} would fit."
        shell = f"Change 'batch_size' of {order.configuration.name} in {order.plans.plans_name}.json."
        window = f"Change the batch of {order.configuration.name} in the Plan dock."
    else:
        what = "Not even one patch would fit."
        shell = "Plan again for less GPU memory (-gpu_memory_target)."
        window = "Plan again for less GPU memory in the Plan dock."
    step = f"a training step with {wanted} patches of {'x'.join(map(str, order.configuration.patch_size))} voxels"
    if tried:
        text = f"Not enough memory on {choice.device} for {step}: about {needed / 1e9:.1f} GB were expected. {what}"
        return ResourceError(text, shell=shell, window=window)
    return ResourceError(
        f"{step.capitalize()} needs about {needed / 1e9:.1f} GB on {choice.device}, but {free / 1e9:.1f} GB are free. "
        f"{what}",
        shell=shell,
        window=window,
    )

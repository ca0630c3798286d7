"""Our side of train.py: a training as the shell starts it, as far as its first steps.

python _our_steps.py BEGUN DATASET CONFIGURATION STEPS DEVICE PRECISION keep|give-back
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before the first OpenMP library


def steps(
    begun: float, dataset: str, configuration: str, count: int, device: str, precision: str, *, keep: bool
) -> None:
    """Print what computes and where batches are augmented, the seconds since ``begun`` to the end of the first step, and those of the others."""
    from napari_nnunet.engine.machine import keep_memory

    if keep:
        keep_memory()
    from napari_nnunet.engine.network.backends import torch_threads
    from napari_nnunet.engine.training.parallel import Group
    from napari_nnunet.events import drain
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.arithmetic import training_choice, training_device
    from napari_nnunet.jobs.training.begin import Start, begin, fresh_network
    from napari_nnunet.jobs.training.order import make_order
    from napari_nnunet.schema.requests.training import TrainRequest

    request = TrainRequest.model_validate(
        {"dataset": dataset, "configuration": configuration, "fold": 0, "device": device, "precision": precision}
    )
    order = drain(make_order(Workspace.resolve(), request))
    patch = order.configuration.patch_size
    choice = training_choice(request, order.architecture, training_device(request, device), patch)
    order.folder.path.mkdir(parents=True, exist_ok=True)
    with torch_threads(choice.threads):
        network = drain(fresh_network(order, choice, Group(), Start()))
        session = drain(begin(order, network, choice, Group(), Start()))
        print("COMPUTES", session.learner.choice)
        print("AUGMENTS", device if session.source.unfinished else "in processes")
        session.load_batches()
        session.set_rate()
        for i in range(count + 2):
            start = time.time()
            session.learn()
            print("FIRST" if i == 0 else "STEP" if i > 1 else "SKIP", time.time() - (begun if i == 0 else start))
        session.close()


if __name__ == "__main__":
    began, of_dataset, of_configuration, how_many, where, arithmetic, memory = sys.argv[1:]
    steps(float(began), of_dataset, of_configuration, int(how_many), where, arithmetic, keep=memory == "keep")

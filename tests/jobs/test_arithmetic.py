"""Which arithmetic a network gets: what is measured here decides, is remembered, and is doubted."""

from __future__ import annotations

import sys

import pytest
import torch

from napari_nnunet.engine.network.device import Timed, choose, preferred, training_precision
from napari_nnunet.engine.planning import probe as child
from napari_nnunet.engine.planning.probe import beginning, is_worth_measuring
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats import speed
from napari_nnunet.jobs import arithmetic
from napari_nnunet.processes import probe
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.training import TrainSettings

NETWORK = Architecture(
    name="ResidualEncoderUNet", ndim=3, features=(8, 16, 32), kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), blocks=(1, 3, 4), decoder_convs=(2, 1), block="bottleneck",
    bottleneck_channels=(4, 8, 8), dropout=0.5,
)  # fmt: skip
CPU = PredictSettings(device="cpu")
TRAIN = TrainSettings(device="cpu")
FAST = [Timed("torch", "float32", 3.0), Timed("openvino", "float32", 2.0), Timed("openvino", "bfloat16", 1.0, 0.01)]


@pytest.fixture
def answers(monkeypatch):
    """Count measurements, and answer them."""
    asked = []

    def measured(purpose, architecture):
        asked.append((purpose, architecture))
        return FAST

    monkeypatch.setattr(arithmetic, "time_apart", measured)
    return asked


@pytest.mark.parametrize(
    ("timed", "expected"),
    [
        (FAST, ("openvino", "bfloat16")),
        ([*FAST, Timed("openvino", "float16", 4.6)], ("openvino", "bfloat16")),  # listed by AMX processors, and slow
        ([*FAST, Timed("openvino", "float16", 1.05)], ("openvino", "float16")),  # more digits in nearly the same time
        ([*FAST[:2], Timed("openvino", "bfloat16", 1.9)], ("openvino", "float32")),
        ([*FAST[:2], Timed("openvino", "bfloat16", 1.0, 0.3)], ("openvino", "float32")),  # wrong numbers
        ([*FAST[:2], Timed("openvino", "bfloat16", 1.0, float("inf"))], ("openvino", "float32")),
        ([*FAST[:2], Timed("openvino", "bfloat16", None)], ("openvino", "float32")),  # it killed its process
        ([Timed("torch", "float32", 1.0), Timed("openvino", "float32", 1.1)], ("torch", "float32")),
    ],
)
def test_the_most_exact_of_the_fastest_that_are_right_is_taken(timed, expected):
    best = preferred(timed)
    assert (best.backend, best.precision) == expected
    choice = choose(CPU, timed)
    assert (choice.backend, choice.precision) == expected


def test_nothing_usable_leaves_float32():
    assert preferred([]) is None
    assert choose(CPU, [Timed("torch", "float32", None)]).precision == "float32"


def test_training_takes_bfloat16_where_it_is_faster_by_a_third_and_right():
    def chosen(short, off=0.0):
        return training_precision([Timed("torch", "float32", 1.0), Timed("torch", "bfloat16", short, off)])[0]

    assert chosen(0.74) == "bfloat16"
    assert chosen(0.76) == "float32"
    assert chosen(0.5, off=0.2) == "float32"
    assert chosen(None) == "float32"
    assert training_precision([Timed("torch", "float32", 1.0)])[0] == "float32"


def test_what_was_measured_is_remembered_for_the_kind_of_network(answers):
    assert arithmetic.prediction_choice(CPU, NETWORK).precision == "bfloat16"
    deeper = NETWORK.model_copy(
        update={"features": (8, 16, 32, 64), "kernel_sizes": (*NETWORK.kernel_sizes, (3, 3, 3)),
                "strides": (*NETWORK.strides, (2, 2, 2)), "blocks": (1, 3, 4, 6), "decoder_convs": (1, 2, 1)}
    )  # fmt: skip
    assert arithmetic.prediction_choice(CPU, deeper).precision == "bfloat16"
    assert len(answers) == 1
    wider = NETWORK.model_copy(update={"features": (16, 32, 64)})
    arithmetic.prediction_choice(CPU, wider)
    arithmetic.training_choice(TRAIN, NETWORK, arithmetic.training_device(TRAIN, "cpu"))
    assert len(answers) == 3


def test_what_is_asked_for_is_not_measured(answers):
    asked = CPU.replace(precision="float32")
    assert arithmetic.prediction_choice(asked, NETWORK).why == "float32 as asked for"
    device = arithmetic.training_device(TRAIN.replace(precision="bfloat16"), "cpu")
    assert arithmetic.training_choice(TRAIN.replace(precision="bfloat16"), NETWORK, device).precision == "bfloat16"
    narrow = NETWORK.model_copy(update={"features": (4, 6, 8)})
    assert not is_worth_measuring(narrow)
    assert arithmetic.prediction_choice(CPU, narrow).precision == "float32"
    assert not answers
    assert arithmetic.prediction_choice(CPU.replace(backend="torch"), NETWORK).precision == "float32"  # FAST's torch
    assert len(answers) == 1


@pytest.mark.parametrize(
    "damage",
    [
        [], [1], [{}], [None], [{"backend": "torch"}], ["torch"], [{"backend": "torch", "precision": "int4", "seconds": 1}],
        [{"backend": "abacus", "precision": "float32", "seconds": 1.0, "deviation": 0.0}],
        [{"backend": "torch", "precision": "float32", "seconds": "quick", "deviation": 0.0}],
        [{"backend": "torch", "precision": "float32", "seconds": -1.0, "deviation": 0.0}],
        [{"backend": "torch", "precision": "float32", "seconds": 1.0, "deviation": "none"}],
        [{"backend": "torch", "precision": "float32", "seconds": 1.0, "more": 0.0}],
    ],
)  # fmt: skip
def test_a_damaged_measurement_is_noticed_and_made_again(answers, damage):
    arithmetic.prediction_choice(CPU, NETWORK)
    (key,) = speed.comparisons()
    speed.remember(key, damage)
    assert (arithmetic.known().damaged, arithmetic.known().timed) == (1, {})
    assert arithmetic.prediction_choice(CPU, NETWORK).precision == "bfloat16"
    assert len(answers) == 2
    assert arithmetic.known().damaged == 0


def test_what_another_computer_or_version_measured_is_left_aside(answers):
    arithmetic.prediction_choice(CPU, NETWORK)
    (key,) = speed.comparisons()
    name, _, where = key.partition(" | ")
    assert "torch " in where
    assert "openvino " in where
    speed.remember(f"{name} | {where}1", [vars(Timed("openvino", "float16", 1.0))])
    assert arithmetic.known().others == 1
    assert arithmetic.prediction_choice(CPU, NETWORK).precision == "bfloat16"
    assert len(answers) == 1


def test_where_nothing_can_be_measured_networks_run_in_float32_and_the_reason_is_told(monkeypatch):
    def fails(*_):
        raise ResourceError("The speed of this computer could not be measured: no more processes.")

    monkeypatch.setattr(arithmetic, "time_apart", fails)
    choice = arithmetic.prediction_choice(CPU, NETWORK)
    assert choice.precision == "float32"
    assert "no more processes" in choice.why
    choice = arithmetic.training_choice(TRAIN, NETWORK, arithmetic.training_device(TRAIN, "cpu"))
    assert (choice.precision, "no more processes" in choice.why) == ("float32", True)


@pytest.mark.parametrize(
    ("features", "patch", "precision"),
    [
        ({"amx_bf16", "avx512_bf16"}, (8, 224, 224), "float32"),
        ({"amx_bf16", "avx512_bf16"}, (12, 256, 256), "float32"),
        ({"amx_bf16", "avx512_bf16"}, (40, 56, 40), "bfloat16"),
        ({"amx_bf16", "avx512_bf16"}, (256, 256), "bfloat16"),
        ({"amx_bf16", "avx512_bf16"}, (), "bfloat16"),
        ({"avx512_bf16"}, (8, 224, 224), "bfloat16"),
    ],
)
def test_with_amx_flat_patches_are_trained_in_float32(monkeypatch, features, patch, precision):
    """Gradients in bfloat16 hang or crash there: the Plan dock measured for ever, or took napari with it."""
    timed = [Timed("torch", "float32", 3.0), Timed("torch", "bfloat16", 1.0, 0.01)]
    monkeypatch.setattr(arithmetic, "time_apart", lambda *_: timed)
    monkeypatch.setattr(arithmetic, "cpu_features", lambda: frozenset(features))
    device = arithmetic.training_device(TRAIN, "cpu")
    assert arithmetic.training_choice(TRAIN, NETWORK, device, patch).precision == precision
    asked = TRAIN.replace(precision="bfloat16")
    device = arithmetic.training_device(asked, "cpu")
    if precision == "float32":
        with pytest.raises(SettingsError, match="would hang or crash on this processor, which has AMX. Use float32"):
            arithmetic.training_choice(asked, NETWORK, device, patch)
    else:
        assert arithmetic.training_choice(asked, NETWORK, device, patch).precision == "bfloat16"


def test_the_child_times_every_candidate_and_says_how_far_its_numbers_are_off():
    found = probe.time_apart("prediction", NETWORK)
    assert ("torch", "float32") in {(entry.backend, entry.precision) for entry in found}
    for entry in found:
        assert entry.usable is not None, entry
        assert (entry.deviation > 1e-3) == (entry.precision == "bfloat16")
    assert {entry.backend for entry in probe.time_apart("training", NETWORK)} == {"torch"}


def _child(code):
    return (sys.executable, "-c", f"import json, os, sys, time\nrequest = json.loads(sys.argv[1])\n{code}")


CRASHES = """
print('Library 1.0 says hello')
for pair in (['torch', 'float32'], ['openvino', 'bfloat16']):
    if pair not in request['without']:
        print(json.dumps({'trying': pair}), flush=True)
        if pair[0] == 'openvino':
            END
print(json.dumps({'timed': [{'backend': 'torch', 'precision': 'float32', 'seconds': 1.0, 'deviation': 0.0}]}))
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 4)", "time.sleep(900)"])  # an illegal instruction, a hang
def test_a_candidate_that_its_process_does_not_survive_is_left_out(end):
    patience = 15.0 if "sleep" in end else 300.0
    found = probe.time_apart("prediction", NETWORK, command=_child(CRASHES.replace("END", end)), patience=patience)
    assert found == [Timed("torch", "float32", 1.0), Timed("openvino", "bfloat16", None)]
    assert str(found[1]) == "openvino bfloat16 failed"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (_child("raise SystemExit('no torch here')"), "no torch here"),
        (_child("os._exit(7)"), "ended with 7"),
        (("/no/such/python",), "No such file"),
    ],
)
def test_a_measurement_that_cannot_begin_is_an_error_with_the_reason(command, why):
    with pytest.raises(ResourceError, match=why):
        probe.time_apart("prediction", NETWORK, command=command)


def test_the_beginning_of_a_network_is_its_two_finest_stages():
    small = beginning(NETWORK)
    assert (small.features, small.blocks, small.decoder_convs) == ((8, 16), (1, 3), (1,))
    assert (small.strides, small.bottleneck_channels, small.dropout) == (((1, 1, 1), (1, 2, 2)), (4, 8), None)


ALONE_AND_IN_A_BATCH = [  # seconds of an image of each candidate, and those that count
    ([(9, 9), (1, 5), (1.5, 1.5)], [9, 5, 1.5]),
    ([(9, 9), (1, 5), (1.5, 3)], [9, 5, 3]),
    ([(2.5, 8), (1, 4), (1.5, 3)], [8, 4, 3]),  # whose 2.5 alone would have won over batches of the others
    ([(9, 9), (1, 5), (4, 4)], [9, 5, 4]),
    ([(9, 9), (1, 3), (4, 5)], [9, 3, 4]),  # slower alone than the best in a batch: nothing to find out
]


@pytest.mark.parametrize(("each", "expected"), ALONE_AND_IN_A_BATCH)
def test_candidates_that_are_close_are_compared_on_a_whole_batch(monkeypatch, each, expected):
    """torch gets fresh memory for every layer of a batch: quick on one image, it can be the slowest on many."""
    names = [("torch", "float32"), ("torch", "bfloat16"), ("openvino", "bfloat16")]
    costs = dict(zip(names, each, strict=True))
    now = [0.0]

    def made(_architecture, _patch, backend, precision, images=1):
        def run():
            now[0] += images * costs[backend, precision][images > 1]
            return torch.ones(3)

        return run

    monkeypatch.setattr(child, "backend_candidates", lambda: names)
    monkeypatch.setattr(child, "_prediction", made)
    monkeypatch.setattr(child.time, "process_time", lambda: now[0])
    job = child.time_candidates("prediction", NETWORK)
    while True:
        try:
            next(job)
        except StopIteration as end:
            found = {(entry.backend, entry.precision): entry.seconds for entry in end.value}
            break
    assert found == pytest.approx(dict(zip(names, expected, strict=True)))


def test_predictions_that_were_measured_on_single_images_are_measured_again(answers):
    arithmetic.prediction_choice(CPU, NETWORK)
    (key,) = speed.comparisons()
    speed.remember(key.removesuffix("; close ones in batches"), [vars(Timed("openvino", "float16", 1.0))])
    assert (arithmetic.known().others, len(arithmetic.known().timed)) == (1, 1)

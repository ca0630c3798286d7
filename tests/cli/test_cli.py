"""The command line, as a user types it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import smooth_image
from napari_nnunet.cli import main
from napari_nnunet.events import from_json
from napari_nnunet.jobs.prediction import predict_files


def _write_cases(folder, names, *, channels=1, shape=(10, 24, 24)):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        for c in range(channels):
            image = sitk.GetImageFromArray(smooth_image(shape, seed=10 * seed + c)[0])
            image.SetSpacing((1.0, 1.0, 1.2))
            sitk.WriteImage(image, str(folder / f"{name}_{c:04d}.nii.gz"))


@pytest.fixture
def images(tmp_path):
    _write_cases(tmp_path / "images", ["a", "b", "c"])
    return tmp_path / "images"


def _run(*words):
    return main([str(word) for word in words])


def test_a_folder_is_segmented_with_everything_nnunet_leaves_beside(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    events = tmp_path / "log" / "events.jsonl"
    assert _run("predict-from-modelfolder", "-m", model.folder, "-i", images, "-o", out, "--save_probabilities",
                "-device", "cpu", "--events", events, "-npp", "2", "-nps", "2") == 0  # fmt: skip
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [f"{c}{e}" for c in "abc" for e in (".nii.gz", ".npz", ".pkl")]
        + ["dataset.json", "made_of.jsonl", "plans.json", "predict_from_raw_data_args.json", "recipe.json"]
    )
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "a.nii.gz")))
    probabilities = np.load(out / "a.npz")["probabilities"]
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities.argmax(axis=0), labels)
    properties = pickle.loads((out / "a.pkl").read_bytes())
    assert properties["shape_before_cropping"] == (10, 24, 24)
    assert set(properties["sitk_stuff"]) == {"spacing", "origin", "direction"}
    kinds = [from_json(line).kind for line in events.read_text(encoding="utf-8").splitlines()]
    assert kinds.count("case_done") == 3
    assert "[3/3]" in capsys.readouterr().err


def test_predict_finds_its_model_in_the_workspace_or_the_environment(model, images, tmp_path, monkeypatch):
    results = tmp_path / "ws" / "nnUNet_results"
    shutil.copytree(model.folder, results / model.folder.parent.name / model.folder.name)
    words = ["predict", "-d", "1", "-c", "3d_fullres", "-i", images, "--disable_tta", "-device", "cpu"]
    assert _run(*words, "-o", tmp_path / "o1", "--workspace", tmp_path / "ws", "-num_parts", 3, "-part_id", 1) == 0
    assert (tmp_path / "o1" / "b.nii.gz").exists()
    assert not (tmp_path / "o1" / "a.nii.gz").exists()
    monkeypatch.setenv("nnUNet_results", str(results))
    assert _run(*words, "-o", tmp_path / "o2", "-f", "0", "-step_size", "1") == 0
    arguments = json.loads((tmp_path / "o2" / "predict_from_raw_data_args.json").read_text(encoding="utf-8"))
    assert (arguments["step"], arguments["mirroring"], arguments["folds"]) == (1.0, False, [0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-f", "seven"], "'seven' is not a fold"),
        (["-f", "3"], "Fold 3 has no checkpoint_final.pth"),
        (["-step_size", "0"], "The setting 'step' (-step_size) cannot be 0"),
        (["-chk", "checkpoint_best.pth"], "Choose that one"),
        (["-device", "quantum"], "Unknown device 'quantum'"),
        (["-prev_stage_predictions", "nowhere"], "is not the second stage of a cascade: it takes no segmentations"),
    ],
)
def test_wrong_settings_end_with_a_sentence_and_no_output(model, images, tmp_path, capsys, words, sentence):
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", tmp_path / "o", *words) == 1
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "o").glob("*.nii.gz"))


@pytest.mark.parametrize("words", [["--nonsense"], ["-devce", "cpu"], ["--save_prob"]])
def test_unknown_flags_are_errors(model, images, tmp_path, words, capsys):
    with pytest.raises(SystemExit) as ended:
        _run("predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", tmp_path / "o", *words)
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_unknown_verbs_list_the_verbs(capsys):
    with pytest.raises(SystemExit):
        _run("predikt")
    assert "predict_from_modelfolder" in capsys.readouterr().err


def test_missing_channel_files_are_all_named_before_work_starts(new_model, tmp_path, capsys):
    model = new_model(channels=("T1", "T2"))
    _write_cases(tmp_path / "images", ["a", "b", "c"], channels=2)
    (tmp_path / "images" / "a_0001.nii.gz").unlink()
    (tmp_path / "images" / "c_0000.nii.gz").unlink()
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", tmp_path / "images", "-o", tmp_path / "o") == 1
    text = capsys.readouterr().err
    assert "a: missing a_0001.nii.gz" in text
    assert "c: missing c_0000.nii.gz" in text
    assert not (tmp_path / "o").exists()


def test_wrong_endings_names_and_folders_are_explained(model, tmp_path, capsys):
    folder = tmp_path / "images"
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", folder, "-o", tmp_path / "o") == 1
    folder.mkdir()
    (folder / "x.nrrd").write_text("x")
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", folder, "-o", tmp_path / "o") == 1
    (folder / "x.nii.gz").write_text("x")
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", folder, "-o", tmp_path / "o") == 1
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", folder, "-o", folder) == 1
    text = capsys.readouterr().err
    for sentence in ("does not exist", "x FAILED", "the same folder"):
        assert sentence in text


def test_a_bad_case_does_not_end_the_others(model, images, tmp_path, capsys):
    path = images / "b_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:900])
    assert (
        _run("predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", tmp_path / "o", "-device", "cpu") == 1
    )
    text = capsys.readouterr().err
    assert "b FAILED" in text
    assert "1 of 3 cases failed" in text
    assert sorted(p.name for p in (tmp_path / "o").glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]


def test_an_image_with_the_wrong_number_of_channels_fails_by_name(new_model, tmp_path, capsys):
    model = new_model(patch=(16, 16), spacing=(1, 1), configuration="2d", file_ending=".png",
                      reader="NaturalImage2DIO")  # fmt: skip
    import imageio.v3 as iio

    (tmp_path / "images").mkdir()
    iio.imwrite(tmp_path / "images" / "a_0000.png", np.zeros((20, 20, 3), np.uint8))
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", tmp_path / "images", "-o", tmp_path / "o") == 1
    assert "a has 3 channels, the model was trained on 1 (MR)" in capsys.readouterr().err


def test_continuing_skips_complete_cases_and_redoes_truncated_ones(model, images, tmp_path, capsys):
    words = ["predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", tmp_path / "o", "-device", "cpu",
             "--save_probabilities"]  # fmt: skip
    assert _run(*words) == 0
    good = (tmp_path / "o" / "a.nii.gz").read_bytes()
    (tmp_path / "o" / "a.nii.gz").write_bytes(good[: len(good) // 2])
    npz = tmp_path / "o" / "b.npz"
    npz.write_bytes(npz.read_bytes()[:-100])
    capsys.readouterr()
    assert _run(*words, "--c") == 0
    text = capsys.readouterr().err
    assert text.count("already there") == 1
    assert "c.nii.gz (already there)" in text
    assert (tmp_path / "o" / "a.nii.gz").read_bytes() == good
    np.load(npz)["probabilities"]
    assert _run(*words, "--c") == 0  # there is nothing left to do
    assert capsys.readouterr().err.count("already there") == 3


def test_ctrl_c_keeps_finished_cases_and_leaves_nothing_half_written(model, images, tmp_path):
    out = tmp_path / "o"
    _write_cases(images, ["z"], shape=(64, 320, 320))  # it is not over before anybody looks, however slow that is
    command = [sys.executable, "-m", "napari_nnunet", "predict_from_modelfolder", "-m", model.folder, "-i", images,
               "-o", out, "-device", "cpu", "--save_probabilities", "--threads", "1"]  # fmt: skip
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    try:
        process = subprocess.Popen([str(w) for w in command], stderr=subprocess.PIPE, text=True, env={**os.environ})
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not (out / "c.nii.gz").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted" in text
    assert (out / "a.nii.gz").exists()
    assert not [p.name for p in out.iterdir() if "partial" in p.name]
    for path in out.glob("*.nii.gz"):
        assert sitk.ReadImage(str(path)).GetDimension() == 3
    assert not (out / "z.nii.gz").exists()


def test_what_a_killed_process_left_is_removed_by_the_next_run(model, images, tmp_path):
    out = tmp_path / "o"
    words = ["-m", "napari_nnunet", "predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", out, "-device",
             "cpu", "--save_probabilities", "--threads", "1"]  # fmt: skip
    _write_cases(images, [f"z{i}" for i in range(20)], shape=(24, 48, 48))
    process = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while (
        process.poll() is None
        and time.monotonic() < deadline
        and not (list(out.glob(".*partial*")) and (out / "a.nii.gz").exists())
    ):
        time.sleep(0.01)
    process.kill()
    process.wait()
    for path in images.glob("z*"):
        path.unlink()
    finished = (out / "a.nii.gz").stat().st_mtime_ns
    assert _run(*words[2:], "--c") == 0
    assert (out / "a.nii.gz").stat().st_mtime_ns == finished
    assert not [p.name for p in out.iterdir() if "partial" in p.name]


def test_a_full_disk_fails_the_case_with_a_sentence(model, images, tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000));"
        "from napari_nnunet.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", tmp_path / "o", "-device", "cpu",
             "--save_probabilities"]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "o").glob("*.npz"))
    assert not [p.name for p in (tmp_path / "o").iterdir() if "partial" in p.name]


def test_a_forbidden_output_folder_is_refused_before_work(model, images, capsys, monkeypatch):
    monkeypatch.setattr(predict_files, "find_cases", predict_files.find_cases)
    assert _run("predict_from_modelfolder", "-m", model.folder, "-i", images, "-o", "/proc/forbidden") == 1
    assert "/proc/forbidden" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_trains_and_segments_unseen_volumes_well(tmp_path):
    made = Path(os.environ.get("NAPARI_NNUNET_DEMO", tmp_path / "demo"))  # CI has run the command a moment ago
    if "NAPARI_NNUNET_DEMO" not in os.environ:
        assert _run("demo", "-o", made) == 0
    scores = json.loads((made / "demo.json").read_text(encoding="utf-8"))["dice"]
    assert min(scores.values()) > 0.9
    assert (made / "demo.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_demo_of_objects_finds_touching_nuclei(tmp_path, capsys):
    assert _run("demo", "--objects", "-o", tmp_path / "demo") == 0
    scores = json.loads((tmp_path / "demo" / "demo.json").read_text(encoding="utf-8"))
    assert scores["AP@0.5"] > 0.9
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000
    assert "AP@0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--minutes", "0"], "The setting 'minutes' (--minutes) cannot be 0.0"),
        (
            ["predict_best", "-i", "i", "-o", "o", "-d", "4", "-step_size", "3"],
            "The setting 'step' (-step_size) cannot be 3.0",
        ),
        (
            ["plan_experiment", "-d", "4", "-gpu_memory_target", "-2"],
            "The setting 'gpu_memory_gb' (-gpu_memory_target) cannot be -2.0",
        ),
        (["train", "4", "2d", "0", "--epochs", "0"], "The setting 'epochs' (--epochs) cannot be 0"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_words(tmp_path, monkeypatch, capsys, words, said):
    (tmp_path / "nnUNet_raw" / "Dataset004_Tiny").mkdir(parents=True)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / f"nnUNet_{name}"))
    monkeypatch.chdir(tmp_path)
    assert _run(*words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("known_arithmetic")
def test_the_doctor_speaks(capsys):
    assert _run("doctor") == 0
    assert "3-D prediction" in capsys.readouterr().out


def test_a_name_that_the_shell_cannot_say_is_refused_in_words(tmp_path, capsys):
    name = os.fsencode(tmp_path).decode() + "/bl\udcc3\udca4tter"  # what an ASCII locale makes of it
    assert _run("look", name) == 1
    assert "Set LC_ALL=C.UTF-8" in capsys.readouterr().err

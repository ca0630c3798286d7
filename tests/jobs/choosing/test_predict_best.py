"""Images are segmented with the best, or with several models at once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import napari_nnunet
from choices import (
    CPU,
    fold_members,
    run_verb,
    validated,
)
from helpers import smooth_image
from napari_nnunet.cli import main
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.inference_information import read_best
from napari_nnunet.formats.results.postprocessing import write_cleaning
from napari_nnunet.formats.results.recipe import as_command, as_methods, as_python, read_recipe
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.prediction.combined import (
    Combination,
    Member,
    best_combination,
    predict_combined,
    predict_combined_series,
)
from napari_nnunet.jobs.prediction.predict_files import predict_combined_folder
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import FindBestRequest
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.volume import Volume


def test_the_best_segments_a_folder_as_its_instructions_do_by_hand(best, tmp_path):
    workspace, images = best
    words = ("-d", 1, "-i", images, "-o", tmp_path / "out", "--workspace", tmp_path, "--uncertainty")
    assert run_verb("predict_best", *words, "-device", "cpu") == 0
    text = (workspace.results / "Dataset001_Tiny" / "inference_instructions.txt").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("napari-nnunet ")]
    places = {name: str(tmp_path / name) for name in ("OUTPUT_FOLDER", "OUTPUT_FOLDER_PP", "OUTPUT_FOLDER_MODEL_1",
                                                      "OUTPUT_FOLDER_MODEL_2")}  # fmt: skip
    for command in commands[1:]:
        assert main([places.get(word, str(images) if word == "INPUT_FOLDER" else word) for word in command]) == 0
    for i in range(2):
        ours = read_labels(tmp_path / "out" / f"n{i}.nii.gz")[0]
        np.testing.assert_array_equal(ours, read_labels(tmp_path / "OUTPUT_FOLDER_PP" / f"n{i}.nii.gz")[0])
        assert (tmp_path / "out" / "disagreement" / f"n{i}.nii.gz").is_file()
    # Nothing of what was needed on the way is left.
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_result_tells_how_to_make_it_again(best, tmp_path, capsys):
    _, images = best
    assert run_verb("predict_best", "-d", 1, "-i", images, "-o", tmp_path / "out", "--workspace", tmp_path) == 0
    recipe = read_recipe(tmp_path / "out")
    capsys.readouterr()
    for style in ("command", "python", "methods"):
        assert run_verb("recipe", tmp_path / "out", "--as", style) == 0
    shown = capsys.readouterr().out
    assert as_command(recipe) in shown and as_python(recipe) in shown and as_methods(recipe) in shown
    # The commands run as they are printed, and give the same.
    for line in as_command(recipe, source=str(images), target=str(tmp_path / "again")).splitlines():
        assert main(line.split()[1:]) == 0
    ours = read_labels(tmp_path / "out" / "n0.nii.gz")[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "again_PP" / "n0.nii.gz")[0], ours)
    names: dict = {}
    code = as_python(recipe).replace("CASE_0000.nii.gz", str(images / "n0_0000.nii.gz"))
    exec(compile(code, "recipe", "exec"), names)  # our own text: that it runs is the point
    np.testing.assert_array_equal(names["labels"], ours)
    text = as_methods(recipe)
    assert (
        "averaged" in text and "largest part of organ" in text and recipe["members"][0]["sha256"]["fold_0"][:12] in text
    )
    with pytest.raises(DatasetError, match="no recipe.json"):
        read_recipe(tmp_path)


def test_results_that_were_moved_still_find_their_postprocessing(best, tmp_path):
    workspace, _ = best
    moved = tmp_path / "elsewhere"
    shutil.copytree(workspace.results, moved / "nnUNet_results")
    shutil.rmtree(workspace.results)
    combination = best_combination(Workspace.at(moved), "Dataset001_Tiny")
    assert combination.cleaning == Cleaning.of([1])
    assert str(combination.cleaning_file).startswith(str(moved))


def test_nobody_compared_yet_and_an_edited_file_are_errors(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0,), quality=0.3)
    results = workspace.results / "Dataset001_Tiny"
    with pytest.raises(ModelError, match="find_best_configuration Dataset001_Tiny"):
        best_combination(workspace, "Dataset001_Tiny")
    drain(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny")))
    path = results / "inference_information.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    sound = json.dumps(content)
    for elsewhere in ("/etc/passwd", f"{results}/../x.pkl"):
        content["best_model_or_ensemble"]["postprocessing_file"] = elsewhere
        path.write_text(json.dumps(content))
        with pytest.raises(ModelError, match="does not lie in"):
            read_best(results)
    content = json.loads(sound)
    content["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] = "../../etc"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="Run it again"):
        read_best(results)


def test_folds_disagree_and_one_member_alone_is_a_plain_prediction(new_model, volume):
    model = new_model(folds=(0, 1))
    members = fold_members(model, CPU, (0, 1))
    both = drain(predict_combined(Combination(members, VoteSettings(uncertainty=True)), volume))
    entropy, disagreement = both.uncertainty
    assert entropy.shape == disagreement.shape == volume.shape
    assert disagreement.max() > 0.01
    assert sum(both.counts) == both.labels.size
    alone = drain(predict_combined(Combination(members[:1]), volume))
    plain = napari_nnunet.predict(model, volume, settings=members[0].settings)
    np.testing.assert_array_equal(alone.labels, plain.labels)
    assert alone.uncertainty is None


def test_a_region_stays_the_only_part_that_is_segmented(new_model, volume):
    members = fold_members(new_model(folds=(0, 1)), CPU, (0, 1))
    roi = ((2, 10), (5, 30), (4, 33))
    result = drain(predict_combined(Combination(members), volume, roi=roi))
    inside = tuple(slice(*pair) for pair in roi)
    assert result.labels[inside].any()
    rest = result.labels.copy()
    rest[inside] = 0
    assert not rest.any()


def test_models_of_other_channels_or_classes_cannot_be_joined(new_model):
    first = new_model()
    channels = new_model(channels=("T1", "T2"), name="Dataset002_Two")
    classes = new_model(labels={"background": 0, "organ": 1}, name="Dataset003_One")
    with pytest.raises(ModelError, match="cannot segment the same image"):
        Combination((Member(first, CPU), Member(channels, CPU)))
    with pytest.raises(ModelError, match="cannot be combined"):
        Combination((Member(first, CPU), Member(classes, CPU)))
    with pytest.raises(SettingsError, match="at least one"):
        Combination(())


def test_a_cancelled_ensemble_leaves_nothing_on_disk(new_model, volume, tmp_path):
    members = fold_members(new_model(folds=(0, 1)), CPU, (0, 1))
    job = predict_combined(Combination(members), volume, folder=tmp_path / "scratch")
    for _ in range(12):
        next(job)
    job.close()
    assert not list((tmp_path / "scratch").iterdir())


def test_pictures_are_joined_with_their_uncertainty(new_model, tmp_path):
    import imageio.v3 as iio

    kind = {"configuration": "2d", "patch": (16, 16), "spacing": (1.0, 1.0), "file_ending": ".png",
            "reader": "NaturalImage2DIO", "folds": (0, 1)}  # fmt: skip
    model = new_model(**kind)
    (tmp_path / "in").mkdir()
    for i in range(2):
        picture = smooth_image((30, 34), seed=i)[0].clip(0, 255).astype(np.uint8)
        iio.imwrite(tmp_path / "in" / f"p{i}_0000.png", picture)
    combination = Combination(fold_members(model, CPU, (0, 1)), VoteSettings(uncertainty=True), Cleaning.of([1]))
    folder = PredictFolderRequest(source=tmp_path / "in", target=tmp_path / "out", probabilities=True)
    result = drain(predict_combined_folder(combination, folder))
    assert result.done == ("p0", "p1")
    assert iio.imread(tmp_path / "out" / "p0.png").shape == (30, 34)
    entropy = iio.imread(tmp_path / "out" / "entropy" / "p0.tif")
    assert entropy.shape == (30, 34) and entropy.dtype == np.float32 and 0 < entropy.max() <= 1
    # The same from files, without the networks.
    for fold in (0, 1):
        words = ("-m", model.folder, "-i", tmp_path / "in", "-o", tmp_path / f"f{fold}", "-f", fold, "-device", "cpu",
                 "--precision", "float32")  # fmt: skip
        assert run_verb("predict_from_modelfolder", *words, "--save_probabilities", "--disable_tta") == 0
    words = ("-i", tmp_path / "f0", tmp_path / "f1", "-o", tmp_path / "joined", "--uncertainty")
    assert run_verb("ensemble", *words) == 0
    assert iio.imread(tmp_path / "joined" / "disagreement" / "p1.tif").shape == (30, 34)
    assert len(read_recipe(tmp_path / "joined")["members"]) == 2
    write_cleaning(tmp_path / "p.pkl", Cleaning.of([1]))
    words = ("-i", tmp_path / "joined", "-o", tmp_path / "pp", "-pp_pkl_file", tmp_path / "p.pkl")
    assert run_verb("apply_postprocessing", *words, "-plans_json", model.folder / "plans.json") == 0
    assert "apply_postprocessing" in as_command(read_recipe(tmp_path / "pp"))
    for i in range(2):
        ours = iio.imread(tmp_path / "out" / f"p{i}.png")
        assert (ours == iio.imread(tmp_path / "pp" / f"p{i}.png")).mean() > 0.999


def test_time_points_and_regions_are_segmented_together(new_model):
    kind = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": (1, 2), "folds": (0, 1)}
    members = fold_members(new_model(**kind), CPU, (0, 1))
    frames = []
    for i in range(2):
        volume = Volume(smooth_image((9, 20, 18), seed=i), Geometry(spacing=(1.0,) * 3))
        frames.append((volume, np.zeros(volume.shape, dtype=np.uint8), None))
    found = drain(predict_combined_series(Combination(members, VoteSettings(uncertainty=True)), frames))
    assert [result.labels is frame[1] for result, frame in zip(found, frames, strict=True)] == [True, True]
    for result in found:
        assert set(np.unique(result.labels)) <= {0, 1, 2} and result.labels.any()
        assert result.uncertainty[0].min() >= 0 and result.uncertainty[0].max() <= 1

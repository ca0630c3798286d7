"""DICOM is segmented like any other image, and its segmentations are DICOM again where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

from dicom_files import PATIENT, SECRET, STRUCTURES, header, save, write_enhanced, write_series
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.case_files import find_cases
from napari_nnunet.formats.dicom.segmentation import read_segmentation
from napari_nnunet.formats.dicom.structures import read_structures
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.prediction.predict_files import predict_folder, survey_folder
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

CPU = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False}
SHAPE = (8, 16, 18)


def image(seed=0):
    return (smooth_image(SHAPE, seed=seed)[0] * 3).astype(np.int16)


def found(*sources, **more):
    cases = find_cases([*sources], ending=".nii.gz", channels=1, reader="SimpleITKIO", **more).cases
    return [case.name for case in cases]


def numbered(number):
    return lambda file, z: setattr(file, "SeriesNumber", number)


def test_from_the_shell_a_folder_of_series_becomes_segmentations_and_dicom_seg(model, tmp_path, capsys):
    inside = tmp_path / "in"
    write_series(inside / "anna", image(0))
    write_enhanced(inside / "berta" / "image.dcm", image(1), order=[*range(7, -1, -1)])
    save(header(STRUCTURES), inside / "anna" / "a.dcm")
    words = ["predict_from_modelfolder", "-i", str(inside), "-o", str(tmp_path / "out"), "-m", str(model.folder)]
    assert main([*words, "-device", "cpu", "--disable_tta", "--dicom_seg"]) == 0
    for name in ("anna", "berta"):
        labels, geometry = read_labels(tmp_path / "out" / f"{name}.nii.gz")
        seg = read_segmentation(tmp_path / "out" / f"{name}.dcm")
        np.testing.assert_array_equal(seg.labels, labels)
        assert labels.any()
        assert seg.names == {1: "organ", 2: "lesion"}
        assert seg.geometry.spacing == pytest.approx(geometry.spacing, rel=1e-5)
        assert seg.geometry.origin == pytest.approx(geometry.origin, rel=1e-5)
    said = " ".join(capsys.readouterr().err.split())
    assert "No common code is known for organ; local ones are written" in said
    assert "organ," in (tmp_path / "out" / "codes.csv").read_text(encoding="utf-8")


def test_nothing_of_the_patient_gets_into_other_outputs(model, tmp_path):
    series = write_series(tmp_path / "in", image())
    out = tmp_path / "out"
    request = PredictFolderRequest.of(source=series, target=out, dicom_seg=True, table=True, probabilities=True, **CPU)
    drain(predict_folder(model, request))
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(files) >= 8
    for path in files:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            import gzip

            content = gzip.decompress(content)
        for private in (*PATIENT.split("^"), "4711", SECRET, "Who^Doctor"):
            assert private.encode() not in content, path


def test_finished_cases_are_kept_only_with_their_dicom_seg(model, tmp_path):
    request = PredictFolderRequest.of(source=write_series(tmp_path / "in", image()), target=tmp_path / "out", **CPU)
    drain(predict_folder(model, request))
    again = request.replace(keep_finished=True, dicom_seg=True)
    assert drain(predict_folder(model, again)).done == ("in",)
    assert drain(predict_folder(model, again)).skipped == ("in",)


def test_structures_are_written_beside_or_instead_and_removed_with_their_segmentation(model, tmp_path):
    series, out = write_series(tmp_path / "in", image()), tmp_path / "out"
    words = ["predict_from_modelfolder", "-i", str(series), "-o", str(out), "-m", str(model.folder), "-device", "cpu"]
    assert main([*words, "--disable_tta", "--rtstruct"]) == 0
    labels, _ = read_labels(out / "in.nii.gz")
    found = read_structures(out / "in.rtstruct.dcm", [series])
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == {1: "organ", 2: "lesion"}
    assert not (out / "in.dcm").exists()
    assert "organ," in (out / "codes.csv").read_text(encoding="utf-8")
    request = PredictFolderRequest.of(source=series, target=out, rtstruct=True, keep_finished=True, **CPU)
    assert drain(predict_folder(model, request)).skipped == ("in",)
    (out / "in.rtstruct.dcm").unlink()
    assert drain(predict_folder(model, request.replace(dicom_seg=True))).done == ("in",)
    assert (out / "in.dcm").is_file()
    drain(predict_folder(model, request.replace(rtstruct=False, keep_finished=False)))
    assert not (out / "in.dcm").exists()
    assert not (out / "in.rtstruct.dcm").exists()


def test_structures_need_dicom(model, tmp_path):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "a_0000.nii.gz", image())
    request = PredictFolderRequest.of(source=tmp_path / "in", target=tmp_path / "out", rtstruct=True, **CPU)
    with pytest.raises(DatasetError, match="An RTSTRUCT references the series it was made from, but a is not a DICOM"):
        drain(predict_folder(model, request))


def test_dicom_seg_needs_dicom(model, tmp_path):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "a_0000.nii.gz", image())
    request = PredictFolderRequest.of(source=tmp_path / "in", target=tmp_path / "out", dicom_seg=True, **CPU)
    with pytest.raises(DatasetError, match="references the series it was made from, but a is not a DICOM series"):
        drain(predict_folder(model, request))
    assert not (tmp_path / "out").exists()


def test_codes_without_dicom_seg_are_not_passed_over(tmp_path):
    with pytest.raises(
        SettingsError, match="for DICOM-SEG and RTSTRUCT, which were not asked for. Add --dicom_seg or --rtstruct"
    ):
        PredictFolderRequest.of(source=tmp_path, target=tmp_path / "out", codes=tmp_path / "codes.csv")


def test_codes_that_were_filled_in_are_used(model, tmp_path):
    series, table = write_series(tmp_path / "in", image()), tmp_path / "codes.csv"
    table.write_text(
        "class,category,category_scheme,category_meaning,type,type_scheme,type_meaning\n"
        "organ,91723000,SCT,Anatomical Structure,10200004,SCT,Liver\n"
    )
    request = PredictFolderRequest.of(source=series, target=tmp_path / "out", dicom_seg=True, codes=table, **CPU)
    drain(predict_folder(model, request))
    import highdicom

    seg = highdicom.seg.segread(tmp_path / "out" / "in.dcm")
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"


def test_regions_overlap_in_dicom_seg(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    model = make_model(tmp_path, Recipe(labels=labels, regions_class_order=(1, 2)))
    series = write_series(tmp_path / "in", image())
    request = PredictFolderRequest.of(source=series, target=tmp_path / "out", dicom_seg=True, **CPU)
    drain(predict_folder(model, request))
    labels, _ = read_labels(tmp_path / "out" / "in.nii.gz")
    masks = dict(read_segmentation(tmp_path / "out" / "in.dcm").masks)
    np.testing.assert_array_equal(masks[1], labels > 0)
    np.testing.assert_array_equal(masks[2], labels == 2)


def test_a_series_that_is_no_volume_does_not_end_the_others(model, tmp_path):
    write_series(tmp_path / "in" / "leaning", image(), lean=1.0)
    write_series(tmp_path / "in" / "straight", image())
    result = drain(
        predict_folder(model, PredictFolderRequest.of(source=tmp_path / "in", target=tmp_path / "out", **CPU))
    )
    assert result.done == ("straight",)
    assert "the gantry was tilted" in str(result.failed["leaning"])


def test_series_are_found_wherever_people_have_them(tmp_path):
    one = write_series(tmp_path / "one", image())
    assert found(one) == ["one"]
    assert found(one / "s003.dcm") == ["s003"]
    write_series(tmp_path / "many" / "a", image())
    write_series(tmp_path / "many" / "b", image(), name="IM{:04d}")
    assert found(tmp_path / "many") == ["a", "b"]
    assert found(tmp_path / "many", without=tmp_path / "many" / "b") == ["a"]
    assert found(tmp_path, subfolders=True) == ["many/a", "many/b", "one"]


def test_slices_given_one_by_one_are_refused_for_their_folder(tmp_path):
    """``-i FOLDER/*.dcm`` would segment every slice as an image by itself."""
    one, other = (write_series(tmp_path / name, image()) for name in ("one", "other"))
    with pytest.raises(DatasetError, match=r"8 of the files \(s000.dcm, .*\) are slices of one DICOM series.*/one\)"):
        found(*sorted(one.iterdir()))
    assert found(one / "s003.dcm", other) == ["other", "s003"]


def test_series_in_one_folder_are_named_by_their_numbers(tmp_path):
    write_series(tmp_path / "flat", image(), change=numbered(2))
    write_series(tmp_path / "flat", image(), name="t{}.dcm", change=numbered(11))
    assert found(tmp_path / "flat") == ["flat_11", "flat_2"]
    cases = find_cases(tmp_path / "flat", ending=".nii.gz", channels=1).cases
    assert len({case.series for case in cases}) == 2
    write_series(tmp_path / "flat", image(), name="u{}.dcm", change=numbered(2))
    assert found(tmp_path / "flat") == ["flat_1", "flat_2", "flat_3"]


def test_files_of_the_model_come_before_series_in_subfolders(tmp_path):
    write_series(tmp_path / "raw", image())
    write_nifti(tmp_path / "a_0000.nii.gz", image())
    assert found(tmp_path) == ["a"]


def test_images_in_the_folder_of_a_series_are_named_as_left_out(tmp_path):
    """Its first files tell what a folder holds; others would be missing in the result without a word."""
    write_series(tmp_path / "in", image(), name="a{}.dcm")
    write_nifti(tmp_path / "in" / "b_0000.nii.gz", image())
    write_series(tmp_path / "in" / "more", image())
    inputs = find_cases(tmp_path / "in", ending=".nii.gz", channels=1, reader="SimpleITKIO")
    assert [case.name for case in inputs.cases] == ["in"]
    assert inputs.left_out == ("b_0000.nii.gz (in the folder of a DICOM series)", "more/ (a subfolder)")


def test_a_dock_learns_the_size_of_series(model, tmp_path):
    write_series(tmp_path / "a", image())
    survey = drain(survey_folder(model, PredictFolderRequest.of(source=tmp_path, target=tmp_path / "out")))
    assert survey.cases == 1
    ((shape, spacing),) = survey.sizes
    assert (shape, spacing) == (SHAPE, pytest.approx((2.0, 0.6, 0.5)))


def test_a_series_with_a_damaged_slice_does_not_end_the_others(model, tmp_path):
    for name, seed in (("anna", 0), ("berta", 1), ("carla", 2)):
        write_series(tmp_path / "in" / name, image(seed))
    torn = sorted((tmp_path / "in" / "berta").iterdir())[3]
    torn.write_bytes(torn.read_bytes()[:600])
    for more in ({}, {"subfolders": True}):
        request = PredictFolderRequest.of(source=tmp_path / "in", target=tmp_path / f"out{len(more)}", **CPU, **more)
        result = drain(predict_folder(model, request))
        assert result.done == ("anna", "carla")
        assert torn.name in result.failed["berta"].message

"""What is written, what is kept when a job ends early, and what is refused."""

import json
import subprocess

import numpy as np
import pytest

from formats_large import command_words, ome_zarr
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet import predict, predict_image
from napari_nnunet.errors import ImageError, ModelError, ResourceError, SettingsError
from napari_nnunet.formats.large.journal import NAME, other_work
from napari_nnunet.formats.large.label_image import LabelImage
from napari_nnunet.formats.large.pyramid import pyramid
from napari_nnunet.formats.large.source import LargeImage

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic", "small_blocks")
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "chunk": (8, 16, 16)}
SPACING = (1.0, 1.0, 1.0)
SHAPE = (20, 40, 40)


@pytest.fixture
def image(tmp_path):
    """An OME-Zarr image of two levels, in micrometres that are the model's millimetres."""
    array = smooth_image(SHAPE)[0]
    return ome_zarr(tmp_path / "image.zarr", [array, array[::2, ::2, ::2]], unit="millimeter")


def labels_of(path):
    return zarr.open(str(path / "0"), mode="r")[:]


def test_a_result_is_a_valid_label_image_with_names_and_colours(tmp_path, model, image, monkeypatch):
    monkeypatch.setattr("napari_nnunet.formats.large.pyramid._COARSEST", 16)
    found = predict_image(model, image, tmp_path / "result.zarr", **HOW)
    yaozarrs.validate_zarr_store(str(found.path))
    about = zarr.open_group(str(found.path), mode="r").attrs["ome"]
    assert about["image-label"]["properties"] == [
        {"label-value": 1, "name": "organ"}, {"label-value": 2, "name": "lesion"},
    ]  # fmt: skip
    assert [colour["label-value"] for colour in about["image-label"]["colors"]] == [1, 2]
    (entry,) = about["multiscales"]
    assert [axis["unit"] for axis in entry["axes"]] == ["millimeter"] * 3
    fine = labels_of(found.path)
    assert np.array_equal(zarr.open(str(found.path / "1"), mode="r")[:], fine[::2, ::2, ::2])
    assert set(np.unique(zarr.open(str(found.path / "2"), mode="r")[:])) <= {0, 1, 2}
    assert not list(found.path.glob(".*"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_go_into_the_image_where_that_is_asked_for(tmp_path, model, version):
    image = ome_zarr(tmp_path / "image.zarr", [smooth_image(SHAPE)[0]], unit="millimeter", version=version)
    found = predict_image(model, image, image / "labels" / "organs", **HOW)
    yaozarrs.validate_zarr_store(str(image))
    group = zarr.open_group(str(image / "labels"), mode="r").attrs.asdict()
    assert group.get("ome", group)["labels"] == ["organs"]
    predict_image(model, image, image / "labels" / "again", **HOW)
    group = zarr.open_group(str(image / "labels"), mode="r").attrs.asdict()
    assert group.get("ome", group)["labels"] == ["organs", "again"]
    assert np.array_equal(labels_of(found.path), labels_of(image / "labels" / "again"))


def test_a_result_that_fits_becomes_an_ordinary_file(tmp_path, model, image):
    from napari_nnunet.formats.images.files import read_labels

    predict_image(model, image, tmp_path / "result.nii.gz", **HOW)
    labels, geometry = read_labels(tmp_path / "result.nii.gz")
    whole = predict(model, smooth_image(SHAPE), spacing=SPACING, device="cpu", backend="torch", mirroring=False)
    assert np.array_equal(labels.squeeze(), whole.labels)
    assert geometry.spacing == SPACING
    assert not list(tmp_path.glob("*unfinished*"))


def test_time_points_are_segmented_each_by_itself(tmp_path, model):
    frames = np.stack([smooth_image(SHAPE)[0], 3 * smooth_image(SHAPE, seed=1)[0]])
    found = predict_image(model, frames, tmp_path / "result.zarr", spacing=SPACING, axes="TZYX", **HOW)
    labels = labels_of(found.path)
    for frame, own in zip(frames, labels, strict=True):
        whole = predict(model, frame, spacing=SPACING, device="cpu", backend="torch", mirroring=False)
        assert np.array_equal(own, whole.labels)
    assert sum(found.counts) == labels.size


def test_the_level_nearest_to_the_model_is_taken_and_said(tmp_path, image):
    model = make_model(tmp_path, Recipe(spacing=(2.2, 2.0, 2.0)))
    said = []
    found = predict_image(model, image, tmp_path / "result.zarr", on_event=said.append, **HOW)
    assert labels_of(found.path).shape == (10, 20, 20)
    assert any("Level 1 of image.zarr is segmented" in getattr(event, "text", "") for event in said)


class _Stop(Exception):
    pass


def stopped_at(monkeypatch, number, error=_Stop):
    """Let the writing of a block fail."""
    write, done = LabelImage.write, []

    def fail(self, *block):
        if len(done) == number:
            raise error
        done.append(block)
        write(self, *block)

    monkeypatch.setattr(LabelImage, "write", fail)


def test_a_result_is_continued_to_the_bit_and_nothing_is_computed_twice(tmp_path, model, image, monkeypatch):
    whole = predict_image(model, image, tmp_path / "whole.zarr", **HOW)
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        with pytest.raises(_Stop):
            predict_image(model, image, tmp_path / "result.zarr", **HOW)
    assert not (tmp_path / "result.zarr").exists()
    with pytest.raises(SettingsError, match=r"is the beginning of such a result.*--continue"):
        predict_image(model, image, tmp_path / "result.zarr", **HOW)
    found = predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **HOW)
    assert (found.kept, found.blocks) == (3, whole.blocks - 3)
    assert found.counts == whole.counts
    for path in sorted((tmp_path / "whole.zarr").rglob("*")):
        if path.is_file() and path.name != "zarr.json":
            assert (
                path.read_bytes() == (tmp_path / "result.zarr" / path.relative_to(tmp_path / "whole.zarr")).read_bytes()
            )


def test_what_is_complete_is_not_computed_again(tmp_path, model, image):
    predict_image(model, image, tmp_path / "result.zarr", **HOW)
    assert predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **HOW).blocks == 0
    with pytest.raises(SettingsError, match="already exists"):
        predict_image(model, image, tmp_path / "result.zarr", **HOW)


@pytest.mark.parametrize(("changed", "said"), [
    ("model", r"another model \(.*\)"), ("settings", r"other settings \(step 0.5, now 1.0\)"),
    ("image", "another state of the image's files"),
])  # fmt: skip
def test_what_was_begun_otherwise_is_not_continued(tmp_path, model, image, monkeypatch, changed, said):
    with monkeypatch.context() as patch:
        stopped_at(patch, 1)
        with pytest.raises(_Stop):
            predict_image(model, image, tmp_path / "result.zarr", **HOW)
    how = dict(HOW)
    if changed == "model":
        model = make_model(tmp_path, seed=5)
    elif changed == "settings":
        how["step"] = 1.0
    else:
        zarr.open(str(image / "0"), mode="r+")[0, 0, 0] = 7
    with pytest.raises(SettingsError, match=f"was begun with {said}. Continue with the same, or delete it"):
        predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **how)


def test_a_full_disk_at_a_chunk_is_a_sentence_and_loses_nothing(tmp_path, model, image, monkeypatch):
    import errno

    with monkeypatch.context() as patch:
        store = type(zarr.open(str(image / "0"), mode="r").store)
        put, count = store.set, []

        async def full(self, key, value, *more, **named):
            if "result" in str(self.root) and "/c/" in f"/{key}":
                count.append(key)
                if len(count) > 2:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return await put(self, key, value, *more, **named)

        patch.setattr(store, "set", full)
        with pytest.raises(
            ResourceError, match=r"No space left while writing .*blocks that are finished are kept.*--continue"
        ):
            predict_image(model, image, tmp_path / "result.zarr", **HOW)
    found = predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **HOW)
    assert found.kept > 0
    whole = predict_image(model, image, tmp_path / "whole.zarr", **HOW)
    assert np.array_equal(labels_of(found.path), labels_of(whole.path))


@pytest.mark.parametrize("number", [1, 3])
def test_an_image_that_changes_while_it_is_read_is_noticed(tmp_path, model, image, monkeypatch, number):
    read, seen = LargeImage.read, []

    def reading(self, box, time=0):
        seen.append(box)
        if len(seen) == number:
            zarr.open(str(image / "0"), mode="r+")[0, 0, 0] = 7
        return read(self, box, time)

    monkeypatch.setattr(LargeImage, "read", reading)
    with pytest.raises(ImageError, match="was changed while it was read"):
        predict_image(model, image, tmp_path / "result.zarr", **HOW)


def test_axes_without_units_are_asked_about(tmp_path, model):
    image = ome_zarr(tmp_path / "image.zarr", [smooth_image(SHAPE)[0]], unit=None)
    with pytest.raises(ImageError, match="has no voxel size: its axes have no known unit"):
        predict_image(model, image, tmp_path / "result.zarr", **HOW)
    predict_image(model, image, tmp_path / "result.zarr", spacing=SPACING, **HOW)


def test_too_few_channels_are_named_with_the_axes(tmp_path, model):
    with pytest.raises(
        ImageError, match=r"expects 1 channel \(MR\), but the array has 2 \(axes CZYX: 2 x 20 x 40 x 40\)"
    ):
        predict_image(model, smooth_image(SHAPE, channels=2), tmp_path / "result.zarr", spacing=SPACING, **HOW)


@pytest.mark.parametrize(("asked", "said"), [
    ({"quality": True}, "The Dice of labels that are written block by block cannot be predicted. Leave it out, or"),
    ({"probabilities": True}, "Probabilities of images larger than memory are not written. Leave them out."),
])  # fmt: skip
def test_what_is_known_of_whole_images_only_is_refused(tmp_path, model, image, asked, said):
    with pytest.raises(SettingsError, match=said):
        predict_image(model, image, tmp_path / "result.zarr", **asked, **HOW)
    assert not (tmp_path / "result.zarr").exists()


def test_memory_that_is_not_enough_for_a_block_is_said_before_anything_is_computed(tmp_path, model, image):
    with pytest.raises(ResourceError, match="The smallest block of this image takes"):
        predict_image(model, image, tmp_path / "result.zarr", memory_gb=0.01, **HOW)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_a_file_is_read_as_the_model_reads_files(tmp_path, reader):
    import nibabel

    from napari_nnunet.events import drain
    from napari_nnunet.formats.images.files import read_labels
    from napari_nnunet.jobs.prediction.predict_files import predict_folder
    from napari_nnunet.schema.requests.prediction import PredictFolderRequest

    model = make_model(tmp_path, Recipe(reader=reader, file_ending=".nii"))
    (tmp_path / "in").mkdir()
    turned = np.array([[0, 0, -1.0, 5], [1.0, 0, 0, 2], [0, 1.0, 0, 3], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(smooth_image((20, 24, 28))[0], turned), tmp_path / "in" / "a_0000.nii")
    how = {name: value for name, value in HOW.items() if name != "chunk"}
    drain(predict_folder(model, PredictFolderRequest(source=tmp_path / "in", target=tmp_path / "out", **how)))
    predict_image(model, tmp_path / "in" / "a_0000.nii", tmp_path / "large.nii", **HOW)
    (whole, grid), (found, own) = read_labels(tmp_path / "out" / "a.nii"), read_labels(tmp_path / "large.nii")
    assert np.array_equal(whole, found)
    assert grid.axes_code == own.axes_code


def test_a_second_stage_without_its_first_is_refused(tmp_path, image):
    model = make_model(tmp_path, Recipe(previous_stage="3d_lowres", configuration="3d_cascade_fullres"))
    with pytest.raises(ModelError, match="needs the segmentation of its previous stage"):
        predict_image(model, image, tmp_path / "result.zarr", **HOW)


def test_both_stages_of_a_cascade_equal_those_in_memory(tmp_path):
    make_model(tmp_path, Recipe(configuration="3d_lowres", spacing=(2.0, 2.0, 2.0)), seed=3)
    model = make_model(
        tmp_path, Recipe(previous_stage="3d_lowres", configuration="3d_cascade_fullres", spacing=(1.2, 1.2, 1.2))
    )
    array = smooth_image(SHAPE)
    array[:, :3] = 0
    whole = predict(model, array, spacing=SPACING, device="cpu", backend="torch", mirroring=False).labels
    found = predict_image(model, array, tmp_path / "result.zarr", spacing=SPACING, **HOW)
    assert np.mean(labels_of(found.path) != whole) < 1e-4
    assert not list(found.path.glob("first*"))


def test_what_is_normalised_within_a_mask_equals_that_in_memory(tmp_path):
    model = make_model(tmp_path, Recipe(use_mask=True))
    array = smooth_image(SHAPE)
    whole = predict(model, array, spacing=SPACING, device="cpu", backend="torch", mirroring=False).labels
    found = predict_image(model, array, tmp_path / "result.zarr", spacing=SPACING, **HOW)
    assert np.array_equal(labels_of(found.path), whole)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((100, 400, 400), (1, 1, 1), [(1, 1, 1)]),
        ((100, 1000, 1000), (5, 1, 1), [(1, 1, 1), (1, 2, 2)]),
        ((1000, 1000, 1100), (1, 1, 1), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        ((1, 3000, 3000), (9, 1, 1), [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]),
    ],
)
def test_a_pyramid_makes_voxels_rounder(shape, spacing, expected):
    assert pyramid(shape, spacing) == expected


@pytest.mark.slow
def test_a_kill_at_any_time_changes_nothing_in_the_result(tmp_path, model, image):
    whole = predict_image(model, image, tmp_path / "whole.zarr", **HOW)
    words = [*command_words(model, image, tmp_path / "result.zarr"), "--events", str(tmp_path / "e.jsonl")]
    for after in (1, 4):
        job = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        seen = 0
        while seen < after and job.poll() is None:
            lines = (
                (tmp_path / "e.jsonl").read_text(encoding="utf-8").splitlines()
                if (tmp_path / "e.jsonl").exists()
                else []
            )
            seen = sum(json.loads(line).get("kind") == "painted" for line in lines if line.endswith("}"))
        job.kill()
        job.wait()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert np.array_equal(labels_of(tmp_path / "result.zarr"), labels_of(whole.path))


def test_a_journal_of_which_a_full_disk_kept_nothing_is_begun_again(tmp_path, model, image):
    for torn in (b"", b'{"work": {"model"'):
        target = tmp_path / f"{len(torn)}.zarr"
        begun = target.with_name(f"{target.name}.unfinished")
        begun.mkdir()
        (begun / NAME).write_bytes(torn)
        predict_image(model, image, target, carry_on=True, **HOW)
        assert labels_of(target).any()


def _begun(tmp_path, model, image, monkeypatch):
    """Return the journal of a result that was begun, and its lines."""
    write, calls = LabelImage.write, []

    def fail_later(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise ResourceError("full")
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LabelImage, "write", fail_later)
        with pytest.raises(ResourceError, match="full"):
            predict_image(model, image, tmp_path / "result.zarr", **HOW)
    journal = tmp_path / "result.zarr.unfinished" / NAME
    return journal, [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("facts", {"channels": []}, "not of this image"),
        ("facts", {"box": [[0, 999], [0, 40], [0, 40]]}, "not of this image"),
        ("facts", {"content": "many"}, "in a line 'facts', 'content' is 'many'"),
        ("arithmetic", {"precision": "float8"}, "in a line 'arithmetic', 'precision' is 'float8'"),
        ("arithmetic", {"step": 1.0}, "in a line 'arithmetic', 'step'"),
        ("layout", {"block": [7, 16, 16]}, "its blocks are not made of whole chunks"),
        ("block", {"counts": [1, 2]}, "the voxels it counts"),
        ("block", {"at": [0, 0]}, "in a line 'block', 'at.2' is missing"),
    ],
)
def test_a_journal_that_no_run_wrote_is_refused(tmp_path, model, image, monkeypatch, key, change, words):
    journal, lines = _begun(tmp_path, model, image, monkeypatch)
    changed = [{key: {**line[key], **change}} if key in line else line for line in lines]
    assert changed != lines
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in changed))
    with pytest.raises(SettingsError, match=words):
        predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **HOW)
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **HOW)


@pytest.mark.parametrize(
    ("name", "said"),
    [("o.txt", "unknown kind of image"), ("o.png", r"\.png holds no volume"), ("o.jpg", "JPEG changes label values")],
)
def test_a_result_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, model, image, name, said):
    with pytest.raises((ImageError, SettingsError), match=said):
        predict_image(model, image, tmp_path / name, device="cpu", on_event=lambda _: pytest.fail("work began"))
    assert not list(tmp_path.glob("o*"))


def test_labels_never_take_the_place_of_their_image(tmp_path, model):
    write_nifti(tmp_path / "a.nii.gz", smooth_image((12, 20, 22))[0])
    before = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "a.nii.gz")
    for name in ("a.nii.gz", "link.nii.gz"):
        with pytest.raises(SettingsError, match="would overwrite the image"):
            predict_image(model, tmp_path / "a.nii.gz", tmp_path / name, device="cpu")
    assert (tmp_path / "a.nii.gz").read_bytes() == before


def test_a_setting_that_only_the_earlier_work_had_is_named():
    known, now = {"settings": {"step": 0.5, "bounds": 7}}, {"settings": {"step": 0.5}}
    assert other_work(known, now) == "other settings (bounds 7, now none)"
    assert other_work(now, known) == "other settings (bounds none, now 7)"

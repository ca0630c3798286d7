"""Planning without the check says what is odd about cases, also when nothing is measured again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from helpers import make_dataset
from napari_nnunet.engine.image.likeness import likeness_of
from napari_nnunet.events import Note, Pump
from napari_nnunet.formats.images.files import read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.case_checks import CaseFacts
from napari_nnunet.jobs.dataset.contradictions import measured_problems
from napari_nnunet.jobs.planning.plan import extract_fingerprint
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.requests.planning import FingerprintRequest

pytestmark = pytest.mark.usefixtures("in_one_process")


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path, cases=5, spacing=(1.0, 1.0, 1.0))


def image_of(raw, case):
    return raw / "imagesTr" / f"{case}_0000.nii.gz"


def measured(raw, **how):
    with Pump(extract_fingerprint(Workspace.at(raw.parents[1]), FingerprintRequest(dataset=raw.name), **how)) as pump:
        return [event for event in pump if isinstance(event, Note) and event.level == "warning"]


def texts(raw, **how):
    return [note.text for note in measured(raw, **how)]


def scale(raw, case, factor):
    image = read_volume([image_of(raw, case)])
    write_image(image.array[0] * np.float32(factor), image.geometry, image_of(raw, case))


def test_what_is_in_order_is_not_warned_of(raw):
    assert measured(raw) == []


def test_copies_empty_labels_and_other_units_are_said_and_said_again_when_nothing_changed(raw):
    shutil.copyfile(image_of(raw, "c0"), image_of(raw, "c1"))
    scale(raw, "c2", 0.001)
    for case in ("c3", "c4"):
        labels, geometry = read_labels(raw / "labelsTr" / f"{case}.nii.gz")
        write_labels(np.zeros_like(labels), geometry, raw / "labelsTr" / f"{case}.nii.gz")
    found = texts(raw)
    assert [text.partition(": ")[0] for text in found] == ["c3, c4", "c2", "c0, c1"]
    assert found[0].endswith(": no foreground: only background is labelled.")
    assert "are far from the usual" in found[1] and found[1].endswith("Was the image scaled, or is it in other units?")
    assert "these cases have the same image" in found[2]
    assert texts(raw) == found
    assert texts(raw, checked=True) == []


def test_a_noisy_copy_is_said_with_what_to_do_where_somebody_reads_it(raw):
    image = read_volume([image_of(raw, "c0")])
    noise = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    copy = 0.7 * image.array[0] + 0.03 * image.array.std() * noise + 12
    write_image(copy.astype(np.float32), image.geometry, image_of(raw, "c2"))
    (note,) = measured(raw)
    assert note.text.startswith("c0, c2: the images of these cases are nearly the same")
    assert note.text.endswith("at once (--group_by).")
    assert "'Groups' of the Training cases dock" in note.in_window


def test_what_was_odd_by_other_classes_is_not_repeated(raw):
    labels, geometry = read_labels(raw / "labelsTr" / "c3.nii.gz")
    write_labels(np.zeros_like(labels), geometry, raw / "labelsTr" / "c3.nii.gz")
    assert "c3: no foreground" in texts(raw)[0]
    path = raw / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "channel_names": {"0": "CT"}}))
    with Pump(extract_fingerprint(Workspace.at(raw.parents[1]), FingerprintRequest(dataset=raw.name))) as pump:
        said = [event.text for event in pump if isinstance(event, Note)]
    assert not any("no foreground:" in text for text in said)
    assert said[-1].endswith("that dataset.json names now: verify_dataset_integrity does.")


def test_of_pictures_that_are_all_alike_not_every_pair_is_named():
    rng = np.random.default_rng(0)
    scene = rng.random((32, 32))
    facts = {
        f"c{i:03d}": CaseFacts((), {1: 1}, digest=str(i), likeness=likeness_of(np.float32(scene + 0.01 * rng.random())))
        for i in range(600)
    }
    info = DatasetInfo.parse(
        {"channel_names": {"0": "a"}, "labels": {"background": 0, "x": 1}, "numTraining": 600, "file_ending": ".png"}
    )
    found = [str(problem) for problem in measured_problems(info, facts)]
    assert len(found) == 9
    assert found[-1].startswith("warning: other cases: at least 9") and "more warnings like this" in found[-1]


def test_of_many_copies_a_few_are_listed_and_the_rest_counted(tmp_path):
    raw = make_dataset(tmp_path, cases=6, spacing=(1.0, 1.0, 1.0))
    original = read_volume([image_of(raw, "c0")])
    for i in range(1, 6):
        write_image(original.array[0] * np.float32(1 + 0.1 * i), original.geometry, image_of(raw, f"c{i}"))
    found = texts(raw)
    assert len(found) == 9  # 15 pairs
    assert found[-1] == "other cases: 7 more warnings like this; verify_dataset_integrity lists all."

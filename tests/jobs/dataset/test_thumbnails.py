"""Small pictures of cases show what was painted, over the image."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np

from helpers import dataset_json, make_dataset, write_nifti
from napari_nnunet.events import CaseDone, CaseFailed
from napari_nnunet.jobs.dataset import cases
from napari_nnunet.jobs.dataset.cases import thumbnails
from napari_nnunet.schema.colours import class_rgb


def test_where_nobody_painted_the_image_is_seen(tmp_path):
    raw = make_dataset(tmp_path, cases=1, shape=(4, 40, 40))
    dataset_json(raw, labels={"background": 0, "a": 1, "ignore": 2})
    scribbles = np.full((4, 40, 40), 2, np.uint8)
    scribbles[2, 10:20, 10:20] = 1
    write_nifti(raw / "labelsTr" / "c0.nii.gz", scribbles, (1.0, 0.8, 0.8))
    (done,) = [event for event in thumbnails(raw) if isinstance(event, CaseDone)]
    picture = iio.imread(done.path)[..., :3].astype(int)
    coloured = np.ptp(picture, axis=-1) > 40
    assert 0.03 < coloured.mean() < 0.12  # a sixteenth was painted


def test_a_class_has_its_own_colour_in_the_picture_and_not_that_with_red_and_blue_swapped(tmp_path):
    raw = make_dataset(tmp_path, cases=1, shape=(4, 40, 40))
    labels = np.zeros((4, 40, 40), np.uint8)
    labels[2, 10:20, 10:20] = 1
    write_nifti(raw / "labelsTr" / "c0.nii.gz", labels, (1.0, 0.8, 0.8))
    (done,) = [event for event in thumbnails(raw) if isinstance(event, CaseDone)]
    picture = iio.imread(done.path)[..., :3].astype(int)
    red, _, blue = picture[np.ptp(picture, axis=-1) > 40].mean(axis=0)
    own, _, other = class_rgb(1)
    assert (blue - red) * (other - own) > 40


def test_two_jobs_that_draw_at_the_same_time_do_not_disturb_each_other(tmp_path, monkeypatch):
    """A dock starts anew while the drawing that it cancelled still writes a picture."""
    raw = make_dataset(tmp_path, cases=2)
    write, others = iio.imwrite, []

    def meanwhile(path, picture):
        write(path, picture)
        if not others:
            others.append([])
            others[0] += thumbnails(raw)

    monkeypatch.setattr(cases.iio, "imwrite", meanwhile)
    for events in (list(thumbnails(raw)), others[0]):
        assert [type(event) for event in events] == [CaseDone, CaseDone]
    assert sorted(path.name for path in (raw / ".thumbnails").iterdir()) == ["c0.png", "c1.png"]


def test_a_file_that_somebody_moves_meanwhile_does_not_end_the_pictures_of_other_cases(tmp_path):
    raw = make_dataset(tmp_path, cases=3)
    drawing = thumbnails(raw)
    events = [next(drawing)]
    (raw / "labelsTr" / "c1.nii.gz").unlink()
    events += drawing
    assert [type(event) for event in events] == [CaseDone, CaseFailed, CaseDone]
    assert "c1.nii.gz" in events[1].message

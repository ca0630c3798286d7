"""Objects of series of files keep their numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.objects import kinds_beside, read_objects
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.jobs.objects.track import renumbered, track_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import TrackRequest

pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")
PLANE = Geometry(spacing=(1.0, 1.0))


def dividing(folder: Path) -> Path:
    """Two squares that move, of which one divides in the last of three pictures; numbers are those of finding."""
    folder.mkdir()
    for time in range(3):
        objects = np.zeros((40, 60), np.uint16)
        objects[30:36, 4 + time : 10 + time] = 2 - time % 2
        if time < 2:
            objects[6:14, 30 + time : 38 + time] = 1 + time % 2
        else:
            objects[2:8, 32:40], objects[12:18, 32:40] = 3, 4
        write_labels(objects, PLANE, folder / f"pos_t{time:03d}.tif")
    return folder


def test_a_series_gets_tracks_a_table_and_a_picture_from_the_shell(tmp_path: Path, capsys) -> None:
    assert main(["track", "-i", str(dividing(tmp_path / "in")), "-o", str(tmp_path / "out"), "--distance", "8"]) == 0
    assert "pos: 3 time points, 4 tracks, 1 division\n" in capsys.readouterr().out
    first, second, third = (read_objects(tmp_path / "out" / f"pos_t00{t}.tif")[0] for t in range(3))
    assert first[32, 6] == second[32, 7] == third[32, 8] == 2
    assert first[10, 33] == second[10, 33] == 1
    assert {int(third[5, 35]), int(third[15, 35])} == {3, 4}
    rows = list(csv.DictReader((tmp_path / "out" / "tracks.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 7
    assert [(r["object"], r["parent"], r["time"]) for r in rows if r["parent"]] == [("3", "1", "2"), ("4", "1", "2")]
    assert float(rows[0]["area"]) == 64.0
    assert (tmp_path / "out" / "tracks.png").stat().st_size > 5000


def test_what_was_followed_in_pngs_can_be_measured_and_followed_again(tmp_path: Path) -> None:
    folder = dividing(tmp_path / "in")
    for path in sorted(folder.iterdir()):
        write_labels(read_objects(path)[0], PLANE, path.with_suffix(".png"))
        path.unlink()
    drain(track_objects(TrackRequest(objects=folder, target=tmp_path / "out", distance=8)))
    assert (tmp_path / "out" / "tracks.png").is_file()  # a picture of curves is no case
    assert main(["measure", "-i", str(tmp_path / "out"), "-o", str(tmp_path / "t.csv")]) == 0
    assert len((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()) == 8
    drain(track_objects(TrackRequest(objects=tmp_path / "out", target=tmp_path / "again", distance=8)))


def test_without_divisions_one_of_the_two_keeps_the_number(tmp_path: Path) -> None:
    request = TrackRequest(objects=dividing(tmp_path / "in"), target=tmp_path / "out", divisions=False, distance=8)
    (series,) = drain(track_objects(request))
    assert (series.tracks, series.divisions) == (3, 0)


def test_numbers_are_exchanged_all_at_once() -> None:
    objects = np.array([[0, 1, 2, 70000]])
    assert renumbered(objects, {1: 2, 2: 1, 70000: 3}).tolist() == [[0, 2, 1, 3]]
    assert not renumbered(np.zeros((2, 2), int), {}).any()


def moving(folder: Path, *others: Geometry, times=(0, 1, 2), shape=(3, 40, 60)) -> TrackRequest:
    """One object that moves, on the grid of the first time point but for the last, which may have another."""
    folder.mkdir()
    for i, time in enumerate(times):
        objects = np.zeros(shape if i + 1 < len(times) else (3, 40, 60), np.uint16)
        objects[1, 10:16, 4 + time : 10 + time] = 1
        geometry = others[0] if others and i + 1 == len(times) else placed()
        write_labels(objects, geometry, folder / f"pos_t{time:03d}.nii.gz")
    return TrackRequest(objects=folder, target=folder.parent / "out")


def placed(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), mirrored=False) -> Geometry:
    return Geometry(
        spacing=spacing, origin=origin, direction=(-1.0 if mirrored else 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    )


def warnings_of(request: TrackRequest) -> list[str]:
    said: list[str] = []
    drain(track_objects(request), lambda event: said.append(event.text) if isinstance(event, Note) else None)
    return [text for text in said if not text.startswith("pos: objects were looked for")]


@pytest.mark.parametrize(("other", "said"), [
    (placed((3.0, 3.0, 3.0)), "voxels of 1 x 1 x 1 mm and 3 x 3 x 3 mm"),
    (placed(origin=(59.0, 0.0, 0.0), mirrored=True), "mirrored along x"),
])  # fmt: skip
def test_time_points_on_other_grids_are_refused(tmp_path: Path, other: Geometry, said: str) -> None:
    with pytest.raises(DatasetError, match=rf"pos_t002 does not lie on the grid of pos_t000.*: {said}\. Objects are"):
        drain(track_objects(moving(tmp_path / "in", other)))
    assert not (tmp_path / "out" / "tracks.csv").exists()


def test_time_points_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="3 x 30 x 60 voxels and 3 x 40 x 60"):
        drain(track_objects(moving(tmp_path / "in", shape=(3, 30, 60))))


def test_a_stage_that_moved_is_said(tmp_path: Path) -> None:
    (said,) = warnings_of(moving(tmp_path / "in", placed(origin=(5.0, 0.0, 0.0))))
    assert "1 of 3 time points lie in another place than the first (pos_t002)" in said


def test_times_that_are_missing_are_said(tmp_path: Path) -> None:
    (said,) = warnings_of(moving(tmp_path / "in", times=(0, 1, 2, 5)))
    assert "its time points are not evenly spaced (0, 1, 2, 5)" in said
    assert warnings_of(moving(tmp_path / "even", times=(0, 10, 20))) == []


TOLD = {
    "channel_names": {"0": "g"},
    "labels": {"background": 0, "cell core": 1, "cell border": 2, "debris core": 3, "debris border": 4},
    "numTraining": 1,
    "file_ending": ".tif",
    "napari_nnunet_objects": {"kinds": {"cell": [1, 2], "debris": [3, 4]}, "width": 1.0, "unit": 1.0},
}


def of_two_kinds(folder: Path, *, flips: bool) -> Path:
    """Two squares that pass each other so closely that the nearest one is the other; or one that changes its kind."""
    (folder / "kinds").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(TOLD))
    for time in range(3):
        objects, kinds = np.zeros((2, 40, 60), np.uint16)
        objects[10:16, 20 + 4 * time : 26 + 4 * time] = 1
        kinds[objects == 1] = 2 if flips and time == 2 else 1
        if not flips:
            objects[18:24, 28 - 4 * time : 34 - 4 * time] = 2
            kinds[objects == 2] = 2
        write_labels(objects, PLANE, folder / f"pos_t{time:03d}.tif")
        write_labels(kinds, PLANE, folder / "kinds" / f"pos_t{time:03d}.tif")
    return folder


def table_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "tracks.csv").read_text(encoding="utf-8").splitlines()))


def test_objects_stay_of_their_kind_and_the_result_says_it(tmp_path: Path) -> None:
    request = TrackRequest(objects=of_two_kinds(tmp_path / "in", flips=False), target=tmp_path / "out", distance=12)
    (series,) = drain(track_objects(request))
    assert series.tracks == 2
    assert {(row["object"], row["kind"]) for row in table_of(tmp_path / "out")} == {("1", "cell"), ("2", "debris")}
    for time in range(3):
        path = tmp_path / "out" / f"pos_t{time:03d}.tif"
        assert kinds_beside(path, *read_objects(path)) == {1: "cell", 2: "debris"}


def test_an_object_of_another_kind_is_another_one_which_is_said_unless_kinds_may_change(tmp_path: Path) -> None:
    folder, said = of_two_kinds(tmp_path / "in", flips=True), []
    request = TrackRequest(objects=folder, target=tmp_path / "out", distance=12)
    (series,) = drain(track_objects(request), lambda event: said.append(getattr(event, "text", "")))
    assert series.tracks == 2
    assert any("1 object ends where one of another kind begins" in text and "--change_kind" in text for text in said)
    (series,) = drain(track_objects(request.replace(change_kind=True)), lambda e: said.append(getattr(e, "text", "")))
    assert series.tracks == 1
    assert [row["kind"] for row in table_of(tmp_path / "out")] == ["cell", "cell", "debris"]
    assert any("1 object changes its kind on the way" in text for text in said)
    path = tmp_path / "out" / "pos_t002.tif"
    assert kinds_beside(path, *read_objects(path)) == {1: "debris"}


def test_kinds_that_are_told_at_some_times_only_are_refused(tmp_path: Path) -> None:
    folder = of_two_kinds(tmp_path / "in", flips=False)
    (folder / "kinds" / "pos_t001.tif").unlink()
    with pytest.raises(DatasetError, match="have kinds at 2 time points, but not at 1"):
        drain(track_objects(TrackRequest(objects=folder, target=tmp_path / "out")))


def test_the_objects_themselves_are_not_written_over(tmp_path: Path) -> None:
    folder = of_two_kinds(tmp_path / "in", flips=False)
    with pytest.raises(SettingsError, match="holds the objects themselves"):
        drain(track_objects(TrackRequest(objects=folder, target=folder)))

"""Training cases larger than memory: read, measured, prepared and stored box by box, as they are in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from helpers import dataset_json, write_nifti
from napari_nnunet.engine.image import locations
from napari_nnunet.engine.image.prepare import fill_holes
from napari_nnunet.engine.large.holes import HoleSearch
from napari_nnunet.engine.planning.fingerprint import merge
from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.pickles import read_pickle
from napari_nnunet.formats.preprocessed.cases import open_case
from napari_nnunet.formats.preprocessed.frame import checked_frame
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs import case_size
from napari_nnunet.jobs.planning import in_parts
from napari_nnunet.jobs.planning.plan import measure_case
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess_case
from napari_nnunet.processes import pool
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest

NAME = "Dataset009_Large"
SMALL = 2e5  # bytes: a few planes


@pytest.fixture(autouse=True)
def small_memory(monkeypatch):
    monkeypatch.setattr(case_size, "_SMALL_FILES", 0.0)
    monkeypatch.setattr(locations, "_FROM_DISK", 3000)


@pytest.fixture
def in_memory_only(monkeypatch):
    def never(*_):
        raise AssertionError("a case that fits was worked on in parts")

    monkeypatch.setattr(in_parts, "open_lazily", never)


@pytest.fixture
def opened(monkeypatch):
    """The cases that were worked on in parts."""
    found, real = [], in_parts.open_lazily
    monkeypatch.setattr(in_parts, "open_lazily", lambda *asked: found.append(asked) or real(*asked))
    return found


def volume(shape, seed, dtype):
    """An image with an empty border, holes, and structures; and its labels."""
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 200, shape)
    image[:2] = image[:, -3:] = image[..., :1] = 0
    image[5:7, 6:9, 5:11] = 0  # a hole
    image[8, 4:8, 0:6] = 0  # leads out of the image
    labels = np.zeros(shape, dtype=np.uint8)
    labels[4:9, 3:14, 4:12] = 1
    labels[6:, 8:12, 9:] = 2
    labels[0, 0, :3] = 1  # where the image is empty
    return image.astype(dtype), labels


def raw(root, ending, dtype, *, spacing=(3.0, 1.0, 0.9), channels=1, shape=(17, 26, 23), cases=3):
    folder = root / "nnUNet_raw" / NAME
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(cases):
        size = (shape[0] + i, shape[1] + 2 * i, shape[2])
        for c in range(channels):
            image, labels = volume(size, 10 * i + c, dtype)
            path = folder / "imagesTr" / f"c{i}_{c:04d}{ending}"
            write(path, image, spacing)
        write(folder / "labelsTr" / f"c{i}{ending}", labels, spacing)
    (folder / "dataset.json").write_text("{}")
    names = {str(c): "MR" for c in range(channels)}
    dataset_json(
        folder, channel_names=names, labels={"background": 0, "a": 1, "b": 2}, numTraining=cases, file_ending=ending
    )
    return folder


def write(path, array, spacing):
    if path.suffix != ".tif":
        write_nifti(path, array, spacing)
    else:
        tifffile.imwrite(path, array, compression="zlib" if array.dtype == np.uint8 else None)
        stem = path.name.removesuffix(path.suffix).removesuffix("_0000").removesuffix("_0001")
        (path.parent / f"{stem}.json").write_text(f'{{"spacing": {list(spacing)}}}')


KINDS = {
    "nifti-anisotropic": (".nii", np.int16, {}),
    "nifti-isotropic-two-channels": (".nii", np.float32, {"spacing": (1.0, 1.0, 1.0), "channels": 2}),
    "tiff": (".tif", np.uint16, {}),
}


def measures(folder, room, draws=None):
    dataset = open_dataset(folder)
    reader, scheme = dataset.info.reader or "SimpleITKIO", dataset.info.labels
    if folder.joinpath("imagesTr", "c0_0000.tif").is_file():
        reader = "Tiff3DIO"
    return [measure_case(case, reader, scheme, draws, room=room) for case in dataset.cases]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draws", [None, 500])
def test_a_fingerprint_is_the_one_of_cases_in_memory(tmp_path, kind, draws, opened):
    ending, dtype, how = KINDS[kind]
    folder = raw(tmp_path, ending, dtype, **how)
    whole, parts = measures(folder, 1e9, draws), measures(folder, SMALL, draws)
    assert len(opened) == 3
    for a, b in zip(whole, parts, strict=True):
        assert (a.content, a.sized, a.facts.digest) == (b.content, b.sized, b.facts.digest)
        assert list(a.facts.labels) == list(b.facts.labels)
        a, b = a.measure, b.measure
        assert (a.shape, a.spacing, a.relative_size) == (b.shape, b.spacing, b.relative_size)
        for one, other in zip(a.channels, b.channels, strict=True):
            assert one.count == other.count and (one.minimum, one.maximum) == (other.minimum, other.maximum)
            assert np.array_equal(one.points, other.points) and one.points.dtype == other.points.dtype
            assert np.allclose(one.weights, other.weights, rtol=1e-15) and one.mean == pytest.approx(other.mean, 1e-14)
            assert one.mean_square == pytest.approx(other.mean_square, 1e-14)
    merge([each.measure for each in parts], sampled=draws is not None)


def planned(folder):
    workspace = Workspace.at(folder.parents[1])
    drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=NAME, configurations=())))
    return Plans.read(workspace.preprocessed / NAME / "nnUNetPlans.json")


def both(tmp_path, folder, plans, names, **changes):
    """Preprocess all cases at once and in parts; return the stored cases of each configuration."""
    dataset = open_dataset(folder)
    configurations = [replace_(plans.configuration(name), changes) for name in names]
    made = {}
    for memory in (1e9, SMALL):
        staging = tmp_path / f"staging{memory}"
        staging.mkdir()
        targets = []
        for configuration in configurations:
            place = tmp_path / f"made{memory}" / configuration.name
            place.mkdir(parents=True)
            targets.append((configuration, place))
        for case in dataset.cases:
            preprocess_case(case, plans, targets, dataset.info.labels, staging, room=memory)
        assert not list(staging.iterdir())
        made[memory] = {
            (name, case.name): tmp_path / f"made{memory}" / name for name in names for case in dataset.cases
        }
    return made[1e9], made[SMALL]


def replace_(configuration, changes):
    return configuration.model_copy(update=changes) if changes else configuration


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_what_those_of_cases_in_memory_hold(tmp_path, kind, opened):
    ending, dtype, how = KINDS[kind]
    folder = raw(tmp_path, ending, dtype, **how)
    plans = planned(folder)
    changes = {"spacing": (2.0, 1.3, 1.1)} if kind != "tiff" else {}
    whole, parts = both(tmp_path, folder, plans, ["3d_fullres"], **changes)
    assert len(opened) == 3
    whole2, parts2 = both(tmp_path / "2d", folder, plans, ["2d"]) if (tmp_path / "2d").mkdir() is None else ({}, {})
    for (key, place), other in zip([*whole.items(), *whole2.items()], [*parts.values(), *parts2.values()], strict=True):
        a, b = open_case(place, key[1]), open_case(other, key[1])
        assert a.data.shape == b.data.shape and np.array_equal(a.labels[:], b.labels[:])
        assert np.abs(a.data[:] - b.data[:]).max() < 2e-6 * np.abs(a.data[:]).max()
        checked_frame(other / f"{key[1]}.b2nd")
        one, two = (read_pickle(path / f"{key[1]}.pkl") for path in (place, other))
        assert set(one) == set(two)
        for region, rows in one.pop("class_locations").items():
            assert np.array_equal(rows, two["class_locations"][region])
        assert {name: str(value) for name, value in one.items()} == {
            name: str(value) for name, value in two.items() if name != "class_locations"
        }


def test_a_case_that_fits_is_worked_on_at_once(tmp_path, in_memory_only):
    folder = raw(tmp_path, ".nii", np.int16)
    measures(folder, 1e9)


def test_what_cannot_be_read_in_parts_is_read_at_once(tmp_path, in_memory_only):
    folder = raw(tmp_path, ".nii.gz", np.int16)
    measures(folder, SMALL)


def test_the_whole_way_works_within_little_memory(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(pool, "why_alone", lambda: "a test")
    monkeypatch.setattr(case_size, "SMALL", SMALL)
    workspace = Workspace.at(raw(tmp_path, ".nii", np.int16).parents[1])
    request = PlanAndPreprocessRequest(dataset=NAME, configurations=("3d_fullres",), memory_gb=1e-4)
    drain(plan_and_preprocess(workspace, request))
    assert len(opened) == 2 * 3  # measured and prepared
    stored = open_case(workspace.preprocessed / NAME / "nnUNetPlans_3d_fullres", "c0")
    assert stored.data.shape[1:] == stored.labels.shape[1:]


def test_values_that_are_no_numbers_are_refused(tmp_path):
    folder = raw(tmp_path, ".nii", np.float32, cases=1)
    image, labels = volume((17, 26, 23), 0, np.float32)
    image[3, 4, 5] = np.nan
    tifffile.imwrite(tmp_path / "x.tif", image)
    write_tif_case(folder, image, labels)
    with pytest.raises(ImageError, match="The image holds 1 voxels that are NaN or infinite"):
        measures(folder, SMALL)


def write_tif_case(folder, image, labels):
    for part, name, array in (("imagesTr", "c0_0000", image), ("labelsTr", "c0", labels)):
        (folder / part / f"{name}.nii").unlink()
        write(folder / part / f"{name}.tif", array, (3.0, 1.0, 0.9))
    dataset_json(folder, file_ending=".tif")


def test_labels_without_a_meaning_are_named_with_their_planes(tmp_path):
    folder = raw(tmp_path, ".nii", np.int16, cases=1)
    labels = volume((17, 26, 23), 0, np.int16)[1]
    labels[12, 3, 3] = 7
    write_nifti(folder / "labelsTr" / "c0.nii", labels, (3.0, 1.0, 0.9))
    with pytest.raises(ImageError, match=r"c0.nii: in the planes \d+ to \d+, it contains 7 \(1 voxel\)"):
        measures(folder, SMALL)


def test_labels_elsewhere_than_their_image_are_refused(tmp_path):
    folder = raw(tmp_path, ".nii", np.int16, cases=1)
    write_nifti(folder / "labelsTr" / "c0.nii", volume((17, 26, 23), 0, np.int16)[1], (3.0, 1.0, 1.4))
    with pytest.raises(ImageError, match="the labels lie on another grid than the image"):
        measures(folder, SMALL)


def test_memory_that_is_not_enough_for_a_plane_is_said(tmp_path):
    folder = raw(tmp_path, ".nii", np.int16, cases=1)
    with pytest.raises(ResourceError, match="A plane of 26 x 23 voxels takes"):
        measures(folder, 1000.0)


def test_a_foreground_of_fractions_that_does_not_fit_is_said(tmp_path):
    folder = raw(tmp_path, ".nii", np.float32, cases=1)
    write_nifti(folder / "labelsTr" / "c0.nii", np.ones((17, 26, 23), np.uint8), (3.0, 1.0, 0.9))
    with pytest.raises(ResourceError, match="has more values than fit into the memory that is left"):
        measures(folder, 8e4)


def same(whole, parts):
    """Compare what was stored; return the stored images that were made in parts."""
    found = []
    for (key, place), other in zip(whole.items(), parts.values(), strict=True):
        a, b = open_case(place, key[1]), open_case(other, key[1])
        assert a.data.shape == b.data.shape and np.array_equal(a.labels[:], b.labels[:])
        assert np.abs(a.data[:] - b.data[:]).max() < 3e-6 * np.abs(a.data[:]).max()
        found.append((b.data[:], b.labels[:]))
    return found


@pytest.mark.parametrize("finer", [None, (2.0, 1.3, 1.1), (4.0, 0.8, 0.7)])
@pytest.mark.parametrize("kind", KINDS)
def test_intensities_within_the_content_are_those_of_a_case_in_memory(tmp_path, kind, finer, opened):
    ending, dtype, how = KINDS[kind]
    folder = raw(tmp_path, ending, dtype, **how)
    plans = planned(folder)
    masks = (True, False)[: how.get("channels", 1)]
    changes = {"use_mask_for_norm": masks} | ({"spacing": finer} if finer else {})
    for image, labels in same(*both(tmp_path, folder, plans, ["3d_fullres"], **changes)):
        if not finer:
            assert (labels < 0).any() and (image[0][labels[0] < 0] == 0).all()
            inside = image[0][labels[0] >= 0]
            assert abs(inside.mean()) < 1e-3 and abs(inside.std() - 1) < 1e-3
    assert len(opened) == 3


def test_intensities_within_the_content_are_those_in_memory_in_random_datasets(tmp_path, opened):
    rng = np.random.default_rng(3)
    for trial in range(8):
        root, channels = tmp_path / str(trial), int(rng.integers(1, 3))
        shape = tuple(int(n) for n in rng.integers(19, 30, 3))
        spacing = tuple(float(s) for s in rng.choice([0.8, 1.0, 3.0], 3))
        dtype = rng.choice([np.uint8, np.int16, np.float32])
        folder = raw(root, ".nii", dtype, spacing=spacing, channels=channels, shape=shape, cases=1)
        image = rng.normal(200, 30, shape) * (ndimage.gaussian_filter(rng.normal(size=shape), 2) > rng.choice([-9, 0]))
        write_nifti(folder / "imagesTr" / "c0_0000.nii", image.astype(np.float32), spacing)
        changes = {
            "use_mask_for_norm": tuple(bool(b) for b in rng.integers(0, 2, channels)),
            "spacing": tuple(float(s) for s in rng.choice([0.9, 1.0, 2.5], 3)),
        }
        same(*both(root, folder, planned(folder), ["3d_fullres"], **changes))
    assert len(opened) == 8


def test_intensities_within_the_content_take_no_more_memory_than_the_rest(tmp_path):
    folder = raw(tmp_path, ".nii", np.int16, shape=(90, 300, 300), cases=1)
    plans, dataset = planned(folder), open_dataset(folder)
    case = dataset.cases[0]
    peaks: dict[bool, list[int]] = {False: [], True: []}
    for turn in range(3):  # what is held depends on when pieces are stored; an image in memory would be there each time
        for masked, found in peaks.items():
            place, staging = tmp_path / f"made{masked}{turn}", tmp_path / f"staging{masked}{turn}"
            place.mkdir()
            staging.mkdir()
            configuration = replace_(plans.configuration("3d_fullres"), {"use_mask_for_norm": (masked,)})
            tracemalloc.start()
            preprocess_case(case, plans, [(configuration, place)], dataset.info.labels, staging, room=3e7)
            found.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        if min(peaks[True]) < 1.1 * max(peaks[False]):
            break
    assert min(peaks[True]) < 1.1 * max(peaks[False])


def test_holes_that_go_through_several_slabs_are_those_of_the_whole_mask():
    rng = np.random.default_rng(0)
    for _ in range(60):
        shape = rng.integers(1, 14, 3)
        mask, step = rng.random(shape) < rng.choice([0.3, 0.5, 0.7, 0.9, 1.1]), int(rng.integers(1, 6))
        search, starts = HoleSearch(), range(0, shape[0], step)
        for z in starts:
            search.add(mask[z : z + step])
        search.finish()
        found = [search.inside(number, mask[z : z + step]) for number, z in enumerate(starts)]
        assert np.array_equal(np.concatenate(found), fill_holes(mask))


def test_places_of_a_class_too_large_to_be_put_in_order_are_all_its_own_and_none_is_drawn_twice(monkeypatch):
    monkeypatch.setattr(locations, "MOST_DRAWN", 12_000)
    labels = np.random.default_rng(0).integers(-1, 3, (60, 90, 400)).astype(np.int16)
    own = locations.class_locations(labels, (1, 2))
    drawn = locations.class_locations(labels, (1, 2), most_bytes=1000)
    assert len(own[1]) == 10_000 and len(drawn[1]) == 10_000
    for key, rows in drawn.items():
        assert len({tuple(row) for row in rows.tolist()}) == len(rows)
        assert (labels[tuple(rows[:, 1:].T)] == key).all()
        assert np.allclose(rows[:, 1:].mean(axis=0), (29.5, 44.5, 199.5), rtol=0.03)


def test_channels_whose_places_are_to_be_ignored_are_those_of_a_case_in_memory(tmp_path, opened):
    folder = raw(tmp_path, ".nii", np.int16, channels=2)
    plans = planned(folder)
    second = volume((17, 26, 23), 1, np.int16)[0]
    write_nifti(folder / "imagesTr" / "c0_0001.nii", second, (3.0, 1.2, 0.9))
    dataset = open_dataset(folder)
    case, labels = dataset.cases[0], dataset.info.labels
    configuration, made = plans.configuration("3d_fullres"), []
    for memory in (1e9, SMALL):
        place, staging = tmp_path / f"made{memory}", tmp_path / f"staging{memory}"
        place.mkdir()
        staging.mkdir()
        with pytest.raises(ImageError, match="c0_0001.nii"):
            preprocess_case(case, plans, [(configuration, place)], labels, staging, room=memory)
        preprocess_case(case, plans, [(configuration, place)], labels, staging, apart="ignore", room=memory)
        made.append(open_case(place, "c0"))
    assert len(opened) == 2 and np.array_equal(made[0].labels[:], made[1].labels[:])
    assert np.abs(made[0].data[:] - made[1].data[:]).max() < 2e-6 * np.abs(made[0].data[:]).max()

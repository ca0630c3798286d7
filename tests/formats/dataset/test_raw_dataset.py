"""A raw dataset is opened from its names, or from a list of files, and everything that is wrong is told at once."""

from __future__ import annotations

import json

import pytest

from helpers import dataset_json as change
from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.raw_dataset import generate_dataset_json, open_dataset, reader_of, survey

LABELS = {"background": 0, "cell": 1}


def make(folder, images=(), labels=(), channels=("DAPI",), ending=".png"):
    for part, names in (("imagesTr", images), ("labelsTr", labels)):
        (folder / part).mkdir(parents=True)
        for name in names:
            (folder / part / name).touch()
    generate_dataset_json(folder, channels, LABELS, len(labels), ending)
    return folder


def told(folder):
    return {problem.where: problem.text for problem in survey(folder)[1]}


def listing(folder, **entries):
    for name in ("a.png", "b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    generate_dataset_json(folder, ("DAPI",), LABELS, 1, ".png", dataset=entries)
    return folder


def test_cases_come_by_name_with_their_channels_in_order(tmp_path):
    folder = make(
        tmp_path / "Dataset001_Zellen größer",
        ["b_0001.png", "b_0000.png", "Fall ä_0000.png", "Fall ä_0001.png"],
        ["Fall ä.png", "b.png"],
        channels=("rot", "grün"),
    )
    dataset = open_dataset(folder)
    assert dataset.name == "Dataset001_Zellen größer"
    assert [case.name for case in dataset.cases] == ["Fall ä", "b"]
    assert [path.name for path in dataset.cases[1].images] == ["b_0000.png", "b_0001.png"]
    assert reader_of(dataset) == "NaturalImage2DIO"


def test_a_channel_beyond_those_of_the_dataset_leaves_no_gap_before_it(tmp_path):
    folder = make(tmp_path, ["a_0000.png", "a_0002.png"], ["a.png"])
    assert "a_0001.png is missing" in told(folder)["a"]


def test_pictures_of_several_colours_are_cases_only_where_all_are(tmp_path):
    folder = make(tmp_path, ["a_0000.png", "b_0000.png"], ["a.png", "b.png"], channels=("R", "G", "B"))
    assert len(open_dataset(folder).cases) == 2
    (folder / "imagesTr" / "b_0001.png").touch()
    assert told(folder).keys() == {"a", "b"}


def test_a_label_without_image_is_told_and_does_no_harm(tmp_path):
    folder = make(tmp_path, ["a_0000.png"], ["a.png", "b.png"])
    assert "has no image" in told(folder)["labelsTr/b.png"]
    assert [case.name for case in open_dataset(folder).cases] == ["a"]


def test_hidden_files_and_folders_are_no_cases(tmp_path):
    folder = make(tmp_path, ["a_0000.png", "._a_0000.png"], ["a.png", "._b.png"])
    (folder / "imagesTr" / "b_0000.png").mkdir()
    assert told(folder) == {}


def test_misnamed_files_missing_labels_and_marked_names_are_told_at_once(tmp_path):
    folder = make(tmp_path, ["x.png", "a_0000.png", "b_seg_0000.png"], ["b_seg.png"])
    with pytest.raises(DatasetError) as error:
        open_dataset(folder)
    for said in ("x.png: the name must end", "labelsTr/a.png is missing", "must not end in _seg"):
        assert said in str(error.value)


def test_a_long_list_of_problems_is_cut(tmp_path):
    folder = make(tmp_path, [f"c{i:02d}_0000.png" for i in range(25)])
    with pytest.raises(DatasetError, match=r"\.\.\. and 5 more$"):
        open_dataset(folder)


def test_folders_that_are_missing_or_empty_are_told(tmp_path):
    folder = make(tmp_path)
    assert "no file ends in .png" in told(folder)["imagesTr"]
    (folder / "labelsTr").rmdir()
    with pytest.raises(DatasetError, match="the folder labelsTr is missing"):
        open_dataset(folder)


def test_an_ending_of_another_case_is_told(tmp_path):
    folder = make(tmp_path, ["a_0000.PNG"], ["a.PNG"])
    assert "no file ends in .png" in told(folder)["imagesTr"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"labels"', "\x00", "[" * 5])
def test_a_damaged_dataset_json_is_an_error_of_datasets(tmp_path, content):
    make(tmp_path, ["a_0000.png"], ["a.png"])
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        survey(tmp_path)


# --- files listed in dataset.json -------------------------------------------------------------------------------------


def test_listed_files_lie_beside_elsewhere_or_where_a_variable_says(tmp_path, monkeypatch):
    folder = listing(
        tmp_path / "Dataset001_A",
        first={"images": ["a.png"], "label": "../Dataset001_A/b.png"},
        second={"images": ["$PICTURES/a.png"], "label": str(tmp_path / "Dataset001_A" / "b.png")},
    )
    monkeypatch.setenv("PICTURES", str(folder))
    cases = open_dataset(folder).cases
    assert [case.name for case in cases] == ["first", "second"]
    assert all(path.samefile(folder / "a.png") for case in cases for path in case.images)


def test_listed_files_that_are_missing_are_told_by_their_case(tmp_path):
    listing(tmp_path, x={"images": ["a.png", "nope.png"], "label": "b.png"})
    dataset, (problem,) = survey(tmp_path)
    assert problem.where == "x"
    assert problem.case
    assert "nope.png" in problem.text
    assert not dataset.cases


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "nul\0"])
def test_listed_names_that_lead_elsewhere_are_no_cases(tmp_path, name):
    listing(tmp_path, **{name: {"images": ["a.png"], "label": "b.png"}})
    with pytest.raises(DatasetError, match="cannot be part of a file name"):
        open_dataset(tmp_path)


def test_a_listed_name_that_marks_preprocessed_labels_is_no_case(tmp_path):
    listing(tmp_path, a={"images": ["a.png"], "label": "b.png"}, a_seg={"images": ["a.png"], "label": "b.png"})
    with pytest.raises(DatasetError, match="a_seg: a case name must not end in _seg"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [None, [], "a.png", {}, {"images": ["a.png"]}, {"images": [], "label": "b.png"},
     {"images": "a.png", "label": "b.png"}, {"images": [1], "label": "b.png"}, {"images": ["a.png"], "label": None}],
)  # fmt: skip
def test_a_listed_case_without_images_or_label_is_an_error(tmp_path, entry):
    listing(tmp_path, x=entry)
    with pytest.raises(DatasetError, match="the entry of x must hold 'images'"):
        survey(tmp_path)


def test_an_empty_list_has_no_training_cases(tmp_path):
    listing(tmp_path)
    with pytest.raises(DatasetError, match="no training cases"):
        open_dataset(tmp_path)


def test_the_reader_that_dataset_json_names_comes_before_the_one_of_the_ending(tmp_path):
    folder = make(tmp_path, ["a_0000.nii.gz"], ["a.nii.gz"], ending=".nii.gz")
    change(folder, overwrite_image_reader_writer="NibabelIO")
    assert reader_of(open_dataset(folder)) == "NibabelIO"


def test_a_dataset_json_that_breaks_a_rule_is_not_written(tmp_path):
    with pytest.raises(DatasetError, match="background"):
        generate_dataset_json(tmp_path, ("DAPI",), {"cell": 1}, 1, ".png")
    assert not list(tmp_path.iterdir())


def test_umlauts_survive_in_dataset_json(tmp_path):
    path = generate_dataset_json(tmp_path, ("Grün",), {"background": 0, "Läsion": 1}, 0, ".png", licence="© Zürich")
    content = json.loads(path.read_text("utf-8"))
    assert content["channel_names"] == {"0": "Grün"}
    assert content["labels"] == {"background": 0, "Läsion": 1}
    assert content["licence"] == "© Zürich"


def test_what_a_folder_lacks_is_said_with_a_way_to_get_it(tmp_path):
    with pytest.raises(DatasetError, match="lists none. List them there, or remove that key"):
        open_dataset(listing(tmp_path / "empty"))
    with pytest.raises(DatasetError) as none:
        open_dataset(tmp_path)
    assert "write one (generate_dataset_json)" in none.value.message
    assert "'Write dataset.json…' in the Training cases dock" in none.value.in_window

"""Images find their masks by name, and nothing is lost or mixed up where names do not tell."""

from __future__ import annotations

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.pairs import masks_beside, pair_folders, why_left


@pytest.fixture
def pair(tmp_path):
    def make(images, masks, **options):
        for part, names in (("images", images), ("masks", masks)):
            (tmp_path / part).mkdir()
            for name in names:
                (tmp_path / part / name).parent.mkdir(exist_ok=True)
                (tmp_path / part / name).touch()
        return pair_folders(tmp_path / "images", tmp_path / "masks", **options)

    return make


def test_cases_whose_names_differ_in_other_letters_only_stay_two(pair):
    found = pair(["Fäll.png", "Föll.png", "ä.png", "ö.png"], ["Fäll.png", "Föll.png", "ä.png", "ö.png"])
    assert [(p.name, p.images[0].name, p.mask.name) for p in found.pairs] == [
        ("F_ll", "Fäll.png", "Fäll.png"),
        ("F_ll_2", "Föll.png", "Föll.png"),
        ("case", "ä.png", "ä.png"),
        ("case_2", "ö.png", "ö.png"),
    ]


@pytest.mark.parametrize("part", ["images", "masks"])
@pytest.mark.parametrize("names", [["a.png", "a.tif"], ["a.nii.gz", "a.nii", "b.nii"], ["a.png", "a/slice.png"]])
def test_two_files_of_one_name_are_not_chosen_between(pair, part, names):
    with pytest.raises(DatasetError, match="the same name but for the ending. Keep one") as told:
        pair(*((names, ["a.png"]) if part == "images" else (["a.png"], names)))
    assert part in str(told.value)


def test_images_that_differ_only_in_words_of_no_meaning_are_left_over(pair):
    found = pair(["a_image.png", "a_raw.png", "b.png"], ["a.png", "b_mask.png", "c.png"])
    assert [p.name for p in found.pairs] == ["b"]
    assert [path.name for path in found.images] == ["a_image.png", "a_raw.png"]
    assert [path.name for path in found.masks] == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("images", "masks", "which", "twice"),
    [
        (["A.nii.gz", "a.nii.gz"], ["A.nii.gz", "a.nii.gz"], "images", "A.nii.gz and a.nii.gz"),
        (["A_0000.png", "a_0000.png"], ["a.png"], "images", "A_0000.png and a_0000.png"),
        (["c.png"], ["c.png", "c_mask.png"], "masks", "c.png and c_mask.png"),
    ],
)
def test_files_whose_names_do_not_tell_them_apart_are_named(pair, tmp_path, images, masks, which, twice):
    if (tmp_path.parent / tmp_path.name.upper()).exists():
        pytest.skip("on this disk such files cannot lie side by side")
    with pytest.raises(DatasetError) as told:
        pair(images, masks)
    assert told.value.message.startswith(f"{twice} in {tmp_path / which} have the same name but for upper and lower")


def test_why_files_are_left_over_is_true(pair, tmp_path):
    found = pair(["a_image.png", "a_raw.png", "b.png"], ["a.png", "b_mask.png", "c.png"])
    assert {path.name: why for path, why in why_left(found).items()} == dict.fromkeys(
        ("a_image.png", "a_raw.png", "a.png"), "several files have its name"
    )


def test_numbers_pair_what_words_do_not_unless_two_have_the_same(pair):
    found = pair(["scan 007.png", "slide 1.png", "tile 1.png"], ["patient_7_gt.png", "annotation 1.png"])
    assert [(p.name, p.mask.name) for p in found.pairs] == [("scan_007", "patient_7_gt.png")]
    assert [path.name for path in found.images] == ["slide 1.png", "tile 1.png"]


def test_channels_come_in_the_order_of_their_numbers_not_of_their_names(pair):
    found = pair(["a_ch10.png", "a_ch2.png", "a_ch1.png"], ["a.png"])
    assert [path.name for path in found.pairs[0].images] == ["a_ch1.png", "a_ch2.png", "a_ch10.png"]


@pytest.mark.parametrize("ends", [("_T1", "_FLAIR"), ("_T1", "_T2", "_FLAIR"), ("_T1", "_T2")])
def test_channels_are_found_where_the_number_of_a_case_would_find_its_mask_too(pair, ends):
    found = pair([f"sub-{i:02}{end}.nii.gz" for i in (1, 2) for end in ends], ["sub-01.nii.gz", "sub-02.nii.gz"])
    assert [(p.name, p.channels) for p in found.pairs] == [(f"sub-0{i}", tuple(sorted(ends))) for i in (1, 2)]
    assert not found.images


def test_numbers_find_no_mask_of_another_case_where_words_find_those_of_others(pair):
    names = ["ctrl_01.png", "pat_01.png", "pat_02.png"]
    found = pair(names, ["ctrl_01.png", "pat_02.png", "sham_01.png"])
    assert [(p.name, p.mask.name) for p in found.pairs] == [("ctrl_01", "ctrl_01.png"), ("pat_02", "pat_02.png")]
    assert [path.name for path in (*found.images, *found.masks)] == ["pat_01.png", "sham_01.png"]


def test_numbers_count_where_words_match_by_chance(pair):
    found = pair(["ct_1.png", "ct_2.png", "ct_3.png", "liver_4.png"], [f"liver_{i}.png" for i in (1, 2, 3, 4)])
    assert [(p.images[0].name, p.mask.name) for p in found.pairs] == [
        *((f"ct_{i}.png", f"liver_{i}.png") for i in (1, 2, 3)),
        ("liver_4.png", "liver_4.png"),
    ]


def test_numbers_do_not_count_where_words_match_as_often_as_not(pair):
    found = pair(["ctrl_1.png", "pat_2.png"], ["sham_1.png", "pat_2.png"])
    assert [(p.name, p.mask.name) for p in found.pairs] == [("pat_2", "pat_2.png")]


def test_of_two_files_that_are_the_same_channel_the_other_is_named(pair):
    found = pair(["a_c1.png", "a_ch1.png", "a_c2.png", "b_c1.png", "b_c2.png"], ["a.png", "b.png"])
    assert [[path.name for path in p.images] for p in found.pairs] == [
        ["a_c1.png", "a_c2.png"],
        ["b_c1.png", "b_c2.png"],
    ]
    assert {path.name: why for path, why in why_left(found).items()} == {"a_ch1.png": "another file is its channel"}
    assert [path.name for path in found.images] == ["a_ch1.png"]


def test_two_files_of_one_suffix_in_the_folder_of_a_case_are_not_chosen_between(pair):
    files = [f"{case}/{case}_{name}.png" for case in ("p1", "p2") for name in ("pre_T1", "post_T1", "T2")]
    with pytest.raises(DatasetError, match=r"p1_post_T1\.png and p1_pre_T1\.png in .*p1 both end in _T1"):
        pair(files, ["p1.png", "p2.png"], suffixes=("_T1", "_T2"))


def test_a_longer_suffix_tells_two_files_in_the_folder_of_a_case_apart(pair):
    files = [f"{case}/{case}_{name}.png" for case in ("p1", "p2") for name in ("pre_T1", "post_T1", "T2")]
    found = pair(files, ["p1.png", "p2.png"], suffixes=("_pre_T1", "_T2"))
    assert [[path.name for path in p.images] for p in found.pairs] == [
        [f"{case}_pre_T1.png", f"{case}_T2.png"] for case in ("p1", "p2")
    ]


def test_numbers_are_the_same_with_zeros_before_them(pair):
    found = pair(["cell_9.png", "cell_10.png"], ["cell_009.png", "cell_10.png"])
    assert [(p.name, p.mask.name) for p in found.pairs] == [("cell_10", "cell_10.png"), ("cell_9", "cell_009.png")]


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        (["p1/p1_T1", "p1/p1_FLAIR", "p2/p2_T1", "p2/p2_FLAIR"], ["FLAIR", "T1"]),
        (["p1/ax_T1", "p1/bx_T2", "p2/dx_T1", "p2/cx_T2"], ["T1", "T2"]),
        (["p1/c_2", "p1/c_10", "p2/c_10", "p2/c_2"], ["2", "10"]),
    ],
)
def test_channels_in_the_folder_of_a_case_are_told_by_what_their_names_share(pair, files, channels):
    found = pair([f"{name}.png" for name in files], ["p1.png", "p2.png"])
    assert [[path.stem.rpartition("_")[2] for path in p.images] for p in found.pairs] == [channels, channels]


def test_suffixes_tell_the_channels_in_the_folder_of_a_case_and_other_files_are_left_over(pair):
    found = pair(["p1/t2.png", "p1/t1.png", "p1/x.png", "p2/p2_t1.png", "p2/p2_t2.png"], ["p1.png", "p2.png"],
                 suffixes=("_t2", "_t1"))  # fmt: skip
    assert [[path.stem[-2:] for path in p.images] for p in found.pairs] == [["t2", "t1"], ["t2", "t1"]]
    assert [path.name for path in found.images] == ["x.png"]


def test_the_longest_suffix_counts(pair):
    found = pair(["a_SE.png", "a_BSE.png"], ["a.png"], suffixes=("SE", "BSE"))
    assert [(p.name, [path.name for path in p.images]) for p in found.pairs] == [("a", ["a_SE.png", "a_BSE.png"])]


def test_channels_by_suffix_come_in_the_order_of_the_suffixes(pair):
    found = pair(["a_rot.png", "a_grün.png"], ["a.png"], suffixes=("_rot", "_grün"))
    assert [path.name for path in found.pairs[0].images] == ["a_rot.png", "a_grün.png"]


def test_a_folder_of_images_is_a_case_with_a_file_per_channel(pair):
    found = pair(["case 1/t2.png", "case 1/t1.png", "case 1/notes.txt"], ["case_1.png"])
    assert [(p.name, [path.name for path in p.images]) for p in found.pairs] == [("case_1", ["t1.png", "t2.png"])]


def test_a_case_is_not_named_as_preprocessed_labels_are(pair):
    found = pair(["x_SEG_seg.png"], ["x_seg_SEG.png"])
    assert not found.pairs[0].name.endswith("_seg")


def test_hidden_files_and_folders_without_images_are_no_images(pair):
    found = pair(["a.png", ".a.png", "notes.txt", "notes/read me.txt"], ["a.png", "Thumbs.db"])
    assert [p.name for p in found.pairs] == ["a"]
    assert not found.images
    assert not found.masks


@pytest.mark.parametrize(
    ("images", "masks", "said"),
    [
        ([], ["a.png"], "contains no images"),
        (["a.png"], ["notes.txt"], "masks contains no images"),
        (["image.png"], ["mask.png"], r"e\.g\. image\.png and mask\.png"),
    ],
)
def test_what_cannot_be_paired_is_told(pair, images, masks, said):
    with pytest.raises(DatasetError, match=said):
        pair(images, masks)


@pytest.mark.parametrize("ends", [("_BSE", "_SE"), ("_DAPI", "_GFP"), ("-red", "-rose", "-green")])
def test_channels_are_found_from_any_last_word_that_all_cases_have(pair, ends):
    found = pair([f"s{i}{end}.tif" for i in (1, 2) for end in ends], ["s1.tif", "s2.tif"])
    assert [[path.name for path in p.images] for p in found.pairs] == [
        [f"s{i}{end}.tif" for end in sorted(ends)] for i in (1, 2)
    ]
    assert not found.images + found.masks


def test_last_words_that_are_not_everywhere_are_no_channels(pair):
    with pytest.raises(DatasetError, match="No image in"):
        pair(["a_SE.tif", "a_BSE.tif", "b_SE.tif"], ["a.tif", "b.tif"])


def test_one_folder_is_not_images_and_masks_at_once(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match="are the same folder.*a folder of their own"):
        pair_folders(tmp_path, tmp_path / ".." / tmp_path.name)


def test_a_file_of_the_same_name_can_be_left_out(pair):
    found = pair(["a.png", "a.tif", "b.png"], ["a.png", "b.png"], skip=("a.tif",))
    assert [p.images[0].name for p in found.pairs] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("images", "there", "found"),
    [
        ("images", ["masks"], "masks"),
        ("embryos", ["Labels"], "Labels"),
        ("pictures", ["ground_truth", "readme"], "ground_truth"),
        ("imagesTr", ["labelsTr", "imagesTs", "labelsTs", "masks"], "labelsTr"),
        ("imagesTr", ["masks"], None),
        ("images", ["masks", "labels"], None),
        ("images", ["maskings"], None),
        ("masks", [], None),
        ("images", [], None),
    ],
)
def test_a_folder_of_masks_is_proposed_only_where_it_is_the_only_one(tmp_path, images, there, found):
    for name in (images, *there):
        (tmp_path / name).mkdir()
    (tmp_path / "segmentations").touch()  # a file
    assert masks_beside(tmp_path / images) == (None if found is None else tmp_path / found)
    assert masks_beside(tmp_path / "gone" / "images") is None

"""What speaks against classes is said with the values as they are typed, and nothing is said of values that count."""

from __future__ import annotations

import pytest

from napari_nnunet.formats.masks.facts import FolderFacts, MaskFacts
from napari_nnunet.formats.masks.objections import gapless, many, objection_to
from napari_nnunet.schema.dataset import BACKGROUND


def folder(*masks):
    """Return what a folder of masks holds, each a count of voxels by value."""
    return FolderFacts({f"c{i}": MaskFacts(mask, len(mask)) for i, mask in enumerate(masks)})


def many_of(*values, rare=()):
    return {**dict.fromkeys(values, 100_000), **dict.fromkeys(rare, 3)}


@pytest.mark.parametrize(
    "masks",
    [
        (many_of(0, 1),),
        (many_of(0, 1, 2, 3), many_of(0, 2)),
        (many_of(0), many_of(0, 1)),
        (many_of(0, 1), many_of(0, 2)),  # of two masks, values that count from 1 on are classes
        (many_of(0, 255), many_of(0, 255)),
        (many_of(0, 1, 2, rare=(3,)),),  # rare, but it counts on
        (many_of(0, 10, 20), many_of(0, 10, 20)),
        (many_of(0),),
        ({0: 100_000, 1: 9_000, 2: 9_000, 3: 900_000},),  # a large class beside a large background
        ({0: 1_000, 1: 9_000, 2: 900_000},),
        (many_of(7),),  # a single value alone: nothing else could be the background
    ],
)
def test_values_that_can_be_classes_are_not_asked_about(masks):
    assert objection_to(folder(*masks)) is None


@pytest.mark.parametrize(
    ("masks", "said", "ignored"),
    [
        ((many_of(-1, 0, 1),), "the value -1, which often means", (-1,)),
        ((many_of(-1, 0, 1, 255),), "the value -1, which often means", (-1, 255)),
        ((many_of(-3, -2, 0, 5),), "2 values below 0, from -3 on; they may be images", (-3,)),
        ((many_of(0, 1, 2, 255),), "The value 255 lies apart from the others; it often means", (255,)),
        ((many_of(0, 1, 254, 255),), "The values 254, 255 lie apart from the others; they often mean", (254, 255)),
        ((many_of(0, 1, 2**32 - 1),), "The value 4294967295 lies apart", (2**32 - 1,)),
        ((many_of(-2147483648, 0, 1),), "the value -2147483648, which", (-2147483648,)),
        (({0: 4_000, 1: 4_000, 2: 7_000, 3: 6_000, 4: 3_000_000},), "The value 4 has 99 % of the voxels", (4,)),
    ],
)
def test_what_often_means_not_annotated_is_asked_about_as_it_would_be_typed(masks, said, ignored):
    found = objection_to(folder(*masks))
    assert said in found.sentence
    assert found.ignored == ignored
    assert not found.names


@pytest.mark.parametrize("values", [(0, 254, 255), (0, 1, 2, 3), (0, *range(1, 128)), (0, 2, 255)])
def test_high_values_that_are_led_up_to_or_stand_alone_are_no_void(values):
    found = objection_to(folder(many_of(*values)))
    assert found is None or not found.ignored


def test_a_value_of_its_own_in_every_mask_is_one_class_or_several():
    found = objection_to(folder(many_of(0, 5), many_of(0, 1_000_017), many_of(0)))
    assert "not the same: 5, 1000017. One class, or several?" in found.sentence
    assert found.names == {5: "class_1", 1_000_017: "class_1"}
    assert objection_to(folder(*(many_of(0, value) for value in (1, 2, 3)))).names == dict.fromkeys(
        (1, 2, 3), "class_1"
    )
    assert objection_to(folder(*(many_of(0, value) for value in (1, 2, 1, 2)))) is None


def test_long_lists_of_values_say_how_many_more_there_are():
    found = objection_to(folder(*(many_of(0, 10 * value) for value in range(1, 12))))
    assert "10, 20, 30, 40, 50, 60, 70, 80 and 3 more" in found.sentence


def test_few_voxels_apart_from_the_others_may_be_slips():
    found = objection_to(folder(many_of(0, 1, 4, rare=(3, 17)), many_of(0, 1, 4)))
    assert "few voxels of 3 (3 voxels), 17 (3 voxels), apart" in found.sentence
    assert found.names == {1: "class_1", 4: "class_2", 3: BACKGROUND, 17: BACKGROUND}
    everywhere = folder(many_of(0, 1, 4, rare=(17,)), many_of(0, 1, 4, rare=(17,)))
    assert objection_to(everywhere) is None  # in every mask: a small class
    assert "1000001 (1 voxel)" in objection_to(folder({0: 9, 1: 10**6, 1_000_001: 1})).sentence


@pytest.mark.parametrize(
    ("mask", "ground"),
    [({1: 10, 2: 90}, 1), ({1: 90, 2: 10}, 1), ({1: 10, 2: 90, 3: 20}, 2), ({4: 50, 5: 50, 6: 1}, 4)],
)
def test_without_a_0_the_background_is_asked_for(mask, ground):
    found = objection_to(folder({value: 1000 * count for value, count in mask.items()}))
    assert "and no 0. Which is the background?" in found.sentence
    assert found.names[ground] == BACKGROUND
    assert sorted(set(found.names.values()) - {BACKGROUND}) == [f"class_{i}" for i in range(1, len(mask))]


@pytest.mark.parametrize(
    ("values", "counts"),
    [((), True), ((1,), True), ((2, 1), True), ((0, 1), False), ((1, 3), False), ((2,), False), ((1.0, 2.5), False)],
)
def test_values_count_from_1_without_a_gap(values, counts):
    assert gapless(values) is counts


@pytest.mark.parametrize(
    ("count", "what", "said"), [(1, "class", "1 class"), (2, "class", "2 classes"), (0, "voxel", "0 voxels")]
)
def test_a_number_has_its_noun(count, what, said):
    assert many(count, what) == said

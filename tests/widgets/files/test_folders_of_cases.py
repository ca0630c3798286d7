"""A folder of cases within a dataset opens as its dataset does; other folders stay what they are."""

from __future__ import annotations

import pytest

from helpers import make_dataset
from napari_nnunet.widgets.files.reader import get_reader


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr", "imagesTs"])
def test_a_folder_of_cases_opens_as_its_dataset(home, name):
    raw = make_dataset(home, cases=1)
    folder = raw / name
    folder.mkdir(exist_ok=True)
    reader = get_reader(str(folder))
    assert reader is not None
    assert [kind for *_, kind in reader(str(folder))] == [kind for *_, kind in get_reader(str(raw))(str(raw))]


def test_such_a_name_without_a_dataset_is_any_folder(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    assert get_reader(str(tmp_path / "imagesTr")) is None

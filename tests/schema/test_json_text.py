"""Every JSON file is read by one reader: in any encoding that can be told, within limits, or refused in a sentence."""

from __future__ import annotations

import json
import re
import time

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.schema import json_text
from napari_nnunet.schema.json_text import json_object, json_value, message, read_json, read_object

CONTENT = {"name": "Kühe", "labels": {"background": 0, "Größe": 1}}


def refused(text, sentence):
    with pytest.raises(DatasetError, match=sentence):
        json_value(text, "a.json", DatasetError)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "cp1252"]
)
def test_a_file_is_read_in_the_encoding_it_was_saved_in(tmp_path, encoding):
    path = tmp_path / "dataset.json"
    path.write_bytes(json.dumps(CONTENT, ensure_ascii=False).encode(encoding))
    assert read_object(path, DatasetError) == CONTENT


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81", b"\x80\x81\x82", b"\xff\xfe\x00\xd8\x00"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"dataset\.json is (not text in UTF-8, UTF-16 or cp1252|not valid JSON)"):
        read_json(path, DatasetError)


def test_a_folder_in_the_place_of_a_file_is_named_as_one(tmp_path):
    with pytest.raises(DatasetError, match="is a folder; a file is expected"):
        read_json(tmp_path, DatasetError)


def test_a_file_of_a_size_that_none_has_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_text, "LARGEST", 100)
    path = tmp_path / "dataset.json"
    path.write_text("[" + "1," * 100 + "1]")
    with pytest.raises(DatasetError, match="has more than 100 bytes"):
        json_text.read_text(path, DatasetError, largest=100)


@pytest.mark.parametrize("depth", [101, 500, 5_000, 100_000])
def test_nesting_that_no_file_has_is_refused(depth):
    refused("[" * depth + "]" * depth, "nests objects and lists more than 100 deep")
    refused('{"a":' * depth + "1" + "}" * depth, "nests objects and lists more than 100 deep")


def test_nesting_that_a_file_may_have_is_read():
    assert json_value("[" * 50 + "]" * 50, "a.json", DatasetError)


@pytest.mark.parametrize(("digits", "written"), [(19, "19"), (400, "400"), (6_000, "6,000")])
def test_a_number_of_more_digits_than_any_count_is_refused_with_its_key(digits, written):
    refused('{"a": {"b": [1, -' + "9" * digits + "]}}", rf"a\.json: 'a\.b\.1' is a number of {written} digits")


def test_a_text_that_cannot_be_written_again_is_refused():
    refused(r'{"name": "\ud800"}', "half of a character")
    assert json_value(r'{"name": "\ud83d\ude00"}', "a.json", DatasetError) == {"name": "😀"}


@pytest.mark.parametrize(("text", "sentence"), [("{", "is not valid JSON"), ("[1]", "a JSON object, not list")])
def test_what_is_no_object_is_said(text, sentence):
    with pytest.raises(DatasetError, match=f"a.json .*{sentence}"):
        json_object(text, "a.json", DatasetError)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('{"a": 1, // one\n "b": 2}', "no comments: remove what begins with //"),
        ('# mine\n{"a": 1}', "no comments: remove what begins with #"),
        ('{"a": 1,\n}', "Remove the comma before }"),
        ('{"a": [1, 2, ]}', "Remove the comma before ]"),
        ("{'a': 1}", "double quotes only; this one begins with '"),
        ("{\u201ca\u201d: 1}", "straight double quotes only; this one begins with \u201c"),
        ('{"a": None}', "true, false and null; None is Python's"),
        (" ", "The file is empty"),
    ],
)
def test_what_people_write_that_json_does_not_have_is_named(text, remedy):
    refused(text, f"is not valid JSON: .*{re.escape(remedy)}")


def test_a_key_that_is_written_twice_is_refused_where_the_values_differ():
    """The first of two classes, or of two configurations, was dropped without a word."""
    refused('{"labels": {"liver": 1, "liver": 2}}', r"a\.json: 'liver' is written twice .* as 1 and as 2\. Keep one")
    assert json_value('{"a": 1, "b": {"c": 2, "c": 2}, "a": 1}', "a.json", DatasetError) == {"a": 1, "b": {"c": 2}}


def test_keys_are_held_against_each_other_as_they_are_written():
    refused('{"a": 1, "a": true}', "as 1 and as True")
    assert json_value('{"a": NaN, "a": NaN}', "a.json", DatasetError)
    refused(f'{{"a": 1, "b": [{"0, " * (1 << 20)}0], "a": 2}}', "is written twice")


def test_a_message_that_cannot_be_read_says_nothing(tmp_path):
    path = tmp_path / "control.json"
    for content in (b"", b"{", b"\xff\xff", b"[" * 100_000, b'{"a": ' + b"9" * 6_000 + b"}", b" " * (2 << 20) + b"{}"):
        path.write_bytes(content)
        assert message(path) == {}
    assert message(tmp_path) == message(tmp_path / "missing.json") == {}


def test_looking_for_excess_takes_little_of_the_time_of_reading():
    text = json.dumps({str(i): [1.5, i, "x"] for i in range(60_000)})

    def seconds(read):
        begun = time.process_time()
        read(text)
        return time.process_time() - begun

    # in turns, for other work slows both down alike
    times = [(seconds(lambda text: json_value(text, "a.json", DatasetError)), seconds(json.loads)) for _ in range(8)]
    assert min(own / plain for own, plain in times) < 1.3

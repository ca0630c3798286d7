"""The journal of finished cases loses nothing but the line that a kill tore."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.formats.preprocessed.journal import Journal


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(min_size=1), st.text() | st.none()), min_size=1, max_size=6), st.data())
def test_a_torn_line_loses_only_itself(tmp_path_factory, entries, data):
    path = tmp_path_factory.mktemp("journal") / "x.cases.jsonl"
    journal = Journal(path)
    for case, digest in entries[:-1]:
        journal.note([case], digest)
    whole = path.stat().st_size if path.exists() else 0
    journal.note([entries[-1][0]], entries[-1][1])
    cut = data.draw(st.integers(whole, path.stat().st_size - 2))
    path.write_bytes(path.read_bytes()[:cut])
    expected = dict(entries[:-1])
    Journal(path).note(["after"], "digest")
    expected["after"] = "digest"
    assert Journal(path).read() == {case: digest for case, digest in expected.items() if digest is not None}

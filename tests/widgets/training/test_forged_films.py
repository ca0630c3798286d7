"""The film of a training may come from somebody else: what is no picture is not shown, whatever it says it holds."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.errors import ImageError
from napari_nnunet.widgets.training.layers import FilmLayers


def header(shape, kind="|u1"):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("forged", [
    header("(1000000, 1000000)"), header("(4, 4)")[:40], header("(9999999999999, 9999999999999)"), header("(2, 2, 2)") + bytes(8),
    header("(4, 4)", "|O") + bytes(128), header("(2, 2)", "<c8") + bytes(32), b"", b"PK\3\4", b"x" * 200,
], ids=range(9))  # fmt: skip
def test_a_film_of_other_things_than_pictures_is_a_sentence(tmp_path, forged):
    np.save(tmp_path / "reference.npy", np.zeros((4, 4), np.uint8))
    (tmp_path / "image.npy").write_bytes(forged)
    with pytest.raises(ImageError, match=r"holds no slice that can be shown: image\.npy and reference\.npy"):
        FilmLayers(ViewerModel(), tmp_path, None)

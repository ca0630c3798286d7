"""Codes of classes in DICOM: common anatomy by its name, the rest by a table that anybody can fill."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.tables import cell, read_rows

#: Scheme of codes that mean something only where the file was made (PS3.16, 8).
LOCAL = "99NNUNET"
_STRUCTURE = "Anatomical Structure", "91723000"
_TISSUE = "Tissue", "85756007"
_ABNORMAL = "Morphologically Abnormal Structure", "49755003"
_SIDES = {"left": "7771000", "right": "24028007"}
#: SNOMED CT codes of DICOM's own tables (PS3.16, CID 7151), names as there.
_CODES: dict[tuple[str, str], dict[str, str]] = {
    _STRUCTURE: {
        "adrenal gland": "23451007", "amygdala": "4958002", "aorta": "15825003", "bladder": "89837001",
        "brain": "12738006", "brain stem": "119238007", "breast": "76752008", "bronchus": "955009",
        "carotid artery": "69105007", "caudate nucleus": "11000004", "cerebellum": "113305005",
        "clavicle": "51299004", "colon": "71854001", "common bile duct": "79741001", "coronary artery": "41801008",
        "corpus callosum": "88442005", "diaphragm": "5798000", "duodenum": "38848004", "esophagus": "32849002",
        "eye": "81745001", "femoral artery": "7657000", "femur": "71341001", "fibula": "87342007",
        "fourth ventricle": "35918002", "frontal lobe": "83251001", "gallbladder": "28231008",
        "globus pallidus": "14738005", "heart": "80891009", "hepatic vein": "8993003", "hip": "29836001",
        "hip joint": "24136001", "hippocampus": "5366008", "humerus": "85050009", "iliac artery": "10293006",
        "inferior vena cava": "64131007", "insula": "36169008", "kidney": "64033007", "large intestine": "14742008",
        "larynx": "4596009", "lateral ventricle": "66720007", "left atrium": "82471001", "left ventricle": "87878005",
        "liver": "10200004", "lung": "39607008", "mandible": "91609006", "maxilla": "70925003",
        "occipital lobe": "31065004", "optic chiasm": "244453006", "ovary": "15497006", "pancreas": "15776009",
        "parietal lobe": "16630005", "parotid gland": "45289007", "patella": "64234005", "pelvis": "816092008",
        "pericardium": "76848001", "pharynx": "54066008", "pituitary": "56329008", "portal vein": "32764006",
        "prostate": "41216001", "pulmonary artery": "81040000", "putamen": "89278009", "rectum": "34402009",
        "rib": "113197003", "right atrium": "73829009", "right ventricle": "53085002", "sacrum": "54735007",
        "scapula": "79601000", "skull": "89546000", "small intestine": "30315005", "spinal cord": "2748008",
        "spleen": "78961009", "sternum": "56873002", "stomach": "69695003", "submandibular gland": "54019009",
        "superior vena cava": "48345005", "temporal lobe": "78277001", "testis": "40689003", "thalamus": "42695009",
        "third ventricle": "49841001", "thymus": "9875009", "thyroid": "69748006", "tongue": "21974007",
        "tooth": "38199008", "trachea": "44567001", "uterus": "35039007", "vertebra": "51282000",
    },
    _TISSUE: {
        "artery": "51114001", "blood": "87612001", "blood vessel": "59820001", "bone": "3138006",
        "cartilage": "309312004", "cerebrospinal fluid": "65216001", "fat": "55603005", "gray matter": "389081007",
        "ligament": "52082005", "lymph node": "59441001", "meniscus": "74135004", "muscle": "91727004",
        "nerve": "91728009", "skin": "39937001", "tendon": "13024002", "vein": "29092000",
        "white matter": "389080008",
    },
    _ABNORMAL: {
        "cyst": "367643001", "edema": "79654002", "hemorrhage": "50960005", "lesion": "52988006", "mass": "4147007",
        "necrosis": "6574001", "neoplasm": "108369006", "nodule": "27925004", "thrombus": "396339007",
    },
}  # fmt: skip
_ALSO = {
    "adrenal": "adrenal gland", "brainstem": "brain stem", "csf": "cerebrospinal fluid", "caudate": "caudate nucleus",
    "gall bladder": "gallbladder", "grey matter": "gray matter", "haemorrhage": "hemorrhage",
    "large bowel": "large intestine", "oedema": "edema", "oesophagus": "esophagus", "pallidum": "globus pallidus",
    "postcava": "inferior vena cava", "prostate gland": "prostate", "small bowel": "small intestine",
    "teeth": "tooth", "thyroid gland": "thyroid", "tumor": "neoplasm", "tumour": "neoplasm",
    "urinary bladder": "bladder", "vertebrae": "vertebra", "vessel": "blood vessel",
}  # fmt: skip
_COLUMNS = tuple(f"{what}{part}" for what in ("category", "type", "side") for part in ("", "_scheme", "_meaning"))
_LONGEST_CODE, _LONGEST_MEANING = 16, 64  # characters of SH and LO


@dataclass(frozen=True)
class Code:
    """A code of a scheme, with what it means in words."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class ClassCodes:
    """How DICOM says what a class is.

    Parameters
    ----------
    category : Code
        "Anatomical Structure", "Tissue", ...
    type : Code
        "Kidney", ...
    side : Code or None
        "Left" or "Right", where the name says it.
    """

    category: Code
    type: Code
    side: Code | None = None

    @property
    def is_local(self) -> bool:
        """Whether nobody else knows the code."""
        return self.type.scheme == LOCAL


def codes_of(name: str, number: int, table: Mapping[str, ClassCodes] | None = None) -> ClassCodes:
    """Return the codes of a class: those of the table, else of common anatomy by its name, else local ones.

    Parameters
    ----------
    name : str
        Of the class: "left_kidney", "Liver".
    number : int
        Of its segment, for a local code.
    table : mapping, optional
        As :func:`read_codes` returns it.
    """
    if table is not None and name in table:
        return table[name]
    words = re.sub(r"[\W_]+", " ", name.lower()).strip()
    apart = [word for word in words.split() if word in _SIDES]
    bare = " ".join(word for word in words.split() if word not in _SIDES)
    for text, side in ((words, ""), (bare, apart[0] if len(apart) == 1 else "")):
        if (text == words or side) and (found := _known(text)) is not None:
            place = Code(_SIDES[side], "SCT", side.capitalize()) if side else None
            return ClassCodes(found[0], found[1], place)
    meaning = name if len(name) <= _LONGEST_MEANING else name[: _LONGEST_MEANING - 1] + "…"
    return ClassCodes(_sct(_STRUCTURE), Code(f"CLASS-{number}", LOCAL, meaning))


def _known(text: str) -> tuple[Code, Code] | None:
    for name in (text, text.removesuffix("s")):
        own = _ALSO.get(name, name)
        for category, codes in _CODES.items():
            if own in codes:
                return _sct(category), Code(codes[own], "SCT", own.capitalize())
    return None


def _sct(category: tuple[str, str]) -> Code:
    return Code(category[1], "SCT", category[0])


def text_of_codes(codes: Mapping[str, ClassCodes]) -> str:
    """Return a table of codes as CSV, one line per class, for people to change."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *_COLUMNS])
    for name, own in codes.items():
        parts = [part for code in (own.category, own.type, own.side) for part in _cells(code)]
        writer.writerow(map(cell, [name, *parts]))
    return text.getvalue()


def _cells(code: Code | None) -> tuple[str, str, str]:
    return ("", "", "") if code is None else (code.value, code.scheme, code.meaning)


def read_codes(path: Path) -> dict[str, ClassCodes]:
    """Read a table of codes: a CSV file as :func:`text_of_codes` writes it; lines without a type are passed over.

    Raises
    ------
    SettingsError
        If it cannot be read, lacks a column, or has a code without its scheme or meaning.
    """
    rows = read_rows(path, SettingsError, ("class", *_COLUMNS[:6]))
    if not rows:
        raise SettingsError(f"{path} has no lines. Start from the codes.csv that is written beside segmentations.")
    found = {}
    for number, row in rows:
        cells = {column: row.get(column, "") for column in ("class", *_COLUMNS)}
        if cells["type"]:
            codes = [_code(cells, what, path, number) for what in ("category", "type", "side")]
            if codes[0] is None or codes[1] is None:
                raise SettingsError(f"{path}, line {number}: {cells['class']} has no category.")
            found[cells["class"]] = ClassCodes(codes[0], codes[1], codes[2])
    return found


def _code(cells: Mapping[str, str], what: str, path: Path, line: int) -> Code | None:
    value, scheme, meaning = (cells[f"{what}{part}"] for part in ("", "_scheme", "_meaning"))
    if not (value or scheme or meaning):
        return None
    if not (value and scheme and meaning):
        raise SettingsError(
            f"{path}, line {line}: the {what} of {cells['class']} needs a code, its scheme and its meaning, such as "
            "10200004, SCT, Liver."
        )
    if max(len(value), len(scheme)) > _LONGEST_CODE or len(meaning) > _LONGEST_MEANING:
        raise SettingsError(
            f"{path}, line {line}: the {what} of {cells['class']} is too long; DICOM allows {_LONGEST_CODE} characters "
            f"of code and scheme, {_LONGEST_MEANING} of meaning."
        )
    return Code(value, scheme, meaning)


def refuse_unknown(table: Mapping[str, ClassCodes], names: Iterable[str], path: Path) -> None:
    """Refuse a table with classes that there are not: a slip of the pen would leave a class without its code.

    Raises
    ------
    SettingsError
        If the table has another class.
    """
    known = list(names)
    others = [name for name in table if name not in known]
    if others:
        raise SettingsError(
            f"The table of codes {path} has {', '.join(others)}, but the classes are {', '.join(known)}."
        )

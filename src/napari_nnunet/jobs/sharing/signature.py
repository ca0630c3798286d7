"""Who wrote a file: Ed25519 signatures, by `cryptography`, an extra."""

from __future__ import annotations

import base64
import binascii
from importlib import import_module
from pathlib import Path

from napari_nnunet.errors import ModelError, ResourceError, SettingsError

SIGNATURE_ENDING = ".sig"
_KEY, _SIGNATURE = 32, 64  # bytes
_LARGEST = 1 << 10  # bytes of a file with a signature


def public_key(text: str) -> bytes:
    """Return an Ed25519 key as its 32 bytes, from base64.

    Raises
    ------
    SettingsError
        If it is none.
    """
    key = _decoded(text.encode())
    if key is None or len(key) != _KEY:
        raise SettingsError(
            f"{text[:100]!r} is not a public key of Ed25519, which is {_KEY} bytes in base64, 44 letters. "
            "Copy it again from whoever shares the models."
        )
    return key


def check_signature(content: bytes, signature: bytes, key: bytes, name: str) -> None:
    """Return if a signature of a content was made with the private part of a key.

    Parameters
    ----------
    content : bytes
        What was signed.
    signature : bytes
        64 bytes, or these in base64, in one line or more.
    key : bytes
        The public key.
    name : str
        Of the file, for sentences.

    Raises
    ------
    ModelError
        If it was not, or it is no signature.
    ResourceError
        If the library is not installed.
    """
    raw = signature if len(signature) == _SIGNATURE else _decoded(signature)
    if raw is None or len(raw) != _SIGNATURE:
        raise unsigned(name, "what lies beside it is not a signature of Ed25519")
    try:
        ed25519 = import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        wrong = import_module("cryptography.exceptions").InvalidSignature
    except ImportError as error:
        raise ResourceError(
            f"{name} must be signed by a key, and checking that needs 'cryptography', which is not installed. Install "
            "it with 'pip install napari-nnunet[signed]'. Until then nothing of it is used."
        ) from error
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(raw, content)
    except wrong as error:
        raise ModelError(
            f"{name} is not signed by the key that its address demands: it was changed, or somebody else wrote it. "
            "Nothing of it is used. Ask whoever shares the models."
        ) from error


def read_signature(path: Path, name: str) -> bytes:
    """Return what a file with a signature holds.

    Raises
    ------
    ModelError
        If there is none, or it is too long for one.
    """
    try:
        content = path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST else b""
    except OSError:
        content = b""
    if not content:
        raise unsigned(name, f"{path.name} beside it is missing, empty or none")
    return content


def unsigned(name: str, why: str) -> ModelError:
    """Return the error of a file without a signature."""
    return ModelError(
        f"{name} has no signature that can be read ({why.rstrip('.')}), but its address demands one. Nothing of it is "
        "used. Ask whoever shares the models."
    )


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None

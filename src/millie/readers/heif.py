"""HEIF and HEIC, the photographs of phones: known by their first bytes, opened by an extra.

Owns the signature and the way to the decoder (libheif with libde265, in the wheels of pi-heif under
LGPL-3.0; the extra ``heic``). Such files are decoded only in the process with limits (apart.py).

Source: ISO/IEC 23008-12, 10.2 (brands).
"""

from __future__ import annotations

import importlib

from millie.errors import MissingPackageError

EXTENSIONS = frozenset({".heic", ".heif"})

_BRANDS = frozenset({
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
})  # fmt: skip


def is_heif(start: bytes) -> bool:
    """Whether a file that begins so is HEIF; its first 12 bytes are looked at."""
    return start[4:8] == b"ftyp" and start[8:12] in _BRANDS


def teach_pillow(name: str) -> None:
    """Let Pillow open HEIF in this process.

    Args:
        name: the file, for the message.

    Raises:
        MissingPackageError: the extra is not installed.
    """
    try:
        heif = importlib.import_module("pi_heif")
    except ImportError as error:
        raise MissingPackageError(
            f"{name}: HEIC needs pi-heif, which is not installed: pip install 'millie[heic]', or "
            "export it as JPEG (on the phone: most compatible format)"
        ) from error
    heif.options.DECODE_THREADS = 1  # each has memory of its own, and memory is limited
    heif.register_heif_opener(thumbnails=False)

"""Keeps libtiff, which Pillow decodes compressed TIFF with, from writing to the terminal.

What it finds wrong reaches us as the decoder's error, and is told once, with the file's name.
"""

from __future__ import annotations

import ctypes
from functools import cache

from PIL import _imaging


@cache
def hush() -> None:
    """Switch off libtiff's own messages for this process, where it is a library of its own."""
    try:
        library = ctypes.CDLL(_imaging.__file__)  # finds what it is linked to as well
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    except (AttributeError, OSError):
        return  # linked in statically: its lines are harmless

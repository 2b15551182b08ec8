"""Which code made a file: a digest over the package's own modules.

What is kept between runs (bags, embeddings) names it, so that an upgrade that changes the result
is not mixed with what an older release left. A version number kept by hand would be forgotten.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files


@cache
def code_digest(*parts: str) -> str:
    """SHA-256 (hex) over files of the package, weights included.

    Args:
        parts: files, or folders (their files, not folders below), relative to the package.

    Raises:
        FileNotFoundError: the package has no such part.
    """
    found = []
    for part in parts:
        place = files("millie") / part
        for file in [place] if place.is_file() else place.iterdir():
            if file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                found.append((part, file.name, digest))
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()

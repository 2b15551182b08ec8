from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CODE = """
import sys
from pathlib import Path
from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers.images import read_image
from millie.types import ImageSource
try:
    read_image(ImageSource(Path(sys.argv[1]), "a.tif"), ReadingConfig())
except ImageError:
    sys.exit(3)
"""


def test_what_libtiff_finds_wrong_is_an_error_and_no_line_on_the_terminal(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(image).save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[3000:3400] = bytes((b * 7 + 13) % 256 for b in data[3000:3400])
    path.write_bytes(data)
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", CODE, str(path)], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (3, "")

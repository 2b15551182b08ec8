"""Photographs of phones (HEIC): written by pillow-heif, which is no extra, read by pi-heif."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError, ImageTooLargeError, MissingPackageError
from millie.readers.cohort import read_folders
from millie.readers.heif import is_heif, teach_pillow
from millie.readers.images import read_image
from millie.types import ImageSource

WRITE = """
import sys, pillow_heif
from PIL import Image
pillow_heif.register_heif_opener()
image = Image.open(sys.argv[1])
exif = image.getexif()
if int(sys.argv[3]):
    exif[0x0112] = int(sys.argv[3])
image.save(sys.argv[2], format="HEIF", quality=95, exif=exif.tobytes())
"""  # its own process: it brings another copy of the library


def heic(folder: Path, pixels: np.ndarray, orientation: int = 0) -> Path:
    pytest.importorskip("pi_heif", reason="pip install 'millie[heic]'")
    pytest.importorskip("pillow_heif", reason="needs pillow-heif, to write")
    Image.fromarray(pixels).save(folder / "plain.png")
    path = folder / "IMG_0001.HEIC"
    subprocess.run(  # noqa: S603
        [sys.executable, "-c", WRITE, str(folder / "plain.png"), str(path), str(orientation)],
        check=True,
    )
    return path


def scene(height: int = 240, width: int = 360) -> np.ndarray:
    """Smooth colours, each quarter another."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [255 * x / width, 255 * y / height, 128 + 0 * x], axis=2
    ).astype(np.uint8)  # fmt: skip


def read(path: Path, config: ReadingConfig | None = None) -> np.ndarray:
    return read_image(ImageSource(path, path.name), config or ReadingConfig()).image


def test_a_photograph_is_read_like_any_other(tmp_path: Path) -> None:
    path = heic(tmp_path, scene())
    found = read(path)
    assert found.shape == (240, 360, 3)
    assert np.abs(found.astype(int) - scene()).mean() < 4
    (tmp_path / "plain.png").unlink()
    (patient,) = read_folders([tmp_path]).patients
    assert [image.path.name for image in patient.images] == ["IMG_0001.HEIC"]


def test_a_phone_held_upright_gives_an_upright_picture(tmp_path: Path) -> None:
    found = read(heic(tmp_path, scene(), orientation=6))  # to be turned clockwise by a quarter
    assert found.shape == (360, 240, 3)
    assert np.abs(found.astype(int) - np.rot90(scene(), -1)).mean() < 4


def test_damaged_and_huge_files_are_refused(tmp_path: Path) -> None:
    path = heic(tmp_path, scene())
    with pytest.raises(ImageTooLargeError, match="its header states 360 x 240 px"):
        read(path, ReadingConfig(max_field_megapixels=0.01))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:200] + bytes(len(whole) - 200), whole[:12]):
        path.write_bytes(content)
        with pytest.raises(ImageError):
            read(path)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[heic\]', or export"):
        teach_pillow("IMG_0001.HEIC")


def test_what_is_heif_is_told_by_its_first_bytes() -> None:
    assert is_heif(b"\0\0\0\x24ftypheic")
    assert is_heif(b"\0\0\0\x24ftypmif1\0")
    assert not is_heif(b"\0\0\0\x24ftypqt  ")
    assert not is_heif(b"\0\0\0\x24ftyp")

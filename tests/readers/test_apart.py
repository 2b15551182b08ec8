"""Large and odd files are decoded in another process: the same pixels, and limits that end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import Config, ReadingConfig
from millie.errors import ImageError, ImageTooLargeError, MissingFileError
from millie.pipeline import detect
from millie.readers import apart
from millie.readers.images import read_here, read_image
from millie.types import Field, ImageSource, PixelSize

SIDE = 2900  # 8.4 MP: not ordinary


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a scale, under a name that is no UTF-8."""
    folder = tmp_path_factory.mktemp("large")
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE // 10, SIDE // 10, 3), np.uint8)
    image = Image.fromarray(pixels.repeat(10, 0).repeat(10, 1))
    image.save(folder / "plain", "TIFF", dpi=(254_000, 254_000), compression="tiff_lzw")
    return (folder / "plain").rename(folder / os.fsdecode(b"large \xff.tif"))


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> Iterator[apart.Helper]:
    """A process of this test's own."""
    own = apart.Helper()
    monkeypatch.setattr("millie.readers.images.HELPER", own)
    yield own
    own.close()


def read(path: Path, **words: PixelSize) -> Field:
    return read_image(ImageSource(path, path.name, **words), ReadingConfig())


def test_the_same_pixels_and_facts(large: Path, helper: apart.Helper) -> None:
    found = read(large)
    assert helper._process is not None
    here = read_here(found.source, ReadingConfig())
    assert np.array_equal(found.image, here.image)
    assert (found.sha256, found.notes, found.source) == (here.sha256, here.notes, here.source)
    assert found.pixel_size == here.pixel_size == PixelSize(0.1)
    assert read(large, pixel_size=PixelSize(0.2)).pixel_size == PixelSize(0.2)


def test_ordinary_files_start_no_process(tmp_path: Path, helper: apart.Helper) -> None:
    path = tmp_path / "cell.jpg"
    Image.new("RGB", (360, 363), (200, 180, 190)).save(path)
    read(path)
    assert helper._process is None


def test_errors_keep_their_type_and_the_process_goes_on(large: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tif"
    cut.write_bytes(large.read_bytes().ljust(17_000_000, b"\0").replace(b"II*\0", b"II*\1"))
    for _ in range(2):
        with pytest.raises(ImageError, match=r"cut\.tif: not a readable image"):
            read(cut)
    cut.unlink()
    with pytest.raises(MissingFileError, match=r"cut\.tif: no such file"):
        read(cut)


def test_a_process_that_is_gone_is_replaced(large: Path, helper: apart.Helper) -> None:
    read(large)
    assert helper._process is not None
    first = helper._process.pid
    helper._process.kill()
    helper._process.wait()
    assert read(large).image.shape == (SIDE, SIDE, 3)
    assert helper._process.pid != first


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (signal.SIGPROF, ImageTooLargeError, "more than 2 s of processor time"),
        (signal.SIGSEGV, ImageError, "the decoder crashed"),
        (signal.SIGSTOP, ImageTooLargeError, "given up: more than 0.3 s"),
    ],
)
def test_what_ends_the_process_is_told(
    large: Path,
    helper: apart.Helper,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    error: type[ImageError],
    said: str,
) -> None:
    read(large)
    assert helper._process is not None
    monkeypatch.setattr(apart, "WATCH_S", 0.3)
    # stopped first: the signal then comes when the file has been asked for
    os.kill(helper._process.pid, signal.SIGSTOP)
    if number is not signal.SIGSTOP:
        os.kill(helper._process.pid, number)
        os.kill(helper._process.pid, signal.SIGCONT)
        os.waitid(os.P_PID, helper._process.pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.setattr(helper, "_running", lambda _: helper._process)
    with pytest.raises(error, match=rf"large.*{said}"):
        read(large)
    monkeypatch.undo()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the system")
@pytest.mark.parametrize(
    ("work", "ends"),
    [("while True: pass", -signal.SIGPROF), ("bytearray(500_000_000)", 1)],
    ids=["time", "memory"],
)
def test_the_limits_hold(work: str, ends: int) -> None:
    program = (
        "from millie.readers.decoder_process import Allowance\n"
        "Allowance(40_000_000).set(1_000_000)\n"
        "bytearray(200_000_000)\n"
        f"{work}"
    )
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == ends, ended.stderr
    assert ("MemoryError" in ended.stderr) == (ends == 1)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_the_process_ends_with_the_one_that_asks(large: Path) -> None:
    program = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from millie.config import ReadingConfig\n"
        "from millie.readers.images import HELPER, read_image\n"
        "from millie.types import ImageSource\n"
        "read_image(ImageSource(Path(sys.argv[1]), 'x'), ReadingConfig())\n"
        "print(HELPER._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, large], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    pid = int(killed.stdout)
    with pytest.raises((ProcessLookupError, ChildProcessError)):
        wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    """Until a process is gone; raises what asking for it then raises."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        if (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
            == "Z"
        ):
            raise ProcessLookupError
        time.sleep(0.05)


def test_one_bad_file_does_not_stop_the_others(large: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(17_000_000))
    found = detect([bad, large], config=Config())
    assert found.done == 1
    assert (found.failures[0].source, found.failures[0].error) == (str(bad), "ImageTooLargeError")

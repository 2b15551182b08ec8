"""Images decoded in a process of their own, under limits on processor time and memory.

What a decoder does with a large or odd file can't be told from its header: it may take minutes,
gigabytes, or crash. Such files (:func:`millie.readers.limits.is_ordinary` says which; all fields in
DICOM, which may hold any of a dozen codes) are read by one helper process, started when the first
of them comes and replaced when a limit ends it; so are the headers of DICOM files. This module owns
the side that asks, and the watchdog; the helper and its limits are decoder_process.py.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

import millie
from millie import errors
from millie.errors import ImageError, ImageTooLargeError, MillieError
from millie.types import Field, PixelSize

if TYPE_CHECKING:
    from millie.config import ReadingConfig
    from millie.types import ImageSource

CPU_S, CPU_S_PER_MEGAPIXEL = 2.0, 0.25
"""Processor time of one file: 50 MP of 16-bit PNG take 3 s, of progressive JPEG 4 s."""
WATCH_S = 120.0
"""Time by the clock after which a file is given up: ten times the processor time of the largest."""

_PROGRAM = "millie.readers.decoder_process"
_KILLED = -9
_ANSWERS = frozenset({
    "ImageError", "ImageTooLargeError", "MissingFileError", "MissingPackageError",
})  # fmt: skip


T = TypeVar("T")
_Taken = Callable[[dict[str, Any], IO[bytes]], T]
"""Makes of an answer, and of the pixels behind it, what was asked for."""


class Helper:
    """The other process, as seen from here; one file at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def read(self, source: ImageSource, config: ReadingConfig) -> Field:
        """Decode a file there; arguments, result and errors as of :func:`read_image`.

        Raises:
            ImageTooLargeError: a limit on time or memory ended the process.
            ImageError: the decoder crashed, or no process could be started.
        """
        name = source.name
        asked = {
            "path": os.path.abspath(source.path),  # noqa: PTH100 - links stay as they are
            "name": name,
            "um_px": source.pixel_size.um_px if source.pixel_size else None,
            "config": config.model_dump(),
        }
        return self._answered(asked, name, lambda got, stream: _field(got, stream, source, config))

    def _answered(self, asked: dict[str, Any], name: str, taken: _Taken[T]) -> T:
        """Ask, and take what comes; a process that does not answer as it should is ended."""
        with self._lock:
            process = self._running(name)
            watchdog = threading.Timer(WATCH_S, process.kill)
            watchdog.start()
            try:
                return _asked(process, asked, taken)
            except MillieError:
                raise
            except (EOFError, OSError, ValueError) as error:
                self._end(kill=True)
                raise _stopped(name, process.returncode) from error
            except BaseException:  # interrupted: half an answer is in the pipe
                self._end(kill=True)
                raise
            finally:
                watchdog.cancel()

    def dicom_head(self, path: Path, name: str) -> dict[str, Any]:
        """Facts of a DICOM file's header, parsed there; see :func:`millie.readers.dicom.head_of`.

        Raises:
            ImageTooLargeError: a limit on time or memory ended the process.
            ImageError: no DICOM that can be read, or no process could be started.
            MissingPackageError: the extra is not installed.
        """
        asked = {"path": os.path.abspath(path), "name": name, "head": True}  # noqa: PTH100
        facts: dict[str, Any] = self._answered(asked, name, _facts)
        return facts

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end(kill=False)

    def _running(self, name: str) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # a fork must not talk on its parent's pipes
            self._process, self._owner = None, os.getpid()
        if self._process is not None and self._process.poll() is not None:
            self._end(kill=True)
        if self._process is None:
            package = str(Path(millie.__file__).parents[1])
            paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this Python, this package
                    [sys.executable, "-P", "-m", _PROGRAM],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                raise ImageError(
                    f"{name}: too large to be decoded here, and no process can be started for it "
                    f"({error.strerror}): free memory, or split the image into fields"
                ) from error
        return self._process

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        if kill:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


HELPER = Helper()
"""One for each process: its start costs 0.3 s."""
atexit.register(HELPER.close)


def _asked(process: subprocess.Popen[bytes], asked: dict[str, Any], taken: _Taken[T]) -> T:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(json.dumps(asked).encode("ascii") + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        kind = getattr(errors, answer["error"]) if answer["error"] in _ANSWERS else ImageError
        raise kind(answer["message"])
    return taken(answer, process.stdout)


def _facts(answer: dict[str, Any], _: IO[bytes]) -> dict[str, Any]:
    return answer


def _field(
    answer: dict[str, Any], stream: IO[bytes], source: ImageSource, config: ReadingConfig
) -> Field:
    height, width = map(int, answer.pop("shape"))
    if not 0 < height * width <= config.max_field_megapixels * 1e6:
        raise ValueError(f"{height} x {width} pixels")
    pixels = np.empty((height, width, 3), np.uint8)
    rest = memoryview(pixels.data).cast("B")
    while rest:
        taken = stream.readinto(rest)  # type: ignore[attr-defined]
        if not taken:
            raise EOFError
        rest = rest[taken:]
    um_px = answer["um_px"]
    size = PixelSize(um_px) if um_px else None
    return Field(pixels, source, size, answer["sha256"], tuple(answer["notes"]))


def _stopped(name: str, code: int | None) -> ImageError:
    """Why the process ended while it had the file."""
    if code == _KILLED or (code or 0) > 0:
        return ImageTooLargeError(
            f"{name}: given up: more than {WATCH_S:g} s or more memory than there is would be "
            "needed to decode it. Split it into fields, or save it anew"
        )
    if sys.platform != "win32" and code == -signal.SIGPROF:
        return ImageTooLargeError(
            f"{name}: given up: decoding takes more than {CPU_S:g} s of processor time and "
            f"{CPU_S_PER_MEGAPIXEL:g} s for each megapixel, as no picture of a camera does. Save "
            "it anew"
        )
    return ImageError(
        f"{name}: cannot be decoded (the decoder crashed, code {code}); the file is damaged: "
        "export or copy it again"
    )

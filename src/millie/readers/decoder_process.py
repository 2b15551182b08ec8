"""The process that decodes large and odd files, under limits on processor time and memory.

``python -m millie.readers.decoder_process`` gets a line of JSON on its input for each file and
answers with a line and the pixels; when the process that asks is gone, its input ends and so does
it. The limits are the system's own on Linux; macOS has none on memory, Windows none at all: there
only the watchdog of apart.py counts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TextIO

import numpy as np

from millie.config import ReadingConfig
from millie.errors import MillieError
from millie.readers.apart import CPU_S, CPU_S_PER_MEGAPIXEL
from millie.readers.dicom import head_of, is_dicom, read_dicom
from millie.readers.images import read_bytes, read_here
from millie.types import ImageSource, PixelSize

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.types import Field

if sys.platform != "win32":
    import resource

MEMORY_BYTES, MEMORY_BYTES_PER_PIXEL, MEMORY_PER_FILE_BYTE = 256_000_000, 32, 3
"""On top of what the process has: 50 MP of RGBA take 20 bytes a pixel."""


class Allowance:
    """What this process may use for a file, on top of what it has; nothing on Windows.

    Args:
        file_bytes: size of the file.
    """

    def __init__(self, file_bytes: int) -> None:
        self._start_s = time.process_time()
        self._bytes = _data_bytes() + MEMORY_BYTES + MEMORY_PER_FILE_BYTE * file_bytes
        self.set(0)

    def set(self, pixels: int) -> None:
        """Limit time and memory to what a picture of so many pixels needs."""
        if sys.platform == "win32":
            return
        seconds = CPU_S + CPU_S_PER_MEGAPIXEL * pixels / 1e6
        spent = time.process_time() - self._start_s
        # Not RLIMIT_CPU, which counts whole seconds. SIGPROF ends the process.
        signal.setitimer(signal.ITIMER_PROF, max(seconds - spent, 0.01))
        if sys.platform == "linux":  # elsewhere RLIMIT_DATA does not count what is mapped
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            wanted = self._bytes + MEMORY_BYTES_PER_PIXEL * pixels
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Memory of this process that RLIMIT_DATA counts, as Linux tells it."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmData"))) * 1024
    return 0


def serve(questions: TextIO, answers: IO[bytes]) -> None:
    """Answer one question a line until there are no more."""
    for line in questions:
        asked = json.loads(line)
        if asked.get("head"):
            _answer(answers, _head(Path(asked["path"]), asked["name"]))
            continue
        size = PixelSize(asked["um_px"]) if asked["um_px"] else None
        source = ImageSource(Path(asked["path"]), asked["name"], pixel_size=size)
        file_bytes = source.path.stat().st_size if source.path.is_file() else 0
        allowance = Allowance(file_bytes)
        try:
            config = ReadingConfig(**asked["config"])
            found = _read(source, config, allowance.set)
        except MillieError as error:
            _answer(answers, {"error": type(error).__name__, "message": str(error)})
            continue
        um_px = found.pixel_size.um_px if found.pixel_size else None
        facts = {"um_px": um_px, "notes": found.notes, "sha256": found.sha256}
        _answer(answers, {"shape": found.image.shape[:2], **facts})
        answers.write(memoryview(np.ascontiguousarray(found.image).data).cast("B"))
        answers.flush()


def _head(path: Path, name: str) -> dict[str, Any]:
    """Facts of a DICOM file's header, or what is wrong with it."""
    Allowance(path.stat().st_size if path.is_file() else 0)
    try:
        return asdict(head_of(path, name))
    except MillieError as error:
        return {"error": type(error).__name__, "message": str(error)}


def _read(source: ImageSource, config: ReadingConfig, opened: Callable[[int], None]) -> Field:
    if is_dicom(source.path):
        return read_dicom(source, read_bytes(source.path, source.name, config), config, opened)
    return read_here(source, config, opened=opened)


def _answer(answers: IO[bytes], facts: dict[str, Any]) -> None:
    answers.write(json.dumps(facts).encode("ascii") + b"\n")
    answers.flush()


def _main() -> NoReturn:
    """Serve on the pipes of this process; what a library prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(BrokenPipeError):
        serve(sys.stdin, answers)
    os._exit(0)


if __name__ == "__main__":
    _main()

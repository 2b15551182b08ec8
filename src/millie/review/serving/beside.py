"""Processes beside the web server, started again when one dies."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import millie

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_LOOK_EVERY_S = 0.5
_LONGEST_WAIT_S = 30.0
_SOUND_S = 60.0
"""A process that lived so long did not fail at its start."""
_STOP_S = 20.0

log = logging.getLogger("millie.review.beside")


class Beside:
    """Keeps one process running; a context manager.

    Args:
        module: run as ``python -m MODULE``.
        words: its arguments.
        environment: variables beside those of this process.
    """

    def __init__(self, module: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        package = str(Path(millie.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._command = [sys.executable, "-P", "-m", module, *words]
        self._environment = {**os.environ, **environment, "PYTHONPATH": paths}
        self._module = module
        self._stopped = threading.Event()
        self._process = self._started()
        self._thread = threading.Thread(target=self._keep, name=module, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ask the process to end, and end it if it does not."""
        self._stopped.set()
        self._thread.join()
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment)  # noqa: S603 - this Python

    def _keep(self) -> None:
        wait, since = 1.0, time.monotonic()
        while not self._stopped.wait(_LOOK_EVERY_S):
            if self._process.poll() is None:
                continue
            lived = time.monotonic() - since
            wait = 1.0 if lived > _SOUND_S else min(2 * wait, _LONGEST_WAIT_S)
            log.warning(
                "process ended",
                extra={
                    "program": self._module,
                    "code": self._process.returncode,
                    "again_in_s": wait,
                },
            )
            if self._stopped.wait(wait):
                return
            self._process, since = self._started(), time.monotonic()

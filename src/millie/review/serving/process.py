"""What each process beside the web server begins with."""

from __future__ import annotations

import os
import signal
from types import FrameType

import django

from millie.review.serving.logs import set_up_logs


def begin() -> None:
    """Set Django up; SIGTERM and Ctrl-C raise SystemExit, so that what is begun is given back."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "millie.review.settings")
    django.setup()
    set_up_logs()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)

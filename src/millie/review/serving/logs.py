"""Logs: one JSON object a line on standard error, without personal data.

No address, name of a file or a user, and no text of an error: such texts quote what was sent. An
error is logged by its kind and by where in the code it was raised.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LAST_CALLS = 12


class JsonLines(logging.Formatter):
    """A record as one line of JSON: ``at``, ``level``, ``from``, ``event`` and its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; of records of other packages the text stays unformatted, without arguments."""
        ours = record.name.startswith("millie.")
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "event": record.getMessage() if ours else str(record.msg),
        }
        if ours:
            line |= {k: v for k, v in vars(record).items() if k not in _OWN}
        if record.exc_info and record.exc_info[0]:
            calls = traceback.extract_tb(record.exc_info[2])[-_LAST_CALLS:]
            line["error"] = record.exc_info[0].__name__
            line["calls"] = [f"{call.filename}:{call.lineno} {call.name}" for call in calls]
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logs() -> None:
    """Send all logs of this process to standard error; to a terminal no more than warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("millie").setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    # Django's own would tell 404s with their paths a second time.
    logging.getLogger("django.request").setLevel(logging.CRITICAL)

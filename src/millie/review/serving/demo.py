"""Samples for a newcomer: drawn blood films, submitted like any others.

One patient of each diagnosis that is drawn. What the model says of drawn cells shows how the app
works, not how well the model does.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import connection

from millie.errors import MillieError
from millie.review.intake.door import About, admit, tray
from millie.review.models import Sample
from millie.synthetic import write_cohort

if TYPE_CHECKING:
    from pathlib import Path

    from millie.review.data_folder import DataFolder

_SEED = 5
_CELLS = 100
"""A patient: enough for a call of a disease, few enough for a minute."""
SENDER = "demo"

log = logging.getLogger("millie.review.demo")


def fill() -> None:
    """Draw and submit, unless that was done before; meant for a thread of its own."""
    data: DataFolder = settings.DATA
    films = data.incoming / "demo"
    try:
        if Sample.objects.filter(submitted_by=SENDER).exists():
            return
        drawn = write_cohort(films, 1, _SEED, cells_per_patient=_CELLS).parent
        for folder in sorted((drawn / "images").iterdir()):
            _submit(data, folder)
    except (MillieError, OSError) as error:
        log.warning("demo not filled", extra={"error": type(error).__name__})
    finally:
        shutil.rmtree(films, ignore_errors=True)
        connection.close()


def _submit(data: DataFolder, folder: Path) -> None:
    with tray(data) as sent:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as stream:
                sent.put(f"{folder.name}/{path.name}", stream)
        sample = admit(data, sent, About(SENDER, specimen="blood"))
    log.info("submitted", extra={"sample": sample.pseudonym})

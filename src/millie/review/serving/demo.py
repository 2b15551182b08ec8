"""Samples for a newcomer: drawn blood films, submitted like any others.

One patient of each diagnosis that is drawn. What the model says of drawn cells shows how the app
works, not how well the model does.
"""

from __future__ import annotations

import csv
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
_CELLS = 60
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
        manifest = write_cohort(films, 1, _SEED, cells_per_patient=_CELLS)
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            scales = {row["patient"]: float(row["um_px"]) for row in csv.DictReader(stream)}
        for patient, um_px in sorted(scales.items()):
            _submit(data, films / "images" / patient, um_px)
    except (MillieError, OSError) as error:
        log.warning("demo not filled", extra={"error": type(error).__name__})
    finally:
        shutil.rmtree(films, ignore_errors=True)
        connection.close()


def _submit(data: DataFolder, folder: Path, um_px: float) -> None:
    with tray(data) as sent:
        for path in sorted(folder.iterdir()):
            with path.open("rb") as stream:
                sent.put(f"{folder.name}/{path.name}", stream)
        sample = admit(data, sent, About(SENDER, specimen="blood", um_px=um_px))
    log.info("submitted", extra={"sample": sample.pseudonym})

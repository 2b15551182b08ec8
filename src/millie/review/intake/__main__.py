"""The process that watches a folder: ``python -m millie.review.intake FOLDER``."""

import sys
from pathlib import Path

from millie.review.serving.process import begin

begin()

from django.conf import settings  # noqa: E402 - Django is set up first

from millie.review.intake.watch import Watcher  # noqa: E402

Watcher(settings.DATA, Path(sys.argv[1])).run()

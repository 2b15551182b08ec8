"""The worker process: ``python -m millie.review.jobs``."""

from millie.review.serving.process import begin

begin()

from millie.review.jobs.worker import Worker  # noqa: E402 - Django is set up first

Worker().run()

"""The worker: takes jobs from the queue, makes the runs, and brings the results home.

``python -m millie.review.jobs``, with the environment of :mod:`millie.review.settings`; ``millie
serve`` starts it and starts it again. However it ends, no job is lost and none is done
twice: a result is kept in one transaction with the end of its job, and only by the worker that
still holds it.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.utils import timezone

from millie.errors import BusyError, ConfigError, DataError, MissingError
from millie.pipeline.caller import KeptModel
from millie.review import models
from millie.review.jobs import queue
from millie.review.jobs.calling import Work, call
from millie.review.jobs.carrying import carry_decisions
from millie.review.jobs.results import store_analysis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PULSE_S = 5.0
_IDLE_S = 0.5
_TELL_EVERY_S = 0.5

log = logging.getLogger("millie.review.worker")

STEPS = {
    "segment": "Finding cells", "predict": "Calling", "overlays": "Drawing", "report": "Reporting",
}  # fmt: skip
"""What the pipeline's steps are called for a person."""


@dataclass
class Worker:
    """One process's work on the queue.

    Attributes:
        name: host and process; unique among those that live.
        job: what it is at.
    """

    name: str = field(default_factory=lambda: f"{platform.node()[:60]}~{os.getpid()}")
    job: models.Job | None = None
    _kept: KeptModel = field(default_factory=KeptModel)
    _parent: int = field(default_factory=os.getppid)

    def run(self) -> None:
        """Do jobs until told to stop, or until the process that started this one is gone."""
        with self._pulse():
            while os.getppid() == self._parent:
                try:
                    worked = self.work_once()
                except DatabaseError as error:
                    log.warning("database", extra={"error": type(error).__name__})
                    close_old_connections()
                    worked = False
                if not worked:
                    time.sleep(_IDLE_S)

    def work_once(self) -> bool:
        """Do one job, if one waits."""
        job = queue.claim(self.name)
        if job is None:
            return False
        self.job = job
        started = time.monotonic()
        facts = {"job": job.pk, "sample": job.sample.pseudonym, "attempt": job.attempts}
        log.info("job begun", extra=facts)
        try:
            outcome = self._do(job)
        except queue.LostLeaseError:
            outcome = "lost"
        except SystemExit:
            queue.give_back(job, self.name)
            log.info("job given back", extra=facts)
            raise
        finally:
            self.job = None
        seconds = round(time.monotonic() - started, 2)
        log.info("job ended", extra={**facts, "outcome": outcome, "seconds": seconds})
        return True

    def _do(self, job: models.Job) -> str:

        try:
            self._make(job)
        except BusyError:
            # Another process is at the same run: one that was taken for dead and is not.
            queue.give_back(job, self.name)
            time.sleep(_IDLE_S)
            return "busy"
        except (ConfigError, DataError, MissingError) as error:
            # Pages show it, and people need no paths of the server.
            text = str(error).replace(str(settings.DATA.root), "the data folder")
            queue.fail(job, self.name, text)
            return "failed"
        except OSError as error:
            queue.retry(job, self.name, _told(error))
            return "to be tried again"
        except (DatabaseError, queue.LostLeaseError):
            raise
        except Exception as error:
            # One sample must not cost the others their calls.
            log.exception("unexpected")
            queue.retry(
                job, self.name,
                f"An unexpected error ended the analysis ({type(error).__name__}). Run it again; "
                "if that does not help, report it with the lines of the server's log.",
            )  # fmt: skip
            return "to be tried again"
        return "done"

    def _make(self, job: models.Job) -> None:

        work = Work(settings.DATA, job, job.bundle or settings.BUNDLE, self._kept)
        folder = call(work, self._progress(job))
        self._keep(work, folder)

    def _keep(self, work: Work, folder: Path) -> None:
        """Store the result and end the job: both or neither."""
        job = work.job
        with transaction.atomic():
            queue.hold(job, self.name)
            analysis = store_analysis(
                work.sample, folder, work.data.root, based_on=job.based_on, excluded=job.excluded
            )
            if job.based_on is not None:
                carry_decisions(job.based_on, job.excluded, analysis)
            queue.finish(job, self.name)

    def _progress(self, job: models.Job) -> Any:

        told, at = "", 0.0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal told, at
            now = time.monotonic()
            if what != told or now - at > _TELL_EVERY_S:
                told, at = what, now
                queue.tell(job, self.name, STEPS.get(what, what), done, total)

        return progress

    @contextmanager
    def _pulse(self) -> Iterator[None]:
        """Keep the lease, and say that this process lives, beside the work."""
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(_PULSE_S):
                with suppress(DatabaseError):
                    self._beat()
            connection.close()

        self._beat()
        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            self._sign_off()

    def _beat(self) -> None:

        now = timezone.now()
        models.Worker.objects.update_or_create(name=self.name, defaults={"seen": now})
        if (job := self.job) is not None:
            # Where it is lost, the end of the job finds out.
            with suppress(queue.LostLeaseError):
                queue.renew(job, self.name)

    def _sign_off(self) -> None:

        with suppress(DatabaseError):
            models.Worker.objects.filter(name=self.name).delete()


def _told(error: OSError) -> str:
    what = error.strerror or type(error).__name__
    return (
        f"The results could not be written ({what}): check free space and permissions of the data "
        "folder. The analysis is tried again by itself, a few times."
    )

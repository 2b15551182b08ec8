"""Work to be done by the worker, and what may submit it: machines, a watched folder."""

from __future__ import annotations

from typing import Any

from django.db import models

from millie.review.models.samples import Analysis, Sample


class JobStatus(models.TextChoices):
    """Where a job stands."""

    QUEUED = "queued", "Waiting"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"


class Job(models.Model):
    """One analysis to be made; claimed with a lease, so that a killed worker's work is done again.

    Attributes:
        based_on: the analysis to be made again without ``excluded`` cells; None: from the images.
        leased_by: name of the worker; the lease ends at ``leased_until`` unless it is renewed.
        attempts: how often it was claimed.
        step: what is being done, with ``done`` of ``total``.
        error: what went wrong and what to do, for a person.
    """

    sample = models.ForeignKey(Sample, models.CASCADE, related_name="jobs")
    based_on = models.ForeignKey(Analysis, models.CASCADE, null=True, related_name="+")
    excluded: models.JSONField[Any, Any] = models.JSONField(default=list)
    bundle = models.CharField(max_length=400)
    status = models.CharField(max_length=8, choices=JobStatus, default=JobStatus.QUEUED)
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    leased_by = models.CharField(max_length=80, blank=True)
    leased_until = models.DateTimeField(null=True)
    step = models.CharField(max_length=40, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(fields=["status", "created"])]
        ordering = ["created"]


class Worker(models.Model):
    """A process that does jobs.

    Attributes:
        name: host and process.
        seen: when it last said that it lives.
    """

    name = models.CharField(max_length=80, unique=True)
    started = models.DateTimeField(auto_now_add=True)
    seen = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class WatchedItem(models.Model):
    """A sub-folder or archive of a watched folder that was dealt with, so that it is taken once.

    Attributes:
        key: digest of its name and of the names, sizes and times of its files.
        sample: what it became; None: it was refused.
        name: of a refused one, to find it again; empty where it became a sample.
        reason: why it was refused, and what to do.
    """

    key = models.CharField(max_length=64, unique=True)
    at = models.DateTimeField(auto_now_add=True)
    sample = models.ForeignKey(Sample, models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=400, blank=True)
    reason = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {'taken' if self.sample_id else 'refused'}"


class ApiToken(models.Model):
    """A machine's key; only its digest is kept.

    Attributes:
        scopes: of :data:`millie.review.api.tokens.SCOPES`, with a space between.
    """

    name = models.CharField(max_length=80, unique=True)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.CharField(max_length=200)
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField(null=True)
    last_used = models.DateTimeField(null=True)
    revoked = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """An answer that was given, to be given again where the same request is repeated."""

    token = models.ForeignKey(ApiToken, models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    request_sha256 = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    body: models.JSONField[Any, Any] = models.JSONField(null=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["token", "key"], name="one_answer_a_key")]

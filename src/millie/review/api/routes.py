"""The API: ``/api/v1``. Each operation names the scope that it needs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from django.conf import settings
from django.db import IntegrityError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import File, Form, Header, NinjaAPI, Query, Status
from ninja import Path as InPath
from ninja.errors import HttpError
from ninja.files import UploadedFile
from pydantic import WithJsonSchema

from millie import __version__
from millie.outputs.result_folder import page_of
from millie.review.api import errors, schemas
from millie.review.api.answers import analysis_of, paged, sample_of, shown, with_all, with_status
from millie.review.api.openapi import ProblemApi
from millie.review.api.tokens import Scope
from millie.review.health import checks_of
from millie.review.intake.door import About, Tray, admit, tray
from millie.review.models import ApiToken, IdempotencyKey, Sample
from millie.review.records.audit import canonical

api: NinjaAPI = ProblemApi(
    title="millie review",
    version=__version__,
    description="Samples in, calls and cells out. For research use only: every call needs review "
    "by a qualified person.",
    urls_namespace="api-1",
    docs_url=None,  # its page would load scripts from elsewhere
)
_READ, _SUBMIT = Scope("read"), Scope("submit")
_MOST_PAGES = 1_000_000

SampleId = Annotated[
    str, InPath(pattern=r"^S-[a-z0-9]{1,14}$", description="Pseudonym of a sample.")
]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
PageNumber = Annotated[int, Query(ge=1, le=_MOST_PAGES)]
PerPage = Annotated[int, Query(ge=1, le=500)]


def _errors(*codes: int) -> dict[int, type[schemas.Problem]]:
    return dict.fromkeys(codes, schemas.Problem)


@api.post(
    "/samples", auth=_SUBMIT, summary="Submit a sample",
    response={202: schemas.SampleOut, **_errors(400, 401, 403, 413, 422, 507)},
)  # fmt: skip
def submit(
    request: HttpRequest,
    response: HttpResponse,
    files: Annotated[list[UploadedFile], File(description="Images of one patient, or one zip.")],
    patient: Annotated[str, Form(max_length=400, description="Kept on this server alone.")] = "",
    specimen: Annotated[schemas.SpecimenName, Form()] = "unknown",
    um_px: Annotated[float | None, Form(ge=0.01, le=5, description="Scale, if known.")] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key", min_length=1, max_length=200,
            description="The same key with the same request gives the same answer, and one sample.",
        ),
    ] = None,
) -> Status[dict[str, Any]]:  # fmt: skip
    """Images become a sample under a pseudonym, and its analysis is queued.

    Nothing is kept where a file cannot be used: the answer names each such file and the reason.
    """
    token: ApiToken = request.auth  # type: ignore[attr-defined]
    about = About(f"token:{token.name}", patient, specimen, um_px)
    with tray(settings.DATA) as sent:
        for each in files:
            sent.put(each.name or "image", each.file or each)
        body = _admitted(token, about, sent, idempotency_key)
    response.headers["Location"] = f"{request.path}/{body['id']}"
    return Status(202, body)


def _admitted(token: ApiToken, about: About, sent: Tray, key: str | None) -> dict[str, Any]:
    """Admit a sample, or repeat the answer that the key got before."""
    if key is None:
        return shown(admit(settings.DATA, sent, about)).dict()
    names = sorted([each.name, each.sha256] for each in sent.files)
    asked = [about.patient, about.specimen, about.um_px, names]
    digest = hashlib.sha256(canonical(asked).encode()).hexdigest()

    def remember(sample: Sample) -> None:
        IdempotencyKey.objects.create(
            token=token, key=key, request_sha256=digest, status=202,
            body=shown(sample).model_dump(mode="json"),
        )  # fmt: skip

    if (body := _answer_before(token, key, digest)) is not None:
        return body
    try:
        return shown(admit(settings.DATA, sent, about, remember)).dict()
    except IntegrityError:  # the same request, at the same time
        body = _answer_before(token, key, digest)
        if body is None:
            raise
        return body


def _answer_before(token: ApiToken, key: str, digest: str) -> dict[str, Any] | None:
    known = IdempotencyKey.objects.filter(token=token, key=key).first()
    if known is None:
        return None
    if known.request_sha256 != digest:
        raise HttpError(422, "this Idempotency-Key was used for another request: draw a new one")
    body: dict[str, Any] = known.body
    return body


@api.get(
    "/samples", auth=_READ, summary="List samples",
    response={200: schemas.SamplePage, **_errors(401, 403, 422)},
)  # fmt: skip
def list_samples(
    request: HttpRequest,  # noqa: ARG001
    state: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_.-]{1,80}$", description="Of the call.")
    ] = None,
    status: schemas.Status | None = None,
    since: Annotated[
        Moment | None,
        Query(description="Submitted at this time or later (ISO 8601); UTC if not said."),
    ] = None,
    page: PageNumber = 1,
    per_page: PerPage = 100,
) -> dict[str, Any]:
    """Samples in the order in which they came; the filters hold together."""
    found = with_all(Sample.objects.order_by("submitted_at", "pk"))
    if state:
        found = found.filter(analysis__state=state)
    if since is not None:
        found = found.filter(submitted_at__gte=_moment(since))
    if status:
        found = with_status(found, status)
    total = found.count()
    items = [shown(sample) for sample in found[(page - 1) * per_page : page * per_page]]
    return {"items": items, **paged(page, per_page, total)}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise HttpError(422, f"since: '{text[:40]}' is no time as 2026-03-01T08:00:00Z") from error


@api.get(
    "/samples/{sample_id}", auth=_READ, summary="Poll a sample",
    response={200: schemas.SampleOut, **_errors(401, 403, 404, 422)},
)  # fmt: skip
def poll(request: HttpRequest, sample_id: SampleId) -> schemas.SampleOut:  # noqa: ARG001
    """Where its analysis stands."""
    return shown(sample_of(sample_id))


@api.get(
    "/samples/{sample_id}/result", auth=_READ, summary="Fetch the result",
    response={200: schemas.Result, **_errors(401, 403, 404, 409, 422)},
)  # fmt: skip
def result(request: HttpRequest, sample_id: SampleId) -> dict[str, Any]:  # noqa: ARG001
    """The latest analysis, as ``millie predict`` writes it."""
    analysis = analysis_of(sample_of(sample_id))
    return {
        "research_use_only": True, "analysis": analysis.number, "model": analysis.model,
        "patient": analysis.result,
    }  # fmt: skip


@api.get(
    "/samples/{sample_id}/report", auth=_READ, summary="Fetch the report",
    response={200: None, **_errors(401, 403, 404, 409, 422)},
    openapi_extra={
        "responses": {200: {"description": "One HTML page", "content": {"text/html": {}}}}
    },
)  # fmt: skip
def report(request: HttpRequest, sample_id: SampleId) -> HttpResponse:  # noqa: ARG001
    """The page of the latest analysis, with the pictures of the cells inside it."""
    sample = sample_of(sample_id)
    folder = settings.DATA.root / analysis_of(sample).folder
    path = folder / page_of(sample.pseudonym)
    if not path.is_file():
        raise Http404("the report is missing from the data folder: restore it from a backup")
    answer = HttpResponse(path.read_bytes(), content_type="text/html; charset=utf-8")
    # The page brings its style and pictures along, and no script may run in it.
    answer.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
    )
    return answer


@api.get(
    "/samples/{sample_id}/cells", auth=_READ, summary="List the cells",
    response={200: schemas.CellPage, **_errors(401, 403, 404, 409, 422)},
)  # fmt: skip
def cells(
    request: HttpRequest,  # noqa: ARG001
    sample_id: SampleId,
    page: PageNumber = 1,
    per_page: PerPage = 100,
) -> dict[str, Any]:
    """Cells of the latest analysis, with what people named them."""
    analysis = analysis_of(sample_of(sample_id))
    labels = analysis.model["labels"]
    found = analysis.cells.all()
    shown = found[(page - 1) * per_page : page * per_page]
    items = [
        {**vars(cell), "probabilities": dict(zip(labels, cell.probabilities, strict=True))}
        for cell in shown
    ]
    return {
        "analysis": analysis.number, "items": items, **paged(page, per_page, found.count()),
    }  # fmt: skip


@api.get(
    "/health", auth=None, summary="Whether the service works",
    response={200: schemas.Health, 503: schemas.Health},
)  # fmt: skip
def health(request: HttpRequest) -> Status[dict[str, Any]]:  # noqa: ARG001
    """Database, worker and disk."""
    found = checks_of(settings.DATA)
    working = all(text == "ok" for text in found.values())
    told = {"status": "ok" if working else "failing", "checks": found}
    return Status(200 if working else 503, told)


errors.register(api)

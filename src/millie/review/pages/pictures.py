"""Crops of cells, tiles of images, and the run's own report, each for who may look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csp.decorators import csp_exempt
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404

from millie.errors import DataError, MissingFileError
from millie.outputs.page import POLICY
from millie.outputs.result_folder import page_of
from millie.review.cells.blind import call_hidden
from millie.review.pages.lookup import analysis_of, data, folder_of, person, sample_of
from millie.review.pictures.crops import crop_jpeg
from millie.review.pictures.scene import is_slide
from millie.review.pictures.tiles import photograph_tile, slide_tile
from millie.review.roles import Act, requires

if TYPE_CHECKING:
    from django.http import HttpResponseBase

_KEPT = f"private, immutable, max-age={settings.SESSION_COOKIE_AGE}"
"""By the browser, for a shift: what an address shows never changes."""
_GONE = (OSError, DataError, MissingFileError, IndexError)


@requires(Act.LOOK)
def crop(request: HttpRequest, pseudonym: str, number: str, index: int) -> HttpResponse:
    """One cell of an analysis.

    Raises:
        Http404: there is no such cell, or it cannot be read.
    """
    analysis = analysis_of(sample_of(pseudonym), number)
    try:
        content = crop_jpeg(folder_of(analysis), index)
    except _GONE as error:
        raise Http404("no such cell, or its picture cannot be read") from error
    return _picture(content)


@requires(Act.LOOK)
def tile(
    request: HttpRequest, pseudonym: str, position: int, level: int, column: int, row: int
) -> HttpResponse:
    """One tile of an image.

    Raises:
        Http404: there is no such tile, or it cannot be read.
    """
    sample = sample_of(pseudonym)
    image = get_object_or_404(sample.images, position=position)
    path, place = data().image(image.sha256), (level, column, row)
    try:
        if is_slide(folder_of(analysis_of(sample)), image.name):
            content = slide_tile(path, image.name, place)
        else:
            content = photograph_tile(path, image.name, data().tiles, place)
    except _GONE as error:
        raise Http404("no such tile, or the image cannot be read") from error
    return _picture(content)


def _picture(content: bytes) -> HttpResponse:
    return HttpResponse(content, "image/jpeg", headers={"Cache-Control": _KEPT})


@csp_exempt()
@requires(Act.LOOK)
def report(request: HttpRequest, pseudonym: str, number: str, page: str) -> HttpResponseBase:
    """A page of the run, as ``millie predict`` wrote it, under the policy that it states itself.

    Raises:
        Http404: there is no such page, or it is hidden from this person.
    """
    sample = sample_of(pseudonym)
    analysis = analysis_of(sample, number)
    allowed = {"report.html", page_of(str(analysis.result["patient"]))}
    if page not in allowed or call_hidden(person(request), sample):
        raise Http404("no such page, or you work blind-first and have not signed this sample")
    try:
        content = (folder_of(analysis) / page).read_bytes()
    except OSError as error:
        raise Http404("the report is no longer in the data folder") from error
    policy = f"{POLICY}; frame-ancestors 'none'"
    return HttpResponse(content, headers={"Content-Security-Policy": policy})

"""How a user wants to work."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from millie.review.cells.blind import is_blind
from millie.review.models import Preference
from millie.review.pages.lookup import person
from millie.review.records.audit import record
from millie.review.roles import Act, requires


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.LOOK)
def preferences(request: HttpRequest) -> HttpResponse:
    """Blind-first mode: on or off. Turning it is an event of the audit trail."""
    user = person(request)
    if request.method != "POST":
        return render(request, "review/preferences.html", {"blind": is_blind(user)})
    blind = request.POST.get("blind_first") == "on"
    with transaction.atomic():
        Preference.objects.update_or_create(user=user, defaults={"blind_first": blind})
        record(user.get_username(), "preference.blind_first", user.get_username(), on=blind)
    messages.success(request, f"Blind-first is {'on' if blind else 'off'}.")
    return redirect("preferences")

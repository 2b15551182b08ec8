"""The log of calls to clinicians about a sample: who was called, when, and was it read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from millie.review.models import Escalation
from millie.review.pages.lookup import person, sample_of
from millie.review.records.audit import record
from millie.review.roles import Act, requires

_CLOCKS_APART = timedelta(minutes=5)


class EscalationForm(forms.Form):
    """One call."""

    called = forms.CharField(
        label="Person called",
        max_length=200,
        help_text="Name or role, and number. No name of the patient.",
    )
    called_at = forms.DateTimeField(
        label="Called at (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
    )

    read_back = forms.BooleanField(label="The result was read back", required=False)
    note = forms.CharField(label="Note", required=False, widget=forms.Textarea({"rows": 3}))

    def clean_called_at(self) -> datetime:
        """No call lies in the future.

        Raises:
            ValidationError: this one does.
        """
        when: datetime = self.cleaned_data["called_at"]
        if when > datetime.now(UTC) + _CLOCKS_APART:
            raise forms.ValidationError("This time is in the future.")
        return when


@requires(Act.DECIDE)
@require_http_methods(["GET", "POST"])
def escalations(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """Show the calls of a sample, or log one."""
    sample = sample_of(pseudonym)
    now = datetime.now(UTC).replace(second=0, microsecond=0, tzinfo=None)
    form = EscalationForm(request.POST or None, initial={"called_at": now})
    if request.method == "POST" and form.is_valid():
        user = person(request)
        with transaction.atomic():
            call = Escalation.objects.create(sample=sample, user=user, **form.cleaned_data)
            record(
                user.username, "escalation.logged", sample.pseudonym, read_back=call.read_back,
                called_at=call.called_at.isoformat(),
            )  # fmt: skip
        messages.success(request, "The call is logged.")
        return redirect("escalations", pseudonym=pseudonym)
    calls = sample.escalations.select_related("user")
    return render(
        request, "review/escalations.html", {"sample": sample, "calls": calls, "form": form}
    )

"""Users and their roles, for administrators."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from millie.errors import ConfigError
from millie.review.pages.lookup import person
from millie.review.roles import ALLOWED, Act, Role, requires
from millie.review.users import accounts


@requires(Act.MANAGE)
@require_http_methods(["GET", "POST"])
def users(request: HttpRequest) -> HttpResponse:
    """All users; or one is added, disabled, reset or given other roles."""
    if request.method == "POST":
        try:
            _change(request)
        except (ConfigError, ValueError) as error:
            messages.error(request, str(error))
        return redirect("users")
    rows = [
        (user, set(user.groups.values_list("name", flat=True)))
        for user in User.objects.order_by("username").prefetch_related("groups")
    ]
    roles = [
        (role, ", ".join(sorted(act.replace("_", " ") for act in ALLOWED[role]))) for role in Role
    ]
    return render(request, "review/users.html", {"rows": rows, "roles": roles})


def _in_words(acts: frozenset[Act]) -> str:
    return ", ".join(sorted(act.replace("_", " ") for act in acts))


def _change(request: HttpRequest) -> None:
    form, actor = request.POST, person(request).username
    name, act = form.get("name", "").strip(), form.get("act", "")
    roles = [Role(value) for value in form.getlist("roles")]
    if act == "add":
        password = accounts.add(name, roles, actor=actor)
        messages.success(request, f"Added {name}. Password, shown this once: {password}")
    elif act == "reset":
        password = accounts.reset(name, actor=actor)
        messages.success(request, f"New password of {name}, shown this once: {password}")
    elif act == "disable":
        accounts.disable(name, actor=actor)
        messages.success(request, f"{name} can no longer log in.")
    elif act == "roles":
        accounts.set_roles(name, roles, actor=actor)
        messages.success(request, f"The roles of {name} are changed.")
    else:
        raise ConfigError(f"no such act: '{act}'")

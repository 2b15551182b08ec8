"""What is kept of users beside Django's own tables."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Preference(models.Model):
    """How a user wants to work.

    Attributes:
        blind_first: suggestions are shown only after the user's own decision was stored.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="preference")
    blind_first = models.BooleanField(default=False)


class LoginFailure(models.Model):
    """A failed login, to slow down who tries passwords."""

    username = models.CharField(max_length=150, db_index=True)
    address = models.GenericIPAddressField(null=True, db_index=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

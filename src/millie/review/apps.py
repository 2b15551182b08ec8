"""The application as Django knows it."""

from django.apps import AppConfig


class ReviewConfig(AppConfig):
    """All tables, pages and services of the review app."""

    name = "millie.review"
    label = "review"
    verbose_name = "millie review"

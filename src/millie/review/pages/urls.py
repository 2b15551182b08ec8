"""Addresses of the pages."""

from django.urls import path

from millie.review.pages import (
    audit,
    downloads,
    escalations,
    second_reviews,
    signing,
    users,
    worklist,
)

urlpatterns = [
    path("", worklist.worklist, name="worklist"),
    path("samples/<str:pseudonym>/sign", signing.sign, name="sign"),
    path("samples/<str:pseudonym>/acknowledge", signing.acknowledge, name="acknowledge"),
    path("samples/<str:pseudonym>/escalations", escalations.escalations, name="escalations"),
    path("second-reviews/", second_reviews.second_reviews, name="second_reviews"),
    path("second-reviews/<str:pseudonym>", second_reviews.second_review, name="second_review"),
    path("audit", audit.audit, name="audit"),
    path("audit.csv", audit.audit_csv, name="audit_csv"),
    path("decisions/conclusions.csv", downloads.conclusions_csv, name="conclusions_csv"),
    path("decisions/cells.csv", downloads.cells_csv, name="cells_csv"),
    path("decisions/decisions.json", downloads.decisions_json, name="decisions_json"),
    path("users", users.users, name="users"),
]

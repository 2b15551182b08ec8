"""Addresses of the pages."""

from django.urls import path

from millie.review.pages import (
    audit,
    downloads,
    escalations,
    fields,
    gallery,
    pictures,
    preferences,
    quality,
    sample,
    second_reviews,
    signing,
    users,
    worklist,
)

urlpatterns = [
    path("", worklist.worklist, name="worklist"),
    path("worklist/rows", worklist.rows, name="worklist_rows"),
    path("worklist.csv", worklist.table, name="worklist_csv"),
    path("quality", quality.quality, name="quality"),
    path("preferences", preferences.preferences, name="preferences"),
    path("session", gallery.session, name="session"),
    path("samples/<str:pseudonym>/", sample.sample, name="sample"),
    path("samples/<str:pseudonym>/progress", sample.progress, name="progress"),
    path("samples/<str:pseudonym>/take", sample.take, name="take"),
    path("samples/<str:pseudonym>/call-again", sample.call_again, name="call_again"),
    path("samples/<str:pseudonym>/cells", gallery.gallery, name="gallery"),
    path("samples/<str:pseudonym>/cells.json", gallery.cells, name="cells"),
    path("samples/<str:pseudonym>/decisions", gallery.decisions, name="decisions"),
    path("samples/<str:pseudonym>/differential", gallery.differential, name="differential"),
    path("samples/<str:pseudonym>/fields/<int:position>", fields.field, name="field"),
    path(
        "samples/<str:pseudonym>/fields/<int:position>/tiles/<int:level>/<int:column>_<int:row>.jpg",
        pictures.tile, name="tile",
    ),
    path(
        "samples/<str:pseudonym>/analyses/<str:number>/cells/<int:index>.jpg",
        pictures.crop, name="crop",
    ),
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
    path(
        "samples/<str:pseudonym>/analyses/<str:number>/<path:page>", pictures.report, name="report"
    ),
]  # fmt: skip

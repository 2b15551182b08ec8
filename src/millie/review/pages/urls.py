"""Addresses of the pages."""

from django.urls import path

from millie.review.pages import worklist

urlpatterns = [
    path("", worklist.worklist, name="worklist"),
]

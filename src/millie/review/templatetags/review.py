"""Filters that write numbers, times and states as the other pages of millie do."""

from __future__ import annotations

from django import template

from millie.outputs.page import visible

register = template.Library()
register.filter("visible", visible)

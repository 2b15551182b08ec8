from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User

from millie.review.models import Preference, Signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client

    from millie.review.models import Sample


@pytest.fixture
def decided(analysed: Sample, make_user: Callable[..., User]) -> Sample:
    """A cell decided twice, a conclusion amended once."""
    user, analysis = make_user("=una", "reviewer"), analysed.analysis
    assert analysis is not None
    cell = analysis.cells.all()[3]
    for version, code in enumerate(["blast", "promyelocyte"], start=1):
        cell.decisions.create(version=version, code=code, suggestion=cell.suggestion, user=user)
    cell.version = 2
    cell.save()
    for version, diagnosis in enumerate(["AML", "APL"], start=1):
        Signature.objects.create(
            sample=analysed, analysis=analysis, version=version, diagnosis=diagnosis,
            comment="=1+1", meaning="m", user=user, at=datetime.now(UTC), record="{}",
            record_sha256=str(version) * 64,
        )  # fmt: skip
    analysed.signed_at = datetime.now(UTC)
    analysed.save()
    return analysed


def _rows(client: Client, address: str) -> list[dict[str, str]]:
    text = client.get(address).content.decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def test_each_version_is_there_and_one_holds(decided: Sample, reviewer: Client) -> None:
    signed = _rows(reviewer, "/decisions/conclusions.csv")
    assert [(r["version"], r["diagnosis"], r["holds"]) for r in signed] == [
        ("1", "AML", "0"), ("2", "APL", "1"),
    ]  # fmt: skip
    cells = _rows(reviewer, "/decisions/cells.csv")
    assert [(r["cell"], r["decision"], r["holds"]) for r in cells] == [
        ("3", "blast", "0"), ("3", "promyelocyte", "1"),
    ]  # fmt: skip


def test_json_says_the_same(decided: Sample, reviewer: Client) -> None:
    content = json.loads(reviewer.get("/decisions/decisions.json").content)
    assert [one["diagnosis"] for one in content["conclusions"]] == ["AML", "APL"]
    assert len(content["cells"]) == 2


def test_no_name_leaves_and_no_formula_runs(decided: Sample, reviewer: Client) -> None:
    for address in ("conclusions.csv", "cells.csv", "decisions.json"):
        text = reviewer.get(f"/decisions/{address}").content.decode()
        assert "Doe" not in text
    assert ",=" not in reviewer.get("/decisions/conclusions.csv").content.decode()


def test_a_conclusion_of_a_sample_that_is_open_again_holds_no_longer(
    decided: Sample, reviewer: Client
) -> None:
    decided.signed_at = None
    decided.save()
    rows = _rows(reviewer, "/decisions/conclusions.csv")
    assert [row["holds"] for row in rows] == ["0", "0"]


def test_who_works_blind_first_gets_no_conclusions_of_others(
    decided: Sample, reviewer: Client
) -> None:
    Preference.objects.create(user=User.objects.get(username="rita"), blind_first=True)
    for name in ("conclusions.csv", "cells.csv", "decisions.json"):
        assert reviewer.get(f"/decisions/{name}").status_code == 403

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from millie.review.models import Analysis, Sample
from millie.review.records.quality import called, measure_quality

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User


def _signed(user: User, state: str, rank: int, diagnosis: str, hours: float = 1.0) -> Sample:
    sample = Sample.objects.create(submitted_by="rita")
    quality = [
        {"name": "distance", "value": 2.0 if rank == 3 else 1.0, "low": None, "high": 1.5,
         "passed": rank != 3},
        {"name": "stain", "value": 0.5, "low": None, "high": None, "passed": True},
    ]  # fmt: skip
    result: dict[str, Any] = {"error": None, "quality": quality}
    sample.analysis = Analysis.objects.create(
        sample=sample, number=1, state=state, rank=rank, worry=0.5, n_cells=3, light="pass",
        model_name="m", model_sha256="0" * 64, model={}, result=result, folder="x",
    )  # fmt: skip
    for index, (said, is_) in enumerate([("blast", "blast"), ("blast", "artefact"), ("AML", "")]):
        sample.analysis.cells.create(
            index=index, image=1, left_px=0, top_px=0, width_px=9, height_px=9, probabilities=[1.0],
            suggestion=said, certainty=1.0, decision=is_,
        )  # fmt: skip
    sample.signed_at = sample.submitted_at + timedelta(hours=hours)
    sample.save()
    sample.signatures.create(
        analysis=sample.analysis, version=1, diagnosis=diagnosis, user=user, at=timezone.now()
    )
    return sample


def test_shares_are_of_what_could_be_overridden(make_user: Callable[..., User]) -> None:
    user = make_user("rita", "reviewer")
    _signed(user, "APL_SUSPECT", 0, "APL")
    _signed(user, "NO_SIGNAL", 4, "AML", hours=3.0)
    _signed(user, "INDETERMINATE", 3, "ALL", hours=9.0)
    found = measure_quality()
    assert (found.overridden.n, found.overridden.of) == (1, 2)
    assert (found.kinds_overridden.n, found.kinds_overridden.of) == (3, 6)
    assert (found.rejected.n, found.rejected.of) == (3, 6)
    assert (found.unfamiliar.n, found.unfamiliar.of) == (1, 3)
    assert found.unfamiliar.ends is not None
    assert found.unfamiliar.ends[0] < 1 / 3 < found.unfamiliar.ends[1]
    assert (found.weeks[-1].total, len(found.weeks)) == (3, 12)
    assert found.weeks[-1].counts["suspect"] == 1
    spans = {row.title: row for row in found.turnaround}
    assert spans["To the signature, all samples"].median_h == pytest.approx(3.0)
    assert spans["To the signature, all samples"].nine_of_ten_h == pytest.approx(9.0)
    assert spans["To the signature, suspected or urgent"].n == 1


def test_an_amended_conclusion_counts_alone(make_user: Callable[..., User]) -> None:
    user = make_user("rita", "reviewer")
    sample = _signed(user, "APL_SUSPECT", 0, "AML")
    assert measure_quality().overridden.n == 1
    sample.signatures.create(
        analysis=sample.analysis, version=2, diagnosis="APL", user=user, at=timezone.now()
    )
    found = measure_quality().overridden
    assert (found.n, found.of) == (0, 1)


@pytest.mark.parametrize(
    ("state", "conclusion"),
    [("APL_SUSPECT", "APL"), ("ALL", "ALL"), ("NO_SIGNAL", "normal"), ("INDETERMINATE", None),
     ("URGENT_INDETERMINATE", None), ("FAILED", None)],
)  # fmt: skip
def test_which_conclusion_a_state_suggests(state: str, conclusion: str | None) -> None:
    assert called(state) == conclusion

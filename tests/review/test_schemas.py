"""Databases of every released version, brought up to date as a start of the app does it.

``schemas/VERSION.sql`` is the dump of a small SQLite database of that version: one signed sample.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))


@pytest.fixture(params=SCHEMAS, ids=[path.stem for path in SCHEMAS])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "millie.sqlite3")) as database:
        database.executescript(request.param.read_text(encoding="utf-8"))
    return tmp_path


def _millie(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this Python
        [sys.executable, "-m", "millie", *words], capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MILLIE", "DJANGO"))},
    )  # fmt: skip


def test_a_database_of_a_released_version_is_brought_up_to_date(data: Path) -> None:
    done = _millie("audit", "verify", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert "the trail is whole" in done.stdout
    with closing(sqlite3.connect(data / "millie.sqlite3")) as database:
        (signed,) = database.execute(
            "SELECT s.pseudonym, g.diagnosis, d.code FROM review_signature g "
            "JOIN review_sample s ON g.sample_id = s.id "
            "JOIN review_cell c ON c.analysis_id = g.analysis_id "
            "JOIN review_celldecision d ON d.cell_id = c.id"
        ).fetchall()
        assert signed == ("S-fixture", "AML", "blast")
        for table in ("review_auditevent", "review_celldecision", "review_signature"):
            with pytest.raises(sqlite3.DatabaseError, match="kept for good"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own


def test_users_of_a_released_version_are_still_there(data: Path) -> None:
    listed = _millie("users", "list", "--data", str(data))
    assert listed.returncode == 0, listed.stderr
    assert "rita" in listed.stdout


def test_a_database_of_a_newer_version_is_refused_untouched(data: Path) -> None:
    with closing(sqlite3.connect(data / "millie.sqlite3")) as database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('review', '9999_later', '')"
        )
        database.commit()
    refused = _millie("audit", "verify", "--data", str(data))
    assert refused.returncode == 2
    assert "a newer version of millie has written this database" in refused.stderr

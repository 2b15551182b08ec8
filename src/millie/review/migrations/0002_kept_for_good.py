"""The database itself refuses to change or remove what is kept for good.

SQLite loses the triggers of a table that a later migration makes anew (``AlterField`` and the like):
such a migration must end with these operations again.
"""

from typing import Any

from django.db import migrations

KEPT = ("review_auditevent", "review_celldecision", "review_signature")


def _install(_: Any, schema_editor: Any) -> None:
    vendor = schema_editor.connection.vendor
    if vendor == "postgresql":
        schema_editor.execute(
            "CREATE FUNCTION millie_kept_for_good() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION '% is kept for good: no row may be changed or removed', "
            "TG_TABLE_NAME; END $$",
            None,
        )
    for table in KEPT:
        for act in ("UPDATE", "DELETE"):
            name = f"{table}_refuses_{act.lower()}"
            if vendor == "postgresql":
                schema_editor.execute(
                    f"CREATE TRIGGER {name} BEFORE {act} ON {table} "
                    "FOR EACH ROW EXECUTE FUNCTION millie_kept_for_good()"
                )
            else:
                schema_editor.execute(
                    f"CREATE TRIGGER {name} BEFORE {act} ON {table} BEGIN SELECT RAISE(ABORT, "
                    f"'{table} is kept for good: no row may be changed or removed'); END"
                )
        if vendor == "postgresql":
            schema_editor.execute(
                f"CREATE TRIGGER {table}_refuses_truncate BEFORE TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION millie_kept_for_good()"
            )


def _remove(_: Any, schema_editor: Any) -> None:
    on = schema_editor.connection.vendor == "postgresql"
    for table in KEPT:
        for act in ("update", "delete", *(["truncate"] if on else [])):
            where = f" ON {table}" if on else ""
            schema_editor.execute(f"DROP TRIGGER {table}_refuses_{act}{where}")
    if on:
        schema_editor.execute("DROP FUNCTION millie_kept_for_good()")


class Migration(migrations.Migration):
    dependencies = [("review", "0001_initial")]
    operations = [migrations.RunPython(_install, _remove)]

"""When a decision was made is stated by who keeps it, for those that are carried over.

Nothing changes in the database. On SQLite an altered field would make the table anew, and without
the triggers that keep its rows.
"""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("review", "0030_audit_triggers"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name="celldecision",
                    name="at",
                    field=models.DateTimeField(default=django.utils.timezone.now),
                ),
            ]
        ),
    ]

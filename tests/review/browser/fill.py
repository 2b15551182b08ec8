"""Fill an empty data folder with users and samples: ``python fill.py PSEUDONYM IMAGES ...``.

In a process of its own: the server's database is not that of the tests' own Django.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path

os.environ["DJANGO_SETTINGS_MODULE"] = "millie.review.settings"

import django

django.setup()

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import call_command

from millie.review.jobs.results import store_analysis
from millie.review.models import Job, Sample

PASSWORD = "correct horse battery staple"
USERS = {"rita": ["reviewer"], "bea": ["reviewer"], "sam": ["supervisor", "administrator"]}


def fill(samples: list[tuple[str, Path]]) -> None:
    call_command("migrate", verbosity=0)
    for name, roles in USERS.items():
        user = User.objects.create_user(name, password=PASSWORD)
        user.groups.set(Group.objects.get_or_create(name=role)[0] for role in roles)
    waits = Sample.objects.create(pseudonym="S-waits", submitted_by="rita")
    Job.objects.create(sample=waits, status="running", step="cells", done=3, total=9)
    for pseudonym, images in samples:
        sample = Sample.objects.create(pseudonym=pseudonym, submitted_by="rita")
        for position, path in enumerate(sorted(images.iterdir()), start=1):
            content = path.read_bytes()
            digest = sha256(content).hexdigest()
            settings.DATA.image(digest).write_bytes(content)
            sample.images.create(
                position=position, name=path.name, sha256=digest, n_bytes=len(content)
            )
        folder = settings.DATA.samples / pseudonym / "1" / "calls"
        store_analysis(sample, folder, settings.DATA.root)


if __name__ == "__main__":
    pairs = zip(sys.argv[1::2], sys.argv[2::2], strict=True)
    fill([(name, Path(images)) for name, images in pairs])

"""A data folder of the session's own; Django is set up before any module of the app is imported."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from django.contrib.auth.models import User
    from django.test import Client

    from millie.review.data_folder import DataFolder
    from millie.review.models import Sample

pytest.importorskip("django", reason="needs the extra millie[review]")
pytest.importorskip("pytest_django", reason="needs the extra millie[review]")

_folder = tempfile.TemporaryDirectory(prefix="millie-review-tests-")
os.environ.setdefault("MILLIE_REVIEW_DATA", _folder.name)
os.environ["DJANGO_SETTINGS_MODULE"] = "millie.review.settings"

import django  # noqa: E402
from django.conf import settings as _settings  # noqa: E402

# Argon2 is slow by design.
_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
django.setup()

PASSWORD = "correct horse battery staple"  # noqa: S105


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    """Makes a user with roles: ``make_user("ann", "reviewer")``."""
    from django.contrib.auth.models import Group, User

    def make(name: str, *roles: str) -> User:
        user = User.objects.create_user(name, password=PASSWORD)
        for role in roles:
            user.groups.add(Group.objects.get_or_create(name=role)[0])
        return user

    return make


@pytest.fixture
def reviewer(make_user: Callable[..., User], client: Client) -> Client:
    """A client that is logged in as a reviewer."""
    client.force_login(make_user("rita", "reviewer"))
    return client


@pytest.fixture(scope="session")
def run_of_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of one sample as the worker leaves it: drawn images, and calls of a shipped model.

    ``images/S-drawn`` holds ``image-1.jpg`` and on; ``samples/S-drawn/calls`` is the run.
    """
    import millie
    from millie.synthetic import write_cohort

    root = tmp_path_factory.mktemp("one-sample")
    films = write_cohort(root / "films", 1, 5, cells_per_patient=60).parent
    patient = root / "images" / "S-drawn"
    patient.mkdir(parents=True)
    for position, path in enumerate(sorted(films.glob("images/P001/*.jpg")), start=1):
        (patient / f"image-{position}.jpg").write_bytes(path.read_bytes())
    millie.predict("acute-leukaemia", patient, root / "samples" / "S-drawn" / "calls")
    return root


@pytest.fixture
def analysed(run_of_one: Path, db: None) -> Sample:
    """That sample in the database, with its images and its first analysis."""
    from hashlib import sha256

    from millie.review.jobs.results import store_analysis
    from millie.review.models import OriginalName, Sample

    sample = Sample.objects.create(pseudonym="S-drawn", submitted_by="rita")
    OriginalName.objects.create(sample=sample, patient="Jane Doe")
    for position, path in enumerate(images_of(run_of_one), start=1):
        content = path.read_bytes()
        sample.images.create(
            position=position, name=path.name, sha256=sha256(content).hexdigest(),
            n_bytes=len(content),
        )  # fmt: skip
    store_analysis(sample, run_of_one / "samples" / "S-drawn" / "calls", run_of_one)
    return sample


def images_of(root: Path) -> list[Path]:
    """In the order of their numbers."""
    return sorted(root.glob("images/S-drawn/*.jpg"), key=lambda p: int(p.stem.split("-")[1]))


@pytest.fixture(autouse=True, scope="session")
def _emptied_between_tests() -> Iterator[None]:
    """Tests on a running server empty all tables afterwards; the triggers would refuse that.

    For the whole session: pytest-django empties the tables after a test's own fixtures have ended.
    """
    from importlib import import_module

    from django.core.management.commands import flush
    from django.db import connection

    triggers = import_module("millie.review.migrations.0002_kept_for_good")
    plain = flush.Command.handle

    def handle(self: flush.Command, **options: object) -> None:
        with connection.schema_editor() as editor:
            triggers._remove(None, editor)
        plain(self, **options)
        with connection.schema_editor() as editor:
            triggers._install(None, editor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush.Command, "handle", handle)
        yield


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Makes a small file that is an image, of noise: ``picture(seed, "JPEG")``."""
    import io

    import numpy as np
    from PIL import Image

    def draw(seed: int = 0, kind: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        return stream.getvalue()

    return draw


@pytest.fixture(scope="session")
def zipped() -> Callable[[dict[str, bytes]], bytes]:
    """Packs files: ``zipped({"1.png": content})``."""
    import io
    import zipfile

    def pack(files: dict[str, bytes]) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return stream.getvalue()

    return pack


@pytest.fixture
def data(tmp_path: Path, settings: Any) -> DataFolder:
    """An empty data folder, which pages, API and worker use too."""
    from millie.review.data_folder import DataFolder

    folder = DataFolder(tmp_path / "data")
    settings.DATA = folder
    return folder


@pytest.fixture
def shown(analysed: Sample, run_of_one: Path) -> Sample:
    """The analysed sample, with its run and images in the data folder that the pages read."""
    import shutil

    from django.conf import settings

    place = settings.DATA.samples / "S-drawn"
    if not place.exists():
        shutil.copytree(run_of_one / "samples" / "S-drawn", place)
        for path, image in zip(images_of(run_of_one), analysed.images.all(), strict=True):
            shutil.copyfile(path, settings.DATA.image(image.sha256))
    return analysed


@pytest.fixture(scope="session")
def client_module() -> ModuleType:
    """The example client of the docs, as a reader of them would import it."""
    from importlib.util import module_from_spec, spec_from_file_location

    place = Path(__file__).parents[2] / "docs" / "review_client.py"
    spec = spec_from_file_location("review_client", place)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["review_client"] = module
    spec.loader.exec_module(module)
    return module

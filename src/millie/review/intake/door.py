"""The door: what was sent becomes a sample with a pseudonym, or is refused whole.

Files are written to a tray of their own, checked by the readers, and moved to the data folder under
their SHA-256 in the transaction that makes the sample and its job. Names of patients and files go
to one table and nowhere else. Owns this order; formats and limits are its neighbours'.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from django.db import DatabaseError, connection, transaction

from millie.errors import ImageError, MissingPackageError
from millie.files import is_litter, is_visible, spelt_out, sync_folder
from millie.review.intake.archives import ArchiveError, is_archive, unpack
from millie.review.intake.checks import check
from millie.review.intake.limits import (
    MAX_FILES,
    MAX_NAME,
    MAX_SAMPLE_BYTES,
    Refusal,
    RefusedError,
    TooLargeError,
)
from millie.review.jobs.queue import enqueue
from millie.review.models import Image, OriginalName, Sample
from millie.review.records.audit import record
from millie.types import PixelSize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from millie.review.data_folder import DataFolder

_STEP_BYTES = 1 << 20
_LOCK = 0x6D696C6C6966
"""Key of the advisory lock under which files get their places on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class About:
    """What the sender says of a sample.

    Attributes:
        submitted_by: user name, ``token:NAME`` or ``watched folder``.
        patient: as the sender names the patient; empty: the folder's or archive's name.
        specimen: of :class:`millie.review.models.Specimen`.
        um_px: scale of all images, um/px; None: as the images state it.
        bundle: name or folder of the model; empty: the server's.
    """

    submitted_by: str
    patient: str = ""
    specimen: str = "unknown"
    um_px: float | None = None
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A file on the tray.

    Attributes:
        name: as sent, with ``/`` between folders.
        path: where it lies.
        sha256: of its content.
        n_bytes: of it.
        ending: of its kind, once it was checked.
    """

    name: str
    path: Path
    sha256: str
    n_bytes: int
    ending: str = ""


@dataclass
class Tray:
    """Files of one submission while they are looked at.

    Attributes:
        folder: of this submission alone.
        files: so far.
    """

    folder: Path
    files: list[Sent] = field(default_factory=list)

    def put(self, name: str, stream: IO[bytes]) -> None:
        """Write a file, on the disk for good when this returns.

        Raises:
            TooLargeError: there are too many files or bytes.
            OSError: it cannot be written.
        """
        if len(self.files) >= MAX_FILES:
            raise TooLargeError(f"more than {MAX_FILES:,} files in one sample: send fewer")
        path = self.folder / f"file-{len(self.files)}"
        digest, n_bytes = hashlib.sha256(), 0
        room = MAX_SAMPLE_BYTES - sum(sent.n_bytes for sent in self.files)
        with path.open("xb") as out:
            while step := stream.read(_STEP_BYTES):
                n_bytes += len(step)
                if n_bytes > room:
                    raise TooLargeError(
                        f"more than {MAX_SAMPLE_BYTES / 1e9:g} GB in one sample: send fewer images"
                    )
                digest.update(step)
                out.write(step)
            out.flush()
            os.fsync(out.fileno())
        name = spelt_out(name).replace("\0", "")
        self.files.append(Sent(name, path, digest.hexdigest(), n_bytes))

    def open_archive(self) -> str:
        """If one archive alone was sent, take the files in it in its place.

        Returns:
            The archive's name without its ending, which may name the patient; else empty.

        Raises:
            ArchiveError, TooLargeError, NoSpaceError: as :func:`unpack`.
        """
        if len(self.files) != 1:
            return ""
        (archive,) = self.files
        with archive.path.open("rb") as stream:
            if not is_archive(stream.read(4)):
                return ""
        packed = self.folder / "archive"
        archive.path.rename(packed)
        self.files = []
        for name, path in unpack(packed, PurePosixPath(archive.name).name, self.folder):
            with path.open("rb") as stream:
                self.put(name, stream)
            path.unlink()
        return PurePosixPath(archive.name).stem


@contextmanager
def tray(data: DataFolder) -> Iterator[Tray]:
    """A tray that is gone afterwards, whatever happened."""
    folder = data.incoming / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    try:
        yield Tray(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def admit(
    data: DataFolder, sent: Tray, about: About, also: Callable[[Sample], None] | None = None
) -> Sample:
    """Make a sample of what lies on a tray, and queue its analysis.

    Args:
        data: the data folder.
        sent: the files.
        about: the sample.
        also: called with the sample in the same transaction.

    Returns:
        The sample; its ``notes`` say what was noticed.

    Raises:
        RefusedError: a file claims to be an image and cannot be read, or no image is there.
        TooLargeError, NoSpaceError: beyond the limits.
        ConfigError: the scale is none that an image of cells can have.
        OSError: the files cannot be written.
    """
    if about.um_px is not None:
        PixelSize(about.um_px)
    try:
        packed_as = sent.open_archive()
    except ArchiveError as error:
        raise RefusedError([Refusal(str(error).partition(":")[0], str(error))]) from error
    images, notes = _images(sent.files)
    placed: list[Path] = []
    try:
        with transaction.atomic():
            _alone()
            notes += _seen_before(images)
            sample = Sample.objects.create(
                specimen=about.specimen, um_px=about.um_px, submitted_by=about.submitted_by,
                notes=notes,
            )  # fmt: skip
            patient = about.patient or packed_as or _top_folder(images)
            _keep_names(sample, patient, images)
            _place(data, images, placed)
            enqueue(sample, about.bundle)
            record(about.submitted_by, "sample.submitted", sample.pseudonym, images=len(images))
            if also is not None:
                also(sample)
    except BaseException:
        _take_back(placed)
        raise
    return sample


def sweep(data: DataFolder) -> None:
    """Remove what a killed server left: uploads that nobody awaits, images that no sample names."""
    for path in data.incoming.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    _take_back(sorted(data.images.iterdir()))


def _images(files: Sequence[Sent]) -> tuple[list[Sent], list[str]]:
    """The images among the files in the order of their names, each once; and notes.

    Raises:
        RefusedError: one claims to be an image and is none, or there are none.
    """
    refusals, found, aside = [], [], 0
    for one in sorted(files, key=lambda sent: _natural(sent.name)):
        if not _counts(one.name):
            continue
        try:
            kind = check(one.path, one.name)
        except (ImageError, MissingPackageError) as error:
            refusals.append(Refusal(one.name, str(error)))
            continue
        if kind is None:
            aside += 1
        else:
            found.append(Sent(one.name, one.path, one.sha256, one.n_bytes, kind.ending))
    if refusals:
        raise RefusedError(refusals)
    images = list({one.sha256: one for one in reversed(found)}.values())[::-1]
    if not images:
        what = "no file was sent"
        if aside:
            what = "the file is not an image" if aside == 1 else "none of the files is an image"
        raise RefusedError([Refusal("", f"{what}; send JPEG, PNG, TIFF, BMP, DICOM or slides")])
    notes = [f"{_files(aside)} not an image: left aside"] if aside else []
    if again := len(found) - len(images):
        notes.append(f"{_files(again)} sent twice: counted once")
    tops = {PurePosixPath(one.name).parent for one in images}
    if len(tops) > 1:
        notes.append(f"images of {len(tops)} folders were read as one sample")
    return images, notes


def _files(n: int) -> str:
    return "1 file was" if n == 1 else f"{n} files were"


def _counts(name: str) -> bool:
    """Whether a name is a file of the sender's, not what an operating system leaves."""
    return all(is_visible(part) and not is_litter(part) for part in PurePosixPath(name).parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """Order in which 2 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part)
            for part in re.split(r"(\d{1,18})", name.casefold())]  # fmt: skip


def _top_folder(images: Sequence[Sent]) -> str:
    tops = {PurePosixPath(one.name).parts[0] for one in images if "/" in one.name}
    return tops.pop() if len(tops) == 1 else ""


def _seen_before(images: Sequence[Sent]) -> list[str]:
    """Which earlier samples hold some of the same images."""
    digests = [one.sha256 for one in images]
    found = Image.objects.filter(sha256__in=digests).values_list("sample__pseudonym", flat=True)
    return [
        f"{n} of its {len(images)} images are in sample {pseudonym} too"
        for pseudonym, n in sorted(Counter(found).items())
    ]


def _keep_names(sample: Sample, patient: str, images: Sequence[Sent]) -> None:
    names = {one.sha256: one.name[-MAX_NAME:] for one in images}
    OriginalName.objects.create(sample=sample, patient=patient[:MAX_NAME], images=names)
    Image.objects.bulk_create(
        Image(
            sample=sample, position=position, sha256=one.sha256, n_bytes=one.n_bytes,
            name=f"image-{position}{one.ending}",
        )
        for position, one in enumerate(images, start=1)
    )  # fmt: skip


def _place(data: DataFolder, images: Sequence[Sent], placed: list[Path]) -> None:
    """Move files to where they stay; ``placed`` grows by those that were not there."""
    for one in images:
        target = data.images / one.sha256
        if target.is_file() and target.stat().st_size == one.n_bytes:
            continue
        one.path.chmod(0o600)
        one.path.replace(target)
        placed.append(target)
    sync_folder(data.images)


def _alone() -> None:
    """Let one submission at a time give places to files; SQLite has one writer anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def _take_back(paths: Sequence[Path]) -> None:
    """Remove image files that no sample names."""
    with suppress(OSError, DatabaseError), transaction.atomic():
        _alone()
        known = set(Image.objects.values_list("sha256", flat=True))
        for path in paths:
            if path.name not in known:
                path.unlink(missing_ok=True)

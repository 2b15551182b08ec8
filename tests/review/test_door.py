from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Any

import pytest

from millie.errors import ConfigError
from millie.review.intake import door, limits
from millie.review.intake.door import About, admit, sweep, tray
from millie.review.intake.limits import NoSpaceError, RefusedError, TooLargeError, is_full_disk
from millie.review.models import AuditEvent, Job, OriginalName, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from millie.review.data_folder import DataFolder

    Draw = Callable[..., bytes]
    Pack = Callable[[dict[str, bytes]], bytes]

pytestmark = pytest.mark.django_db
ANN = About("ann", patient="Jane Doe")


def submit(
    data: DataFolder, files: dict[str, bytes], about: About = ANN, also: Any = None
) -> Sample:
    with tray(data) as sent:
        for name, content in files.items():
            sent.put(name, io.BytesIO(content))
        return admit(data, sent, about, also)


def nothing_kept(data: DataFolder) -> bool:
    files = [*data.incoming.iterdir(), *data.images.iterdir()]
    return not files and not any(
        m.objects.exists() for m in (Sample, Job, OriginalName, AuditEvent)
    )


def test_names_go_to_one_table_and_content_is_kept_under_its_digest(
    data: DataFolder, picture: Draw
) -> None:
    sample = submit(data, {"Doe 10.png": picture(1), "Doe 2.png": picture(2)})
    assert [(i.position, i.name) for i in sample.images.all()] == [
        (1, "image-1.png"), (2, "image-2.png"),
    ]  # fmt: skip
    first = sample.images.all()[0]
    assert (data.images / first.sha256).read_bytes() == picture(2)  # 2 before 10
    assert (data.images / first.sha256).stat().st_mode & 0o077 == 0
    names = OriginalName.objects.get()
    assert (names.patient, names.images[first.sha256]) == ("Jane Doe", "Doe 2.png")
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.subject) == ("ann", "sample.submitted", str(sample))
    assert "Doe" not in event.details + str(sample.notes)
    assert sample.jobs.get().status == "queued"
    assert not list(data.incoming.iterdir())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_the_content_decides_what_a_file_is(data: DataFolder, kind: str, picture: Draw) -> None:
    sample = submit(data, {"scan.dat": picture(0, kind)})
    ending = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "BMP": "bmp"}[kind]
    assert sample.images.get().name == f"image-1.{ending}"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("cell.png", b"<html><script>alert(1)</script></html>", "not a readable image"),
        ("cell.jpg", b"cut", "truncated"),
        ("cell.tif", b"", "empty"),
        ("cell.webp", b"RIFF1234WEBP", "cannot be read"),
        ("cell.svs", b"not a slide", "not a whole slide"),
        ("more.zip", b"PK\x03\x04", "an archive among images"),
        ("more.jpg", b"Rar!\x1a\x07\x01\x00", "an archive among images"),
    ],
)
def test_one_unusable_file_refuses_the_whole_with_the_reason(
    data: DataFolder, name: str, content: bytes, why: str, picture: Draw
) -> None:
    content = picture(0, "JPEG")[:-400] if content == b"cut" else content
    with pytest.raises(RefusedError) as caught:
        submit(data, {"good.png": picture(), name: content})
    (refusal,) = caught.value.refusals
    assert refusal.name == name
    assert why in refusal.reason
    assert nothing_kept(data)


def test_files_that_claim_nothing_are_left_aside_and_told(data: DataFolder, picture: Draw) -> None:
    files = {
        "a/1.png": picture(),
        "a/notes.txt": b"hello",
        "a/Thumbs.db": b"x",
        "a/.DS_Store": b"x",
    }
    sample = submit(data, files)
    assert sample.images.count() == 1
    assert sample.notes == ["1 file was not an image: left aside"]


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}])
def test_without_an_image_nothing_is_made(data: DataFolder, files: dict[str, bytes]) -> None:
    with pytest.raises(RefusedError, match="send JPEG"):
        submit(data, files)
    assert nothing_kept(data)


def test_an_image_sent_twice_counts_once_and_one_of_an_earlier_sample_is_told(
    data: DataFolder, picture: Draw
) -> None:
    old = submit(data, {"1.png": picture(1)})
    new = submit(data, {"1.png": picture(1), "2.png": picture(2), "2 copy.png": picture(2)})
    assert new.images.count() == 2
    assert new.notes == [
        "1 file was sent twice: counted once",
        f"1 of its 2 images are in sample {old.pseudonym} too",
    ]


def test_a_zip_is_unpacked_and_may_name_the_patient(
    data: DataFolder, picture: Draw, zipped: Pack
) -> None:
    sent = zipped({"left/1.png": picture(1), "right/2.png": picture(2)})
    sample = submit(data, {"Doe.zip": sent}, About("ann"))
    assert sample.images.count() == 2
    assert OriginalName.objects.get().patient == "Doe"
    assert sample.notes == ["images of 2 folders were read as one sample"]


def test_a_folder_may_name_the_patient(data: DataFolder, picture: Draw) -> None:
    submit(data, {"Doe/1.png": picture(1), "Doe/2.png": picture(2)}, About("ann"))
    assert OriginalName.objects.get().patient == "Doe"


def test_a_bad_zip_is_refused_and_nothing_kept(
    data: DataFolder, picture: Draw, zipped: Pack
) -> None:
    with pytest.raises(RefusedError, match="leads out of"):
        submit(data, {"Doe.zip": zipped({"../1.png": picture()})})
    assert nothing_kept(data)


def test_a_scale_that_no_image_of_cells_has_is_refused(data: DataFolder, picture: Draw) -> None:
    with pytest.raises(ConfigError, match="pixel size"):
        submit(data, {"1.png": picture()}, About("ann", um_px=250.0))
    assert nothing_kept(data)


def test_too_many_files_or_bytes_are_refused(
    data: DataFolder, monkeypatch: pytest.MonkeyPatch, picture: Draw
) -> None:
    files = {f"{i}.png": picture(i) for i in range(3)}
    monkeypatch.setattr(door, "MAX_FILES", 2)
    with pytest.raises(TooLargeError, match="more than 2 files"):
        submit(data, files)
    monkeypatch.setattr(door, "MAX_FILES", 3)
    monkeypatch.setattr(door, "MAX_SAMPLE_BYTES", 2 * len(picture()))
    with pytest.raises(TooLargeError, match="GB in one sample"):
        submit(data, files)
    assert nothing_kept(data)


def test_when_the_rest_fails_the_files_go_too_but_not_those_of_others(
    data: DataFolder, picture: Draw
) -> None:
    old = submit(data, {"1.png": picture(1)})

    def fail(_: Sample) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        submit(data, {"1.png": picture(1), "2.png": picture(2)}, also=fail)
    assert Sample.objects.get() == old
    assert [p.name for p in data.images.iterdir()] == [old.images.get().sha256]


def test_a_file_that_was_cut_short_on_the_disk_is_replaced(data: DataFolder, picture: Draw) -> None:
    sample = submit(data, {"1.png": picture(1)})
    path = data.images / sample.images.get().sha256
    path.write_bytes(b"cut")
    submit(data, {"1.png": picture(1)})
    assert path.read_bytes() == picture(1)


def test_what_a_killed_server_left_is_swept(data: DataFolder, picture: Draw) -> None:
    sample = submit(data, {"1.png": picture(1)})
    (data.incoming / "half").mkdir()
    (data.incoming / "half" / "file-0").write_bytes(b"x")
    (data.images / ("0" * 64)).write_bytes(b"of no sample")
    sweep(data)
    assert [p.name for p in data.images.iterdir()] == [sample.images.get().sha256]
    assert not list(data.incoming.iterdir())


def test_a_name_that_no_database_takes_is_spelt_out(data: DataFolder, picture: Draw) -> None:
    submit(data, {os.fsdecode(b"D\xff\0oe.png"): picture()})
    assert list(OriginalName.objects.get().images.values()) == ["D\\udcffoe.png"]


def test_a_length_is_checked_before_the_body(data: DataFolder) -> None:
    limits.check_length(1000, data.root)
    with pytest.raises(TooLargeError, match=r"10\.0 GB in one request"):
        limits.check_length(10_000_000_000, data.root)


def test_no_room_is_seen_before_the_body(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoSpaceError, match="free some space"):
        limits.check_length(1000, data.root)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (NoSpaceError("x"), True),
        (RuntimeError("database or disk is full"), True),
        (OSError(errno.EACCES, "x"), False),
    ],
)
def test_a_full_disk_is_known_by_what_it_came_of(
    error: Exception, full: bool, wrapped: Callable[[Exception], Exception]
) -> None:
    assert is_full_disk(wrapped(error)) == full


@pytest.fixture
def wrapped() -> Callable[[Exception], Exception]:
    def wrap(error: Exception) -> Exception:
        outer = ValueError("outer")
        outer.__cause__ = error
        return outer

    return wrap

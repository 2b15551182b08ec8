"""DICOM: fields of view (VL Microscopic, VL Slide-Coordinates), and which files are one slide.

Owns what is asked of a DICOM file. Only the elements named here are ever taken out of a file:
names, dates and identifiers of patients are dropped at the door. Whole slides are read by
slides.py. Needs the extra ``slides``; pydicom is imported late.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from millie.errors import ImageError, ImageTooLargeError, MissingPackageError
from millie.readers.apart import HELPER
from millie.readers.colour import Colours, to_srgb
from millie.readers.content import sha256_of
from millie.readers.decoding import decoder_boundary
from millie.readers.metadata import StatedScale, scale_of_sides
from millie.readers.spelling import exists
from millie.types import Field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from millie.config import ReadingConfig
    from millie.types import ImageSource

DIRECTORY = "DICOMDIR"
"""Name of the table of contents of a folder of DICOM files (PS3.10, 8.6)."""

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage (PS3.6, table A-1)."""
_FIELDS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.77.1.2",  # VL Microscopic Image Storage
        "1.2.840.10008.5.1.4.1.1.77.1.3",  # VL Slide-Coordinates Microscopic Image Storage
    }
)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_PREAMBLE, _MAGIC = 128, b"DICM"  # PS3.10, 7.1
_ASK_TO_CONVERT = "convert it with `gdcmconv --raw IN OUT`, or export it as TIFF or PNG"

_OF_KIND = ("SOPClassUID", "ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows")
_OF_OWNER = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")  # compared as digests
_OF_PIXELS = (
    "SOPClassUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelSpacing", "ICCProfile", "OpticalPathSequence", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip


def is_directory(path: Path) -> bool:
    """Whether a path is that of a folder's DICOM table of contents."""
    return path.name.upper() == DIRECTORY and exists(path) and path.is_file()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes; one of another ending is not opened."""
    ending = path.suffix.lower()
    if (ending != ".dcm" and ending[1:].isalpha()) or path.name.upper() == DIRECTORY:
        return False
    if not (exists(path) and path.is_file()):  # a pipe would be waited for
        return False
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC
    return False


def is_whole_slide(path: Path, name: str) -> bool:
    """Whether a DICOM file is a part of a whole slide.

    Raises:
        MissingPackageError: the extra is not installed.
        ImageError: it shows the label or an overview of a slide, or is no DICOM that can be read.
    """
    head = _head(path, name)
    if head.is_slide and head.beside:
        raise ImageError(f"{name}: shows the {head.beside} of a slide, not its cells; leave it out")
    return head.is_slide


def once_a_slide(paths: Sequence[Path]) -> list[Path]:
    """Files to read: of a whole slide, whose levels are files of one series, the finest alone.

    Labels and overviews go with their slide. Files that cannot be read stay, to be named later, and
    all do where the extra is not installed.
    """
    levels: dict[tuple[Path, str], list[tuple[int, Path]]] = {}
    for path in paths:
        head = _known_head(path) if is_dicom(path) else None
        if head is not None and head.is_slide:
            of_film = 0 if head.beside else head.n_pixels
            levels.setdefault((path.parent, head.series), []).append((of_film, path))
    left_out = {
        path
        for series in levels.values()
        for _, path in series
        if path != max(series, key=lambda one: one[0])[1]
    }
    return [path for path in paths if path not in left_out]


def check_one_patient(place: Path, paths: Sequence[Path]) -> None:
    """Check that the DICOM files of a folder are of one patient, by what they state of it.

    Raises:
        ImageError: they are of several.
    """
    heads = (_known_head(path) for path in paths if is_dicom(path))
    owners = {head.owner for head in heads if head is not None and head.owner}
    if len(owners) > 1:
        raise ImageError(
            f"{place}: DICOM files of {len(owners)} patients in one folder, and a folder is one "
            "patient; put each patient's files into a folder of their own"
        )


def read_dicom(
    source: ImageSource,
    data: bytes,
    config: ReadingConfig,
    opened: Callable[[int], None] | None = None,
) -> Field:
    """Decode one field of view, in this process.

    Args:
        source: the file; its pixel size, if known, goes before the file's.
        data: its bytes, for their digest.
        config: limit on pixels.
        opened: called with the number of pixels before they are decoded.

    Raises:
        ImageError: another kind of DICOM file, damaged, or compressed in a way that is not read.
        ImageTooLargeError: it states more pixels than the limit.
        MissingPackageError: the extra is not installed.
    """
    name = source.name
    with decoder_boundary(name):
        dataset = _read(source.path, name, _OF_PIXELS)
        _check(dataset, name, config)
        _check_syntax(dataset.file_meta.get("TransferSyntaxUID"), name)
        if opened is not None:
            opened(int(dataset.Rows) * int(dataset.Columns))
        pixels = importlib.import_module("pydicom.pixels").pixel_array(dataset)
        if pixels.dtype != np.uint8 or pixels.shape != (dataset.Rows, dataset.Columns, 3):
            raise ImageError(f"{name}: its pixels are not those that it states; send it again")
        scale = StatedScale(source.pixel_size) if source.pixel_size else _spacing(dataset)
        image, note = to_srgb(Image.fromarray(pixels), Colours(_profile(dataset)))
    return Field(
        image=np.asarray(image.convert("RGB")),
        source=source,
        pixel_size=scale.pixel_size,
        sha256=sha256_of(data),
        notes=tuple(filter(None, (scale.note, note))),
    )


@dataclass(frozen=True, slots=True)
class Head:
    """What is asked of a header.

    Attributes:
        is_slide: it is part of a whole slide.
        beside: what it shows of the slide if not its film: ``label`` or ``overview``; else empty.
        n_pixels: of the whole level; 0: not stated.
        series: identifier of the series, as a digest.
        owner: of the patient, else of the study, as a digest; empty: none is stated.
    """

    is_slide: bool
    beside: str
    n_pixels: int
    series: str
    owner: str


def head_of(path: Path, name: str) -> Head:
    """Read a header, in this process; identifiers leave it as digests alone.

    Raises:
        ImageError: no DICOM that can be read, or a deflated one.
        MissingPackageError: the extra is not installed.
    """
    with decoder_boundary(name):  # pydicom converts elements when they are asked for
        head = _read(path, name, (*_OF_KIND, *_OF_OWNER))
        size = [int(head.get(f"TotalPixelMatrix{side}") or 0) for side in ("Columns", "Rows")]
        owner = str(head.get("PatientID") or head.get("StudyInstanceUID") or "")
        return Head(
            bool(head.get("SOPClassUID") == WHOLE_SLIDE),
            _beside(head),
            size[0] * size[1],
            sha256_of(str(head.get("SeriesInstanceUID")).encode()),
            sha256_of(owner.encode()) if owner else "",
        )


def _head(path: Path, name: str) -> Head:
    """The same, in the process with limits; a file that did not change is asked for once."""
    _check_installed()
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}); check the file") from error
    return _asked_once(path, name, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=10_000)
def _asked_once(path: Path, name: str, _stamp: tuple[int, int]) -> Head:
    return Head(**HELPER.dicom_head(path, name))


def _known_head(path: Path) -> Head | None:
    """None where it cannot be read: whoever reads the file says why."""
    try:
        return _head(path, path.name)
    except (ImageError, MissingPackageError):
        return None


def _check_installed() -> None:
    """Refuse at once what would need an import in another process to find out.

    Raises:
        MissingPackageError: the extra is not installed.
    """
    with suppress(ValueError):  # of a module that is there in name alone
        if importlib.util.find_spec("pydicom") is not None:
            return
    raise MissingPackageError("DICOM files need pydicom: pip install 'millie[slides]'")


def _pydicom() -> Any:
    # Its warnings quote what a file says, of patients too.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    _check_installed()
    return importlib.import_module("pydicom")


def _read(path: Path, name: str, wanted: Sequence[str]) -> Any:
    """The wanted elements of a file and nothing else of it; a deflated one is never unpacked.

    Values are parsed when they are asked for: ask within :func:`decoder_boundary`.
    """
    pydicom = _pydicom()
    syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == _DEFLATED:
        raise ImageError(f"{name}: a deflated DICOM file is not read; {_ASK_TO_CONVERT}")
    pixels = "PixelData" in wanted
    return pydicom.dcmread(path, specific_tags=list(wanted), stop_before_pixels=not pixels)


def _beside(head: Any) -> str:
    """What a file of a slide shows if it is not its film."""
    kinds = {str(word) for word in head.get("ImageType") or ()}
    return next((word.lower() for word in ("LABEL", "OVERVIEW") if word in kinds), "")


def _check_syntax(syntax: Any, name: str) -> None:
    """Refuse what cannot be decoded."""
    pixels = importlib.import_module("pydicom.pixels")
    if syntax is None:
        raise ImageError(f"{name}: does not state its transfer syntax; send it again")
    if not (syntax.is_private or syntax.is_compressed):
        return
    try:
        decodable = pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        raise ImageError(
            f"{name}: encrypted, or compressed in a way that is not known (transfer syntax "
            f"{syntax.name}); {_ASK_TO_CONVERT}"
        ) from None
    if not decodable:
        raise ImageError(f"{name}: compressed as {syntax.name}, not read; {_ASK_TO_CONVERT}")


def _check(dataset: Any, name: str, config: ReadingConfig) -> None:
    kind = dataset.get("SOPClassUID")
    if kind not in _FIELDS:
        what = kind.name if kind is not None else "no stated kind"
        raise ImageError(f"{name}: a DICOM file of {what}, not microscopy; leave it out")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if rows * columns > config.max_field_megapixels * 1e6:
        raise ImageTooLargeError(
            f"{name}: its header states {columns} x {rows} px; the limit is "
            f"{config.max_field_megapixels:g} MP. Split it into fields, or raise "
            "reading.max_field_megapixels if this is intended"
        )
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(f"{name}: several frames in one file; send each as a file of its own")
    colours = str(dataset.get("PhotometricInterpretation") or "none")
    bits = int(dataset.get("BitsAllocated") or 0)
    if colours not in _COLOURS or bits != 8:
        raise ImageError(
            f"{name}: {bits}-bit pixels of kind {colours}; 8-bit colours (RGB or YBR) are read"
        )


def _spacing(dataset: Any) -> StatedScale:
    """PixelSpacing: mm between rows, then between columns (PS3.3, 10.7)."""
    spacing = dataset.get("PixelSpacing")
    if not spacing:
        return StatedScale()
    return scale_of_sides(float(spacing[1]) * 1e3, float(spacing[0]) * 1e3)


def _profile(dataset: Any) -> bytes | None:
    """ICC profile of the image, or of its first optical path."""
    paths = dataset.get("OpticalPathSequence") or ()
    found = dataset.get("ICCProfile") or (paths[0].get("ICCProfile") if paths else None)
    return bytes(found) if found else None

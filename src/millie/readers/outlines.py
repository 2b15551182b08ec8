"""Outlines of cells drawn or corrected elsewhere: GeoJSON of QuPath and others -> cells with masks.

Owns which files go with which images, which features are cells, and the way from those to cells;
the geometry is rings.py.

A file is called after its image, ``<image>.geojson`` with or without the image's own ending, and
lies in the folder named or in one called after the patient. Locked annotations (a frame, the call
that millie exported) are no cells, nor are annotations around several outlines.

Source: RFC 7946 (GeoJSON), 3.1.6; QuPath's ``GeoJSON`` (qupath.lib.io) for ``objectType``,
``nucleusGeometry`` and ``metadata``.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from millie.errors import ConfigError, DataError, MissingFileError
from millie.files import is_visible, safe_id
from millie.readers.rings import Polygon, inside, mask_of, paste, polygons, with_clumps
from millie.types import Cell, CellRegion, Cohort

if TYPE_CHECKING:
    from millie.config import ReadingConfig
    from millie.types import ImageSource, Patient, Place

SUFFIX = ".geojson"
_CELLS = frozenset({"cell", "detection", "annotation"})
NEAR_PX = 8.0
"""Farthest that the mean of an outline's points is looked for from the middle of its pixels, px of
full resolution, where a field of a slide ends between the two."""
_NO_CELL = "{}: no outline of a cell (Polygon or MultiPolygon) in it"


@dataclass(frozen=True, slots=True, eq=False)
class _Outline:
    """An outline: its parts, those of its nucleus, and the feature's properties."""

    parts: list[Polygon]
    nucleus: list[Polygon]
    properties: Mapping[str, Any]

    @property
    def middle(self) -> NDArray[np.float64]:
        """Mean of the first part's points: x, y in px."""
        middle: NDArray[np.float64] = self.parts[0][0][:-1].mean(axis=0)
        return middle

    def within(self, place: Place) -> _Outline:
        """The same in pixels of a field that was cut of a slide."""
        corner = (place.left_px, place.top_px)
        parts, nucleus = (
            [[(ring - corner) / place.step for ring in polygon] for polygon in polygons]
            for polygons in (self.parts, self.nucleus)
        )
        return _Outline(parts, nucleus, self.properties)


def with_outlines(cohort: Cohort, place: Path) -> Cohort:
    """The cohort, each image of which knows the file of its outlines.

    Args:
        cohort: patients and their images.
        place: one file, or a folder of files, with folders called after patients in it.

    Raises:
        MissingFileError: there is no such file, or the folder has none.
        ConfigError: a file belongs to no image, or to several.
    """
    left = set(_files(place))
    root = place if place.is_dir() else place.parent
    stems = Counter(stem for p in cohort.patients for s in p.images for stem in _stems(s))
    taken: dict[Path, str] = {}
    patients = []
    for patient in cohort.patients:
        images = []
        for source in patient.images:
            path = next((f for f in _candidates(root, patient, source, stems) if f in left), None)
            if path is not None and path in taken:
                raise ConfigError(
                    f"{path} goes with {taken[path]} and with {source.name}: put it into a folder "
                    "called after its patient, or name it with the image's ending"
                )
            if path is not None:
                taken[path] = source.name
            images.append(replace(source, outlines=path))
        patients.append(replace(patient, images=tuple(images)))
    if unused := sorted(left - taken.keys()):
        raise ConfigError(
            f"{unused[0]} goes with no image: call it after its image, for example "
            "field.jpg.geojson; where two patients have an image of that name, put it into a "
            "folder called after the patient"
        )
    return replace(cohort, patients=tuple(patients))


def read_outlines(
    path: Path,
    image: str,
    shape: tuple[int, int],
    config: ReadingConfig,
    place: Place | None = None,
) -> tuple[tuple[CellRegion, ...], tuple[str, ...]]:
    """The cells drawn on an image, or on a field of a slide.

    Args:
        path: the file.
        image: name of its image, for messages: names of files may be withheld.
        shape: (H, W) of the image, at full resolution, or of the field.
        config: the limit on the size of a file.
        place: of a field of a slide; outlines are then in pixels of the slide at full resolution,
            and those whose middle lies near its core are taken. The slide's own fields were cut
            where :func:`outline_middles` lie.

    Returns:
        Cells ordered by (top, left) of their boxes, with a mask of the nucleus where one was
        drawn; and what was passed over.

    Raises:
        DataError: no GeoJSON, a ring that is open, or outlines that cannot be this image's.
    """
    name = f"outlines of {image}"
    drawn, notes = _outlines(path, name, None if place else shape, config)
    if place is not None:
        drawn = [one.within(place) for one in drawn if _is_near(one.middle, place)]
    found = [_region(one, shape) for one in drawn]
    regions = [region for region in found if region is not None]
    if lost := len(found) - len(regions):
        notes["outlines cover no pixel's centre and were left out"] += lost
    if not regions and place is None:
        raise DataError(_NO_CELL.format(name))
    regions.sort(key=lambda region: (region.cell.top_px, region.cell.left_px))
    told = tuple(f"{name}: {count} {text}" for text, count in notes.items())
    return with_clumps(regions, shape), told


def outline_middles(
    path: Path, image: str, shape: tuple[int, int], config: ReadingConfig
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Middles (n, 2) of the cells drawn on a slide, x and y in px of its full resolution.

    Args:
        path: the file.
        image: name of the slide.
        shape: (H, W) of the slide at full resolution.
        config: the limit on the size of a file.

    Returns:
        The middles, and what was passed over.

    Raises:
        DataError: as :func:`read_outlines`.
    """
    name = f"outlines of {image}"
    drawn, notes = _outlines(path, name, shape, config)
    if not drawn:
        raise DataError(_NO_CELL.format(name))
    told = tuple(f"{name}: {count} {text}" for text, count in notes.items())
    return np.array([one.middle for one in drawn]), told


def _outlines(
    path: Path, name: str, shape: tuple[int, int] | None, config: ReadingConfig
) -> tuple[list[_Outline], Counter[str]]:
    """The outlines of cells in a file, and what was passed over; the last file is remembered.

    Args:
        path: the file.
        name: for messages.
        shape: (H, W) of the image that they must lie in; None: that was checked before.
        config: the limit on the size of a file.
    """
    status = path.stat() if path.is_file() else None
    stamp = (status.st_size, status.st_mtime_ns) if status else None
    outlines, notes = _parsed(path, stamp, name, shape, config.max_file_megabytes)
    return list(outlines), Counter(notes)


@lru_cache(maxsize=2)  # of a slide, each of hundreds of fields asks
def _parsed(
    path: Path,
    _stamp: tuple[int, int] | None,
    name: str,
    shape: tuple[int, int] | None,
    max_megabytes: float,
) -> tuple[list[_Outline], Counter[str]]:
    features = _features(_loaded(path, name, max_megabytes), name)
    notes: Counter[str] = Counter()
    drawn = []
    for number, feature in enumerate(features, start=1):
        where = f"{name}, feature {number}"
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise DataError(f"{where}: 'properties' is no object; export the file again")
        if properties.get("objectType", "cell") not in _CELLS or properties.get("isLocked"):
            continue
        if not _is_uuid(feature.get("id")):
            notes["ids are not UUIDs and were not used"] += 1
        parts = polygons(feature.get("geometry"), where, shape)
        inner = feature.get("nucleusGeometry")
        nucleus = polygons(inner, where, shape) if inner else []
        drawn.append(_Outline(parts, nucleus, properties))
    frames = _frames(drawn)
    if frames:
        notes["annotations go around other outlines and are no cells"] += len(frames)
    return [one for index, one in enumerate(drawn) if index not in frames], notes


def _is_near(middle: NDArray[np.float64], place: Place) -> bool:
    """Whether an outline may be that of a cell of a field: whose it is, its pixels decide."""
    left, top, right, bottom = place.core
    x, y = middle
    return bool(left - NEAR_PX <= x < right + NEAR_PX and top - NEAR_PX <= y < bottom + NEAR_PX)


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = [p for p in place.rglob("*") if p.suffix.lower() == SUFFIX and is_visible(p.name)]
    if not found:
        raise MissingFileError(
            f"{place}: no outlines there; name a {SUFFIX} file, or a folder of such files"
        )
    return found


def _stems(source: ImageSource) -> set[str]:
    name = PurePosixPath(source.name).name
    return {name, PurePosixPath(name).stem}


def _candidates(
    root: Path, patient: Patient, source: ImageSource, stems: Mapping[str, int]
) -> Iterator[Path]:
    """Where a file of outlines may lie, the surest place first."""
    names = sorted(_stems(source), key=len, reverse=True)
    for folder in dict.fromkeys([safe_id(patient.id), patient.id]):
        yield from (root / folder / (name + SUFFIX) for name in names)
    yield from (root / (name + SUFFIX) for name in names if stems[name] == 1)


def _loaded(path: Path, name: str, max_megabytes: float) -> Any:
    try:
        if path.stat().st_size > max_megabytes * 1e6:
            raise DataError(
                f"{name}: more than {max_megabytes:g} MB; raise "
                "reading.max_file_megabytes if it is right"
            )
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name}: not GeoJSON ({error}); export it again, in QuPath: File, Export objects "
            "as GeoJSON"
        ) from error


def _features(content: Any, name: str) -> list[dict[str, Any]]:
    """Features of a collection, of a bare list (older exports), or a single one."""
    found = content
    if isinstance(content, dict):
        found = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and one.get("type") == "Feature" for one in found
    ):
        raise DataError(f"{name}: expected a GeoJSON FeatureCollection; export it again")
    return found


def _is_uuid(text: Any) -> bool:
    """Whether it is a UUID, or nothing."""
    if text is None:
        return True
    try:
        uuid.UUID(str(text))
    except ValueError:
        return False
    return True


def _frames(drawn: Sequence[_Outline]) -> set[int]:
    """Indices of annotations around two other outlines or more: an area that somebody looked at."""
    middles = np.array([one.middle for one in drawn]).reshape(-1, 2)
    return {
        index
        for index, one in enumerate(drawn)
        if one.properties.get("objectType") == "annotation"
        and sum(inside(part[0], np.delete(middles, index, axis=0)).sum() for part in one.parts) > 1
    }


def _region(outline: _Outline, shape: tuple[int, int]) -> CellRegion | None:
    """The cell of an outline, of its parts the one that covers most; None: it covers nothing."""
    parts = [mask_of(polygon, shape) for polygon in outline.parts]
    (top, left), mask = max(parts, key=lambda part: int(part[1].sum()))
    if not mask.any():
        return None
    rows, columns = np.nonzero(mask)
    first_row, first_column = int(rows.min()), int(columns.min())
    mask = mask[first_row : rows.max() + 1, first_column : columns.max() + 1]
    top, left = top + first_row, left + first_column
    height, width = mask.shape
    nucleus = np.zeros_like(mask)
    for polygon in outline.nucleus:
        paste(nucleus, top, left, *mask_of(polygon, shape))
    metadata = outline.properties.get("metadata")
    cell = Cell(
        source=0,
        x_px=left + float(columns.mean()) - first_column,
        y_px=top + float(rows.mean()) - first_row,
        left_px=left, top_px=top, width_px=width, height_px=height, area_px=float(mask.sum()),
        at_border=not (left > 0 and left + width < shape[1] and top > 0
                       and top + height < shape[0]),
        smudge=isinstance(metadata, dict) and metadata.get("smudge") == "yes",
    )  # fmt: skip
    return CellRegion(cell, mask, nucleus & mask)

"""Outlines of cells drawn or corrected elsewhere: GeoJSON of QuPath and others -> cells with masks.

Owns which files go with which images, the rules of a file (closed rings, pixels of the
full-resolution image) and the way from rings to masks. A pixel belongs to a cell if its centre lies
inside the ring.

A file is called after its image, ``<image>.geojson`` with or without the image's own ending, and
lies in the folder named or in one called after the patient. Locked annotations (a frame, the call
that millie exported) are no cells, nor are annotations around several outlines.

Source: RFC 7946 (GeoJSON), 3.1.6; QuPath's ``GeoJSON`` (qupath.lib.io) for ``objectType``,
``nucleusGeometry`` and ``metadata``.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from millie.errors import ConfigError, DataError, MissingFileError
from millie.files import is_visible, safe_id
from millie.types import Cell, CellRegion, Cohort

if TYPE_CHECKING:
    from millie.config import ReadingConfig
    from millie.types import ImageSource, Patient

SUFFIX = ".geojson"
_CELLS = frozenset({"cell", "detection", "annotation"})
_FARTHEST_PX = 100.0  # beyond the image's edge: a hand slips, another scale goes much farther
_MOST_POINTS = 1_000_000  # looked at together: 20 MB, where an outline may be as large as its image

Polygon = list[NDArray[np.float64]]
"""Outer ring and holes, each (n, 2): x, y in px."""
_Drawn = tuple[list[Polygon], Mapping[str, Any], Mapping[str, Any], str]
"""An outline: its parts, its feature and properties, and where it stands, for messages."""


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
    path: Path, image: str, shape: tuple[int, int], config: ReadingConfig
) -> tuple[tuple[CellRegion, ...], tuple[str, ...]]:
    """The cells drawn on an image.

    Args:
        path: the file.
        image: name of its image, for messages: names of files may be withheld.
        shape: (H, W) of the full-resolution image.
        config: the limit on the size of a file.

    Returns:
        Cells ordered by (top, left) of their boxes, with a mask of the nucleus where one was
        drawn; and what was passed over.

    Raises:
        DataError: no GeoJSON, a ring that is open, or outlines that cannot be this image's.
    """
    name = f"outlines of {image}"
    features = _features(_loaded(path, name, config), name)
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
        polygons = _polygons(feature.get("geometry"), where, shape)
        drawn.append((polygons, feature, properties, where))
    frames = _frames(drawn)
    if frames:
        notes["annotations go around other outlines and are no cells"] += len(frames)
    regions = []
    for index, (polygons, feature, properties, where) in enumerate(drawn):
        if index in frames:
            continue
        region = _region(polygons, feature, properties, shape, where)
        if region is None:
            notes["outlines cover no pixel's centre and were left out"] += 1
        else:
            regions.append(region)
    if not regions:
        raise DataError(f"{name}: no outline of a cell (Polygon or MultiPolygon) in it")
    regions.sort(key=lambda region: (region.cell.top_px, region.cell.left_px))
    told = tuple(f"{name}: {count} {text}" for text, count in notes.items())
    return _with_clumps(regions, shape), told


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


def _loaded(path: Path, name: str, config: ReadingConfig) -> Any:
    try:
        if path.stat().st_size > config.max_file_megabytes * 1e6:
            raise DataError(
                f"{name}: more than {config.max_file_megabytes:g} MB; raise "
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


def _frames(drawn: Sequence[_Drawn]) -> set[int]:
    """Indices of annotations around two other outlines or more: an area that somebody looked at."""
    middles = np.array([polygons[0][0][:-1].mean(axis=0) for polygons, *_ in drawn]).reshape(-1, 2)
    return {
        index
        for index, (polygons, _, properties, _) in enumerate(drawn)
        if properties.get("objectType") == "annotation"
        and sum(_inside(one[0], np.delete(middles, index, axis=0)).sum() for one in polygons) > 1
    }


def _region(
    polygons: Sequence[Polygon],
    feature: Mapping[str, Any],
    properties: Mapping[str, Any],
    shape: tuple[int, int],
    where: str,
) -> CellRegion | None:
    """The cell of a feature: of several parts the one that covers most; None: it covers nothing."""
    parts = [_mask(polygon, shape) for polygon in polygons]
    (top, left), mask = max(parts, key=lambda part: int(part[1].sum()))
    if not mask.any():
        return None
    rows, columns = np.nonzero(mask)
    first_row, first_column = int(rows.min()), int(columns.min())
    mask = mask[first_row : rows.max() + 1, first_column : columns.max() + 1]
    top, left = top + first_row, left + first_column
    height, width = mask.shape
    nucleus = np.zeros_like(mask)
    if feature.get("nucleusGeometry"):
        for polygon in _polygons(feature["nucleusGeometry"], where, shape):
            _paste(nucleus, top, left, *_mask(polygon, shape))
    metadata = properties.get("metadata")
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


def _polygons(geometry: Any, where: str, shape: tuple[int, int]) -> list[Polygon]:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise DataError(f"{where}: geometry {kind!r}, expected Polygon or MultiPolygon")
    coordinates = geometry.get("coordinates")
    several = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(several, list) or not several:
        raise DataError(f"{where}: no coordinates; export the file again")
    return [_polygon(one, where, shape) for one in several]


def _polygon(rings: Any, where: str, shape: tuple[int, int]) -> Polygon:
    if not isinstance(rings, list) or not rings:
        raise DataError(f"{where}: a polygon without a ring; export the file again")
    return [_ring(ring, where, shape) for ring in rings]


def _ring(points: Any, where: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        ring = np.array([(float(point[0]), float(point[1])) for point in points], np.float64)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise DataError(f"{where}: a ring that is no list of x, y; export it again") from error
    if len(ring) < 4 or not np.array_equal(ring[0], ring[-1]):
        raise DataError(
            f"{where}: the ring is open (its last point is not its first), so it outlines nothing; "
            "draw polygons, not lines, and export the file again"
        )
    height, width = shape
    low, high = ring.min(), (ring - (width, height)).max()
    if not (math.isfinite(ring.sum()) and low >= -_FARTHEST_PX and high <= _FARTHEST_PX):
        raise DataError(
            f"{where}: lies outside the image of {width} x {height} px; outlines must be in pixels "
            "of the full-resolution image, and of this one"
        )
    return ring


def _mask(polygon: Polygon, shape: tuple[int, int]) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """Top and left, and which pixel centres within the image lie inside a polygon."""
    outer, *holes = polygon
    left, top = (max(0, math.floor(value)) for value in outer.min(axis=0))
    right, bottom = (
        max(start, min(size, math.ceil(value)))
        for start, size, value in zip(
            (left, top), (shape[1], shape[0]), outer.max(axis=0), strict=True
        )
    )
    mask = np.zeros((bottom - top, right - left), np.bool_)
    band = max(1, _MOST_POINTS // max(1, right - left))
    for start in range(top, bottom, band):
        rows = np.arange(start, min(start + band, bottom))
        x, y = np.meshgrid(np.arange(left, right) + 0.5, rows + 0.5)
        centres = np.column_stack([x.ravel(), y.ravel()])
        inside = _inside(outer, centres)
        for hole in holes:
            inside &= ~_inside(hole, centres)
        mask[rows - top] = inside.reshape(x.shape)
    return (top, left), mask


def _inside(ring: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.bool_]:
    if not len(centres):
        return np.zeros(0, np.bool_)
    from matplotlib.path import Path as Curve  # noqa: PLC0415 - slow to load

    return np.asarray(Curve(ring, closed=True).contains_points(centres), np.bool_)


def _paste(
    onto: NDArray[np.bool_], top: int, left: int, place: tuple[int, int], mask: NDArray[np.bool_]
) -> None:
    """Add a mask at a place of the image to one whose corner is (top, left)."""
    rows, columns = np.nonzero(mask)
    rows, columns = rows + place[0] - top, columns + place[1] - left
    kept = (rows >= 0) & (rows < onto.shape[0]) & (columns >= 0) & (columns < onto.shape[1])
    onto[rows[kept], columns[kept]] = True


def _with_clumps(regions: Sequence[CellRegion], shape: tuple[int, int]) -> tuple[CellRegion, ...]:
    """The cells, those flagged that share a pixel or a border with another one."""
    covered = np.zeros((shape[0] + 2, shape[1] + 2), np.uint8)  # a rim of one pixel all round
    for region in regions:
        window = covered[_window(region)]
        np.add(window, 1, out=window, where=_dilated(region.cell_mask) & (window < 255))
    return tuple(
        replace(region, cell=replace(region.cell, in_clump=True))
        if (covered[_window(region)][1:-1, 1:-1][region.cell_mask] > 1).any()
        else region
        for region in regions
    )


def _window(region: CellRegion) -> tuple[slice, slice]:
    cell = region.cell
    return (
        slice(cell.top_px, cell.top_px + cell.height_px + 2),
        slice(cell.left_px, cell.left_px + cell.width_px + 2),
    )


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with a rim of one pixel, its four neighbours added."""
    wide = np.pad(mask, 1)
    grown = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown

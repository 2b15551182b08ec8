"""DICOM: for each patient a structured report, annotations of the cells, and the images they mean.

Owns what the report (Comprehensive SR, TID 1500) and the bulk annotations say. Both are made by
software: the report is preliminary, unverified and names algorithm, version and the digest of the
weights; annotations are automatic. Cells of an image without a scale cannot be bulk annotations and
stand in the report. States and classes are codes of the private scheme ``99MILLIE``.

Source: DICOM PS3.3, A.35.3, A.87; PS3.16, TID 1500.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
from highdicom import ann, sr
from pydicom.sr.codedict import codes

from millie import __version__
from millie.bags.store import Store
from millie.errors import DataError
from millie.files import safe_id, spelt_out, write_bytes
from millie.outputs.exports.dicom_images import MANUFACTURER, Study, is_slide, wrapped
from millie.outputs.exports.outlines import Outline, Ring, cell_outlines
from millie.outputs.exports.samples import (
    INTENDED_USE,
    STATUS,
    Exported,
    failed_of,
    read_run,
    reasons,
)
from millie.outputs.exports.target import new_folder
from millie.outputs.patient.states import words_for
from millie.readers.fields import read_again
from millie.readers.images import read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from millie.config import ReadingConfig
    from millie.outputs.exports.samples import Sample
    from millie.types import SourceRecord

SCHEME = "99MILLIE"
_CODE_LENGTH, _MEANING_LENGTH = 16, 64  # of DICOM's SH and LO
_SHORTER = {"URGENT_INDETERMINATE": "URGENT_INDET"}
_SQUARE_UM = sr.CodedConcept("um2", "UCUM", "square micrometer")
_LEUKOCYTE = sr.CodedConcept("52501007", "SCT", "Leukocyte")


def export_dicom(folder: Path, out: Path) -> Exported:
    """Write report, annotations and images of every patient with a call.

    Args:
        folder: of the run.
        out: a new folder; a folder a patient in it.

    Returns:
        the number of patients, and those without a call.

    Raises:
        ConfigError: ``out`` exists.
        MissingFileError, DataError: as :func:`millie.outputs.exports.samples.read_run`; an image
            is gone or has changed since.
    """
    run, samples = read_run(folder)
    limits = Store(run.store).description.config.reading
    count = 0
    with new_folder(out) as new:
        for sample in samples:
            study = Study(run, sample.result.patient)
            _write_patient(new / safe_id(study.patient), study, sample, limits)
            count += 1
    return Exported(count, failed_of(run))


def _write_patient(place: Path, study: Study, sample: Sample, limits: ReadingConfig) -> None:
    outlines = list(cell_outlines(sample))
    images = []
    for index, record in enumerate(sample.sources):
        path = _place_of(record, sample)
        field = read_again(record, path, limits)
        data = read_bytes(path, record.name, limits) if record.place is None else b""
        if field.sha256 != record.sha256:
            raise DataError(f"{record.name} has changed since the call; predict again")
        image = wrapped(study, sample, index, field.image, data)
        _save(place / f"image-{index + 1:04d}.dcm", image)
        if is_slide(record) and sample.cells_of(index):
            _save(
                place / f"annotations-{index + 1:04d}.dcm",
                _annotations(study, sample, index, image, outlines),
            )
        del image.PixelData  # the report needs the heads of all images, not their pixels
        images.append(image)
    _save(place / "report.dcm", _report(study, sample, images, outlines))


def _place_of(record: SourceRecord, sample: Sample) -> Path:
    """Where an image lies.

    Raises:
        DataError: the bag does not tell.
    """
    if not record.path:
        raise DataError(
            f"{record.name}: the store does not tell where the image lies (pseudonyms), and DICOM "
            "needs it; predict again without pseudonyms, or export qupath or fhir"
        )
    return Path(os.path.normpath(sample.bag.parent.resolve() / record.path))


def _annotations(
    study: Study, sample: Sample, index: int, image: Dataset, outlines: Sequence[Outline]
) -> Dataset:
    """The cells of one image with outline, probabilities and area."""
    numbers = sample.cells_of(index)
    labels = study.run.model.labels
    measured = [
        ann.Measurements(
            _probability(i, label), sample.probabilities[numbers, i], codes.UCUM.NoUnits
        )
        for i, label in enumerate(labels)
    ]
    areas = [sample.cells[n].area_um2 for n in numbers]
    if all(area is not None for area in areas):
        measured.append(ann.Measurements(codes.SCT.Area, np.array(areas, np.float32), _SQUARE_UM))
    model = study.run.model
    group = ann.AnnotationGroup(
        number=1,
        uid=study.uid("cells", index),
        label="Leukocytes",
        annotated_property_category=codes.SCT.AnatomicalStructure,
        annotated_property_type=_LEUKOCYTE,
        graphic_type=ann.GraphicTypeValues.POLYGON,
        graphic_data=[
            _in_image(outlines[n][0][:-1], sample.sources[index]).astype(np.float32)
            for n in numbers
        ],
        algorithm_type=ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name,
            family=codes.DCM.ArtificialIntelligence,
            version=model.version,
            parameters={"weights": model.sha256},
        ),
        measurements=measured,
        description=_text(f"Each cell scored alone. {STATUS} {INTENDED_USE}", 1024),
    )
    return ann.MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type=ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=[group],
        series_instance_uid=study.uid("annotations"),
        series_number=len(sample.sources) + 2,
        sop_instance_uid=study.uid("annotations", index),
        instance_number=index + 1,
        content_label="LEUKOCYTES",
        content_description=_text(INTENDED_USE, _MEANING_LENGTH),
        manufacturer_model_name=MANUFACTURER,
        software_versions=__version__,
        device_serial_number="unknown",
        manufacturer=MANUFACTURER,
    )


def _in_image(ring: Ring, record: SourceRecord) -> Ring:
    """A ring in pixels of the wrapped image: of the field, where one was cut from a slide."""
    place = record.place
    if place is None:
        return ring
    return np.asarray((ring - (place.left_px, place.top_px)) / place.step)


def _report(
    study: Study, sample: Sample, images: Sequence[Dataset], outlines: Sequence[Outline]
) -> Dataset:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=study.uid("device"),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=_text(study.run.model.title, _MEANING_LENGTH),
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    groups = [_call(study, sample)]
    for index, record in enumerate(sample.sources):
        if not is_slide(record):
            groups += [_region(study, sample, n, images[index], outlines[n])
                       for n in sample.cells_of(index)]  # fmt: skip
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_code("FILM_ANALYSIS", "Image analysis of blood film or bone marrow"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=images,
    )
    return sr.ComprehensiveSR(
        evidence=images,
        content=content,
        series_instance_uid=study.uid("report"),
        series_number=len(sample.sources) + 3,
        sop_instance_uid=study.uid("report", "document"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )


def _call(study: Study, sample: Sample) -> sr.MeasurementsAndQualitativeEvaluations:
    """The patient's state, probabilities and number of cells."""
    result, words = sample.result, words_for(sample.result.state)
    measurements = [
        sr.Measurement(_probability(i, label), p, codes.UCUM.NoUnits)
        for i, (label, p) in enumerate(result.probabilities.items())
    ]
    counted = _code("N_CELLS", "Leukocytes analysed")
    measurements.append(sr.Measurement(counted, result.n_cells, codes.UCUM.NoUnits))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(study.uid("call"), "Call for the patient"),
        algorithm_id=_algorithm(study),
        measurements=measurements,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                _code("CALL", "Call by software, unconfirmed"), _code(result.state, words.title)
            )
        ],
    )
    told = [words.meaning, reasons(result), study.run.model.scope, STATUS, INTENDED_USE]
    for text in filter(None, told):
        comment = sr.TextContentItem(
            codes.DCM.Comment, _text(text, 4096), sr.RelationshipTypeValues.CONTAINS
        )
        group[0].ContentSequence.append(comment)
    return group


def _region(
    study: Study, sample: Sample, n: int, image: Dataset, outline: Outline
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """A cell of an image without a scale."""
    region = sr.ImageRegion(
        sr.GraphicTypeValues.POLYLINE,
        _in_image(outline[0], sample.sources[sample.cells[n].source]),
        sr.SourceImageForRegion.from_source_image(image),
    )
    labels = study.run.model.labels
    scores = zip(labels, sample.probabilities[n].tolist(), strict=True)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(study.uid("cell", n), f"Cell {n}"),
        referenced_region=region,
        finding_type=_LEUKOCYTE,
        algorithm_id=_algorithm(study),
        measurements=[
            sr.Measurement(_probability(i, label), p, codes.UCUM.NoUnits)
            for i, (label, p) in enumerate(scores)
        ],
    )


def _algorithm(study: Study) -> sr.AlgorithmIdentification:
    model = study.run.model
    return sr.AlgorithmIdentification(
        name=model.name, version=model.version, parameters=[f"weights SHA-256 {model.sha256}"]
    )


def _probability(number: int, label: str) -> sr.CodedConcept:
    return _code(f"P_{number}", f"Probability of {label} by the model")


def _code(value: str, meaning: str) -> sr.CodedConcept:
    """A code of our own; one that is too long for DICOM ends in a part of its digest."""
    value = _SHORTER.get(value, value)
    if len(value) > _CODE_LENGTH:
        digest = hashlib.sha256(value.encode()).hexdigest()[:4].upper()
        value = f"{value[: _CODE_LENGTH - 5]}_{digest}"
    return sr.CodedConcept(value, SCHEME, _text(meaning, _MEANING_LENGTH))


def _text(text: str, length: int) -> str:
    return spelt_out(text)[:length]


def _save(path: Path, made: Any) -> None:
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    write_bytes(path, stream.getvalue())

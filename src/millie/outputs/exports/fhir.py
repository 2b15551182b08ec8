"""FHIR R4: a bundle a patient with DiagnosticReport, Observation, Device and Specimen.

Owns the mapping of a call onto these resources. Everything is preliminary. No code says more than
is known: what was counted or called by software carries no LOINC code of a person's count or
finding, an indeterminate call has no value but the word and the interpretation "indeterminate",
and a patient without a result has a reason in its place. The patient is named by the pseudonym
alone, as a logical reference.

Source: HL7 FHIR R4 (4.0.1), pages DiagnosticReport, Observation, Device, Specimen and Bundle.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from millie import __version__
from millie.errors import ConfigError
from millie.files import safe_id, spelt_out, write_bytes
from millie.outputs.exports.samples import INTENDED_USE, STATUS, reasons, run_of
from millie.outputs.exports.target import check_new, new_folder, write_new
from millie.outputs.patient.states import words_for

if TYPE_CHECKING:
    from pathlib import Path

    from millie.outputs.patient.records import PatientResult, PredictionRun

SUFFIX = ".json"
_CODES = "http://terminology.hl7.org/CodeSystem/"
_INDETERMINATE = frozenset({"INDETERMINATE", "URGENT_INDETERMINATE"})

Resource = dict[str, Any]


def export_fhir(folder: Path, out: Path) -> int:
    """Write a bundle for every patient of a run, failed ones included.

    Args:
        folder: of the run.
        out: a new folder, with a file a patient in it; or a new file, whose name ends in ``.json``,
            where the run has one patient.

    Returns:
        the number of patients.

    Raises:
        ConfigError: ``out`` exists, or is a file and the run has several patients.
        MissingFileError, DataError: it is no prediction run, or damaged.
    """
    check_new(out)
    run = run_of(folder)
    if out.suffix == SUFFIX:
        if len(run.patients) != 1:
            raise ConfigError(
                f"{folder} has {len(run.patients)} patients, and a report is for one: name a "
                "folder, not a file"
            )
        write_new(out, _written(bundle(run, run.patients[0])))
        return 1
    with new_folder(out) as new:
        for result in run.patients:
            write_bytes(new / (safe_id(result.patient) + SUFFIX), _written(bundle(run, result)))
    return len(run.patients)


def bundle(run: PredictionRun, result: PatientResult) -> Resource:
    """One patient's resources; those who refer to others use their ``fullUrl``."""
    urls = {
        kind: _url(run, result, kind)
        for kind in ("DiagnosticReport", "Observation", "Device", "Specimen")
    }
    subject = {"type": "Patient", "identifier": {"value": _text(result.patient)}}
    resources = [
        _report(run, result, subject, urls),
        _observation(run, result, subject, urls),
        _device(run),
        {"resourceType": "Specimen", "subject": subject,
         "type": {"text": "Blood film or bone marrow smear, as sent"}},
    ]  # fmt: skip
    return {
        "resourceType": "Bundle",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": _url(run, result, "Bundle")},
        "type": "collection",
        "timestamp": run.created,
        "entry": [{"fullUrl": urls[one["resourceType"]], "resource": one} for one in resources],
    }


def _report(
    run: PredictionRun, result: PatientResult, subject: Resource, urls: dict[str, str]
) -> Resource:
    words = words_for(result.state)
    told = [
        f"{words.title}. {words.meaning}", reasons(result), run.model.scope, STATUS, INTENDED_USE,
    ]  # fmt: skip
    return {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "category": [_coded("v2-0074", "HM", "Hematology")],
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": "11502-2", "display": "Laboratory report"}
            ],
            "text": "Blood film or bone marrow, image analysis by software",
        },
        "subject": subject,
        "issued": run.created,
        "specimen": [{"reference": urls["Specimen"]}],
        "result": [{"reference": urls["Observation"]}],
        "conclusion": _text(" ".join(filter(None, told))),
    }


def _observation(
    run: PredictionRun, result: PatientResult, subject: Resource, urls: dict[str, str]
) -> Resource:
    found: Resource = {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_coded("observation-category", "laboratory", "Laboratory")],
        "code": {"text": "Call of image analysis software, unconfirmed"},
        "subject": subject,
        "issued": run.created,
    }
    if result.failed:
        found["dataAbsentReason"] = _coded("data-absent-reason", "error", "Error")
    else:
        found["valueCodeableConcept"] = {"text": result.state}
    if result.state in _INDETERMINATE:
        found["interpretation"] = [_coded("v3-ObservationInterpretation", "IND", "Indeterminate")]
    meaning = words_for(result.state).meaning
    notes = [meaning, reasons(result), run.model.scope, STATUS, INTENDED_USE]
    found["note"] = [{"text": _text(note)} for note in notes if note]
    found["specimen"] = {"reference": urls["Specimen"]}
    found["device"] = {"reference": urls["Device"]}
    if not result.failed:
        found["component"] = [_probability(label, p) for label, p in result.probabilities.items()]
        counted = {"code": {"text": "Leukocytes analysed"}, "valueInteger": result.n_cells}
        found["component"].append(counted)
    return found


def _probability(label: str, p: float) -> Resource:
    quantity = {
        "value": round(p, 6), "unit": "1", "system": "http://unitsofmeasure.org", "code": "1",
    }  # fmt: skip
    text = f"Probability of {label} by the model, 0 to 1, among its classes"
    return {"code": {"text": text}, "valueQuantity": quantity}


def _device(run: PredictionRun) -> Resource:
    versions = {
        "model": run.model.version,
        "SHA-256 of the model's manifest": run.model.sha256,
        "millie": __version__,
    }
    return {
        "resourceType": "Device",
        "status": "active",
        "deviceName": [{"name": f"millie, model {run.model.name}", "type": "model-name"}],
        "type": {"text": "Software that analyses images of blood films"},
        "version": [{"type": {"text": kind}, "value": value} for kind, value in versions.items()],
        "note": [{"text": INTENDED_USE}],
    }


def _coded(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": _CODES + system, "code": code, "display": display}]}


def _url(run: PredictionRun, result: PatientResult, kind: str) -> str:
    """The same whenever the same run is exported; another run is another report."""
    key = f"{run.created}\n{run.model.sha256}\n{result.patient}\n{kind}"
    return uuid.uuid5(uuid.NAMESPACE_OID, spelt_out(key)).urn


def _text(text: str) -> str:
    """As FHIR's ``string``: UTF-8, no spaces around it, not empty."""
    return spelt_out(text).strip() or "-"


def _written(resource: Resource) -> bytes:
    return (json.dumps(resource, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

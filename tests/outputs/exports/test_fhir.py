"""FHIR bundles: value sets, elements, references and what may be said, by our own strict rules.

Every Python validator that was tried takes ``"status": "bogus"``. Where Node and the npm package
``fhir`` 4.12 are at hand (``NODE_PATH``), its validator of the whole of R4 is asked too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from millie.errors import ConfigError
from millie.outputs.exports.fhir import export_fhir
from millie.outputs.patient.tables import read_predictions

from .conftest import FAILED, STATES

REQUIRED = {
    # http://hl7.org/fhir/R4/valueset-diagnostic-report-status.html
    ("DiagnosticReport", "status"): {
        "registered", "partial", "preliminary", "final", "amended", "corrected", "appended",
        "cancelled", "entered-in-error", "unknown",
    },
    # http://hl7.org/fhir/R4/valueset-observation-status.html
    ("Observation", "status"): {
        "registered", "preliminary", "final", "amended", "corrected", "cancelled",
        "entered-in-error", "unknown",
    },
    # http://hl7.org/fhir/R4/valueset-device-status.html
    ("Device", "status"): {"active", "inactive", "entered-in-error", "unknown"},
    # http://hl7.org/fhir/R4/valueset-bundle-type.html
    ("Bundle", "type"): {
        "document", "message", "transaction", "transaction-response", "batch", "batch-response",
        "history", "searchset", "collection",
    },
}  # fmt: skip
NAME_TYPES = {  # http://hl7.org/fhir/R4/valueset-device-nametype.html
    "udi-label-name", "user-friendly-name", "patient-reported-name", "manufacturer-name",
    "model-name", "other",
}  # fmt: skip
ELEMENTS = {  # http://hl7.org/fhir/R4/<resource>.html, those in use
    "Bundle": {"resourceType", "identifier", "type", "timestamp", "entry"},
    "DiagnosticReport": {
        "resourceType", "status", "category", "code", "subject", "issued", "specimen", "result",
        "conclusion",
    },
    "Observation": {
        "resourceType", "status", "category", "code", "subject", "issued", "valueCodeableConcept",
        "dataAbsentReason", "interpretation", "note", "specimen", "device", "component",
    },
    "Device": {"resourceType", "status", "deviceName", "type", "version", "note"},
    "Specimen": {"resourceType", "subject", "type"},
}  # fmt: skip
CODES = {  # the code systems' own pages at http://terminology.hl7.org/CodeSystem/
    ("v2-0074", "HM"), ("observation-category", "laboratory"), ("data-absent-reason", "error"),
    ("v3-ObservationInterpretation", "IND"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bundles(called: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fhir") / "reports"
    assert export_fhir(called, out) == 4
    return out


def loaded(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def resources(bundle: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {e["resource"]["resourceType"]: e["resource"] for e in bundle["entry"]}


def inside(value: Any, key: str) -> Iterator[Any]:
    """Every value of a key, at any depth."""
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k == key)
        for each in value.values():
            yield from inside(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from inside(each, key)


def test_only_elements_and_codes_of_r4_occur(bundles: Path) -> None:
    for bundle in loaded(bundles):
        for one in (bundle, *resources(bundle).values()):
            kind = one["resourceType"]
            assert one.keys() <= ELEMENTS[kind]
            for element in {"status", "type"} & one.keys():
                if (kind, element) in REQUIRED:
                    assert one[element] in REQUIRED[kind, element]
        for coding in inside(bundle, "coding"):
            for one in coding:
                system = one["system"].removeprefix("http://terminology.hl7.org/CodeSystem/")
                loinc = (one["system"], one["code"]) == ("http://loinc.org", "11502-2")
                assert loinc or (system, one["code"]) in CODES
        (name,) = resources(bundle)["Device"]["deviceName"]
        assert name["type"] in NAME_TYPES
        assert datetime.fromisoformat(bundle["timestamp"]).tzinfo is not None


def test_every_reference_resolves_within_its_bundle(bundles: Path) -> None:
    for bundle in loaded(bundles):
        urls = [entry["fullUrl"] for entry in bundle["entry"]]
        assert len(set(urls)) == len(urls) == 4
        found = list(inside(bundle, "reference"))
        assert set(found) <= set(urls)
        assert len(found) == 4


def test_nothing_is_final_and_every_patient_is_there(called: Path, bundles: Path) -> None:
    run = read_predictions(called)
    states = {}
    for bundle in loaded(bundles):
        by_kind = resources(bundle)
        report, observation = by_kind["DiagnosticReport"], by_kind["Observation"]
        assert report["status"] == observation["status"] == "preliminary"
        assert "not reviewed by a person" in report["conclusion"]
        assert run.model.scope in report["conclusion"]
        assert {"text": run.model.scope} in observation["note"]
        assert "research use only" in report["conclusion"]
        value = observation.get("valueCodeableConcept")
        assert ("dataAbsentReason" in observation) == (value is None), "obs-6"
        states[report["subject"]["identifier"]["value"]] = value["text"] if value else "FAILED"
    assert states == {result.patient: result.state for result in run.patients}


def test_what_is_not_known_is_not_told(bundles: Path) -> None:
    for bundle in loaded(bundles):
        observation = resources(bundle)["Observation"]
        state = observation.get("valueCodeableConcept", {}).get("text")
        codes = [c["code"] for one in observation.get("interpretation", []) for c in one["coding"]]
        assert codes == (["IND"] if "INDETERMINATE" in str(state) else [])
        assert "coding" not in observation["code"], "no code of a person's finding"
        if state in STATES[1:]:
            assert any("at least 50" in note["text"] for note in observation["note"])
        if state is None:
            assert "component" not in observation
            assert any("take other fields" in note["text"] for note in observation["note"])


def test_the_model_is_named_to_the_byte(called: Path, bundles: Path) -> None:
    model = read_predictions(called).model
    for bundle in loaded(bundles):
        versions = [v["value"] for v in resources(bundle)["Device"]["version"]]
        assert versions[:2] == [model.version, model.sha256]


def test_equal_runs_give_equal_files_and_patients_other_ids(
    called: Path, bundles: Path, tmp_path: Path
) -> None:
    export_fhir(called, tmp_path / "again")
    for path in bundles.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    urls = [url for bundle in loaded(bundles) for url in inside(bundle, "fullUrl")]
    assert len(set(urls)) == len(urls)


def test_one_file_is_for_one_patient(called: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 4 patients"):
        export_fhir(called, tmp_path / "all.json")
    alone = shutil.copytree(called, tmp_path / "calls")
    content = json.loads((called / "predictions.json").read_text())
    content["patients"] = content["patients"][-1:]
    (alone / "predictions.json").write_text(json.dumps(content))
    assert export_fhir(alone, tmp_path / "one.json") == 1
    report = resources(json.loads((tmp_path / "one.json").read_text()))["DiagnosticReport"]
    assert report["subject"]["identifier"]["value"] == FAILED


VALIDATE = """
const fhir = new (require('fhir').Fhir)();
const answers = process.argv.slice(1).map(path => {
  const bundle = JSON.parse(require('fs').readFileSync(path));
  const found = fhir.validate(bundle, {errorOnUnexpected: true});
  bundle.entry[0].resource.status = 'bogus';
  return [found.valid, found.messages.filter(m => m.severity == 'error'),
          fhir.validate(bundle).valid];
});
console.log(JSON.stringify(answers));
"""


def test_the_validator_of_others_finds_no_fault(bundles: Path) -> None:
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('fhir')"], check=False).returncode:  # noqa: S603
        pytest.skip("needs node and the npm package fhir (npm install fhir@4.12; NODE_PATH)")
    command = [node, "-e", VALIDATE, *map(str, sorted(bundles.glob("*.json")))]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    answers = json.loads(answer.stdout)
    assert len(answers) == 4
    assert all(one == [True, [], False] for one in answers), "and it refuses a bogus status"

"""The bill of materials: valid CycloneDX, and nothing that the package carries is missing."""

from __future__ import annotations

import hashlib
import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT

if TYPE_CHECKING:
    from types import ModuleType

PACKAGE = ROOT / "src" / "millie"


@pytest.fixture(scope="module")
def bill(sbom: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom.text(sbom.bill()))
    return found


@pytest.fixture(scope="module")
def materials() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((ROOT / "release" / "materials.toml").read_text(encoding="utf-8"))


def of_type(bill: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in bill["components"] if one["type"] == kind}


def test_a_bill_that_does_not_fit_the_schema_is_refused(
    sbom: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(sbom.JsonV1Dot6):  # type: ignore[misc, name-defined]
        def output_as_string(self, **words: Any) -> str:
            content = json.loads(super().output_as_string(**words))
            content["components"][0]["type"] = "leukocyte"
            return json.dumps(content)

    monkeypatch.setattr(sbom, "JsonV1Dot6", Broken)
    with pytest.raises(ValueError, match="does not fit CycloneDX"):
        sbom.text(sbom.bill())


def test_every_component_has_a_licence(bill: dict[str, Any]) -> None:
    assert bill["specVersion"] == "1.6"
    assert [one["name"] for one in bill["components"] if not one.get("licenses")] == []


def test_it_has_every_package_of_the_base(bill: dict[str, Any], licences: ModuleType) -> None:
    listed = of_type(bill, "library")
    for package in licences.packages():
        assert listed[package.name]["version"] == package.version
        assert listed[package.name]["purl"].startswith(f"pkg:pypi/{package.name}@")


def test_every_script_in_the_package_is_listed_with_version_and_licence(
    bill: dict[str, Any], materials: dict[str, list[dict[str, Any]]]
) -> None:
    named = {one["file"]: one for one in materials["vendored"]}
    found = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.min.js")}
    assert found == named.keys()
    for file, one in named.items():
        path = ROOT / file
        assert one["version"] in path.read_text(encoding="utf-8"), "another version lies there"
        assert path.with_name(path.name.replace(".min.js", ".LICENSE")).is_file()
        assert of_type(bill, "library")[one["name"]]["purl"] == (
            f"pkg:npm/{one['name']}@{one['version']}"
        )


def test_all_weights_are_listed_with_their_data(
    bill: dict[str, Any], materials: dict[str, list[dict[str, Any]]]
) -> None:
    in_package = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*.safetensors")
        if path.name not in {"golden.safetensors", "reference.safetensors"}
    }
    assert {one["file"] for one in materials["weights"]} == in_package
    depends = {one["ref"]: set(one.get("dependsOn", [])) for one in bill["dependencies"]}
    for one in materials["weights"]:
        listed = of_type(bill, "machine-learning-model")[one["name"]]
        digest = hashlib.sha256((ROOT / one["file"]).read_bytes()).hexdigest()
        assert listed["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert depends[listed["bom-ref"]] >= {f"data/{name}" for name in one["trained_on"]}
    used = {name for one in materials["weights"] for name in one["trained_on"]}
    assert used == {one["id"] for one in materials["data"]}


def test_data_without_a_licence_are_told_in_words(bill: dict[str, Any]) -> None:
    data = of_type(bill, "data")
    (terms,) = data["DeepAPL (Sidhom et al. 2021)"]["licenses"]
    assert "Johns Hopkins" in terms["license"]["name"]
    (terms,) = data["BCISC"]["licenses"]
    assert json.dumps(terms).count("Apache-2.0") == 1

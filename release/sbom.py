"""The bill of materials of a release, CycloneDX 1.6 JSON: `python release/sbom.py OUT.json`.

Lists what the base install brings (read from this environment), JavaScript in the package, the
weights, and the data that each of them was trained on, all with licences or terms.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from licences import Package, packages
from millie import __version__

ROOT = Path(__file__).parents[1]
MATERIALS = Path(__file__).with_name("materials.toml")


def bill() -> Bom:
    """All components, and what depends on what.

    Raises:
        OSError: a file that ``materials.toml`` names is not there.
    """
    materials = tomllib.loads(MATERIALS.read_text(encoding="utf-8"))
    product = Component(
        name="millie", version=__version__, type=ComponentType.APPLICATION, bom_ref="millie",
        licenses=[LicenseExpression("Apache-2.0")],
    )  # fmt: skip
    bom = Bom()
    bom.metadata.component = product
    libraries = [_library(package) for package in packages()]
    vendored = [_vendored(one) for one in materials["vendored"]]
    data = {one["id"]: _data(one) for one in materials["data"]}
    weights = {one["name"]: _weights(one) for one in materials["weights"]}
    bom.components.update([*libraries, *vendored, *data.values(), *weights.values()])
    bom.register_dependency(product, [*libraries, *vendored, *weights.values()])
    for one in materials["weights"]:
        start = [weights[one["starts_from"]]] if "starts_from" in one else []
        bom.register_dependency(
            weights[one["name"]], [*start, *(data[name] for name in one["trained_on"])]
        )
    return bom


def text(bom: Bom) -> str:
    """CycloneDX 1.6, checked against its schema.

    Raises:
        ValueError: it does not fit the schema.
    """
    found = JsonV1Dot6(bom).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(found):
        raise ValueError(f"the bill of materials does not fit CycloneDX 1.6: {error}")
    return found + "\n"


def _library(package: Package) -> Component:
    carried = [
        Component(name=name, type=ComponentType.LIBRARY, bom_ref=f"{package.name}/{name}",
                  licenses=[_licence(licence)])
        for name, licence in package.libraries
    ]  # fmt: skip
    version = package.version.partition("+")[0]
    return Component(
        name=package.name, version=package.version, type=ComponentType.LIBRARY,
        bom_ref=f"pypi/{package.name}", licenses=[_licence(package.licence)],
        purl=PackageURL("pypi", None, package.name, version), components=carried,
    )  # fmt: skip


def _vendored(one: dict[str, Any]) -> Component:
    return Component(
        name=one["name"], version=one["version"], type=ComponentType.LIBRARY,
        bom_ref=f"npm/{one['name']}", licenses=[_licence(one["licence"])],
        purl=PackageURL("npm", None, one["name"], one["version"]), hashes=[_hash(one["file"])],
    )  # fmt: skip


def _weights(one: dict[str, Any]) -> Component:
    return Component(
        name=one["name"], version=__version__, type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"weights/{one['name']}", licenses=[_licence("Apache-2.0")],
        hashes=[_hash(one["file"])], description="For research use only.",
    )  # fmt: skip


def _data(one: dict[str, Any]) -> Component:
    place = ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(one["url"]))
    return Component(
        name=one["name"], type=ComponentType.DATA, bom_ref=f"data/{one['id']}",
        licenses=[_licence(one.get("licence") or one["terms"])], external_references=[place],
        description="Training data; not part of the package.",
    )  # fmt: skip


def _licence(terms: str) -> LicenseExpression | DisjunctiveLicense:
    """An SPDX expression where it is one, else the words."""
    from license_expression import ExpressionError, get_spdx_licensing

    try:
        get_spdx_licensing().parse(terms, validate=True, strict=True)
    except ExpressionError:
        return DisjunctiveLicense(name=terms)
    return LicenseExpression(terms)


def _hash(name: str) -> HashType:
    digest = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    made = bill()
    out.write_text(text(made), encoding="utf-8")
    print(f"{len(made.components)} components -> {out}")

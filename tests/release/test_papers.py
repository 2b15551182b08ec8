"""What stands beside the code: citation, workflows, lock, containers; each agrees with the rest."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from millie import __version__

from .conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def check_schema(schema: str, *files: str) -> None:
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema (extra dev)")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found["project"]


def test_the_citation_fits_its_schema_and_the_package() -> None:
    path = ROOT / "CITATION.cff"
    check_schema("vendor.citation-file-format", str(path))
    text = path.read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in text
    assert f"\nlicense: {project()['license']}\n" in text


def test_one_version_everywhere() -> None:
    assert project()["version"] == __version__


def test_workflows_fit_their_schema() -> None:
    assert WORKFLOWS
    check_schema("vendor.github-workflows", *map(str, WORKFLOWS))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_only_call_make(path: Any) -> None:
    """What runs there is what a developer can run."""
    text = path.read_text(encoding="utf-8")
    called = re.findall(r"^ +(?:- )?run: (.+)$", text, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert called
    for line in called:
        words = line.split()
        assert words[0] == "make", line
        assert words[1] in targets, line
    for action in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w/.-]+@v\d+", action), action


def lock() -> dict[str, dict[str, Any]]:
    content = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    return {package["name"]: package for package in content["package"]}


def test_the_lock_is_of_public_places_alone() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    places = set(re.findall(r"(?:registry|url) = \"([a-z]+://[^/\"]+)", text))
    assert places == {"https://pypi.org", "https://files.pythonhosted.org"}
    assert not re.search(r"file:|/opt/|/tmp/|/root/|path = ", text)


def test_the_lock_has_the_versions_of_constraints() -> None:
    packages = lock()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            (pin,) = Requirement(line).specifier
            name = canonicalize_name(Requirement(line).name)
            assert packages[name]["version"] == pin.version, f"{name}: run `make lock`"


def test_the_lock_is_of_these_dependencies() -> None:
    """Names of what the project asks for, extras included; ranges are uv's to check."""
    stated = lock()["millie"]["metadata"]["requires-dist"]
    locked = {(canonicalize_name(one["name"]), one.get("marker", "")) for one in stated}
    wanted = {(canonicalize_name(Requirement(x).name), "") for x in project()["dependencies"]}
    for extra, needs in project()["optional-dependencies"].items():
        marker = f"extra == '{extra}'"
        wanted |= {(canonicalize_name(Requirement(need).name), marker) for need in needs}
    assert locked == wanted, "run `make lock`"


def test_containers_install_the_pinned_versions_and_run_as_nobody() -> None:
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    apptainer = (ROOT / "apptainer.def").read_text(encoding="utf-8")
    for text in (docker, apptainer):
        assert text.count("--constraint /build/constraints.txt") == 2
        assert re.search(r"python:3\.1[1-3]-slim", text)
        copied = re.findall(r"^ *(?:COPY )?([\w./ ]+) /build/", text, re.MULTILINE)
        assert all((ROOT / name).exists() for line in copied for name in line.split())
    assert re.search(r"^USER [1-9]\d+", docker, re.MULTILINE)

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import millie
from millie.engines.checks import (
    check_workers,
    host_and_port,
    knock,
    make_probe,
    visible_marker,
)
from millie.errors import ConfigError, MissingError, MissingFileError, MissingPackageError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_probe_says_what_this_process_is(tmp_path: Path) -> None:
    facts = make_probe("")()
    assert facts["python"] == PYTHON
    assert facts["millie"] == millie.__version__
    assert all(facts[name] for name in ("numpy", "scipy", "cv2", "PIL", "h5py"))
    assert "sees the folder" not in facts
    with visible_marker(tmp_path / "new") as marker:
        assert make_probe(marker)()["sees the folder"] == "yes"
    assert make_probe(marker)()["sees the folder"] == "no"
    assert os.listdir(tmp_path / "new") == []  # noqa: PTH208 - hidden files too


def test_no_folder_no_marker() -> None:
    with visible_marker(None) as marker:
        assert marker == ""


def test_the_probe_runs_where_millie_is_not_installed() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    code = (
        f"import sys; sys.path.append({str(Path(cloudpickle.__file__).parents[1])!r})\n"
        f"import pickle; print(pickle.loads({cloudpickle.dumps(make_probe(''))!r})())"
    )
    # -S leaves out site-packages and with it the editable install.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert "'millie': ''" in done.stdout, done.stderr
    assert f"'python': '{PYTHON}'" in done.stdout


def test_equal_workers_pass(tmp_path: Path) -> None:
    facts = make_probe("")()
    check_workers({"a": facts, "b": {**facts, "sees the folder": "yes"}}, tmp_path)
    check_workers({"a": {"python": PYTHON}})


def test_workers_without_the_package_are_refused() -> None:
    facts = make_probe("")()
    found = {"a": facts, "b": {**facts, "millie": ""}}
    with pytest.raises(MissingPackageError, match=r"1 of 2 workers \(b\) cannot import millie"):
        check_workers(found)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [("millie", "0.0.9", "0.0.9"), ("python", "3.8", "3.8"), ("numpy", "", "none")],
)
def test_workers_with_other_versions_are_refused(key: str, value: str, shown: str) -> None:
    facts = make_probe("")()
    found = {str(i): {**facts, key: value} for i in range(5)}
    expected = rf"5 of 5 workers \(0, 1, 2, \.\.\.\): {key} {shown}, this process has {facts[key]}"
    with pytest.raises(ConfigError, match=expected):
        check_workers(found)


def test_workers_that_do_not_share_the_folder_are_refused(tmp_path: Path) -> None:
    facts = {**make_probe("")(), "sees the folder": "no"}
    with pytest.raises(MissingFileError, match=r"cannot see .*every worker share"):
        check_workers({"a": facts}, tmp_path)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://node7:8786", ("node7", 8786)),
        ("node7:6379", ("node7", 6379)),
        ("tls://[::1]:8786", ("::1", 8786)),
    ],
)
def test_addresses_are_split(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address, "cluster", "host:1") == expected


@pytest.mark.parametrize(
    "address", ["", "node7", "node7:", ":8786", "node7:port", "node7:0", "node7:65536", "n:²"]
)
def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="of the cluster: expected host:1"):
        host_and_port(address, "cluster", "host:1")


def test_an_address_must_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        knock("127.0.0.1", port, "cluster")
    with pytest.raises(MissingError, match=rf"no cluster answers at 127\.0\.0\.1:{port}"):
        knock("127.0.0.1", port, "cluster")

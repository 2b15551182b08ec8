"""Too little memory is one message that says how much there was, never a crash or a hang."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millie.cli.exits import explained
from millie.engines import seam
from millie.engines.memory import LEAST_MB, is_shortage
from millie.engines.seam import ProcessEngine, Unit
from millie.errors import BundleError, ConfigError, ResourcesError

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and processes as on Linux")


def test_every_limited_command_exists() -> None:
    from millie.cli.commands import app  # noqa: PLC0415 - the whole command line

    assert set(LEAST_MB) <= {command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]


@linux
@pytest.mark.parametrize(("command", "mb"), [("segment", 400), ("segment", 800), ("predict", 1500)])
def test_little_address_space_is_told(tmp_path: Path, command: str, mb: int) -> None:
    words = [sys.executable, "-m", "millie", command, str(tmp_path), "--out", "none", "-j", "2"]
    ended = subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", f'ulimit -v {mb}000 && exec "$@"', "sh", *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    line = " ".join(ended.stderr.split())
    assert "Traceback" not in line
    assert line.startswith(f"millie: only {mb * 1024 // 1000:,} MB of address space")
    assert "-j 1" in line


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("can't start new thread"), OSError(errno.ENOMEM, "no"),
     RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
     BundleError("no file of weights (Cannot allocate memory (os error 12))")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_errors_of_memory_are_known(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_shortage(error)
    with pytest.raises(SystemExit) as ended, explained():
        raise error
    assert ended.value.code == 2
    assert "run again with -j 1" in capsys.readouterr().err


def test_other_errors_are_not() -> None:
    assert not is_shortage(ConfigError("workers=0"))
    assert not is_shortage(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ZeroDivisionError), explained():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "said"),
    [(FileNotFoundError(errno.ENOENT, "No such file or directory"), "mount it"),
     (NotImplementedError("sem_open"), "--engine serial")],
)  # fmt: skip
def test_without_shared_memory_the_message_names_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(seam, "ProcessPoolExecutor", refused)
    with pytest.raises(ResourcesError, match=said):
        list(ProcessEngine(2).map(int, [Unit("a", 1)]))  # type: ignore[arg-type]


def test_a_pool_whose_thread_cannot_start_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("multiprocessing.queues.Queue._start_thread", refused)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    monkeypatch.setattr(seam, "_LOOK_S", 0.1)
    with pytest.raises(ResourcesError, match="run again with -j 1"):
        list(ProcessEngine(2).map(time.sleep, [Unit("a", 1)]))  # type: ignore[arg-type]


PROGRAM = """
import time
from millie.engines.seam import ProcessEngine, Unit
if __name__ == "__main__":
    list(ProcessEngine(2).map(time.sleep, [Unit("a", 600), Unit("b", 600), Unit("c", 600)]))
"""


@linux
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, str(path)])  # noqa: S603
    try:
        workers = wait_for(lambda: working(parent.pid), lambda found: len(found) == 2)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    left = wait_for(lambda: [pid for pid in workers if is_alive(pid)], lambda alive: not alive)
    assert left == []


def working(parent: int) -> list[int]:
    """Workers that have begun: they watch their parent by a second thread."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    threads = {int(child): len(os.listdir(f"/proc/{child}/task")) for child in children}  # noqa: PTH208
    return [child for child, count in threads.items() if count > 1]


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for(ask, is_enough):  # type: ignore[no-untyped-def]
    """What ``ask`` answers once it is enough; fails after a minute."""
    deadline = time.monotonic() + 60
    while not is_enough(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found

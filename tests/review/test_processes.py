"""The real thing: `millie serve` as a process, asked through the client that the docs show."""

from __future__ import annotations

import csv
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import millie
from millie.synthetic import write_cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

pytestmark = pytest.mark.review_long
_PATIENCE_S = 1500.0
_SIDE_PX = 300


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fifty images of single drawn cells, no two alike."""
    root = write_cohort(tmp_path_factory.mktemp("drawn") / "films", 1, 3).parent
    out = tmp_path_factory.mktemp("crops")
    with (root / "truth.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        left, top = (round(float(row[axis]) - _SIDE_PX / 2) for axis in ("x_px", "y_px"))
        with Image.open(root / row["file"]) as image:
            inside = 0 <= left <= image.width - _SIDE_PX and 0 <= top <= image.height - _SIDE_PX
            if inside:
                crop = image.crop((left, top, left + _SIDE_PX, top + _SIDE_PX))
                crop.save(out / f"{len(list(out.iterdir())):02d}.png")
    return sorted(out.iterdir())[:50]


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port: int = some.getsockname()[1]
        return port


@dataclass
class Server:
    """``millie serve`` on a data folder; can be killed and started again."""

    data: Path
    words: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.port = self.port or free_port()
        log = (self.data.parent / "log.txt").open("ab")
        words = ["serve", "--data", str(self.data), "--port", str(self.port), *self.words]
        with log:
            self.process = subprocess.Popen(
                millie_command(*words), stdout=log, stderr=log, env=environment()
            )
        self.wait_until(lambda: self.health() is not None)

    def health(self) -> int | None:
        try:
            with urllib.request.urlopen(f"{self.address}/healthz", timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def wait_until(self, true: Callable[[], Any], patience_s: float = 120.0) -> None:
        until = time.monotonic() + patience_s
        while not true():
            assert self.process is not None
            assert self.process.poll() is None, (self.data.parent / "log.txt").read_text()
            assert time.monotonic() < until, (self.data.parent / "log.txt").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def workers(self) -> list[int]:
        """Processes of workers that were started by the server that runs now."""
        assert self.process is not None
        words = ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)]
        found = subprocess.run(words, check=False, capture_output=True, text=True).stdout
        return [int(line.split()[0]) for line in found.splitlines() if "review.jobs" in line]

    def token(self) -> str:
        done = subprocess.run(
            millie_command("tokens", "add", "test", "--data", str(self.data), "--scope", "submit",
                           "--scope", "read"),
            check=True, capture_output=True, text=True, env=environment(),
        )  # fmt: skip
        return done.stdout.strip()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.data / "millie.sqlite3", timeout=30) as connection:
            return connection.execute(query).fetchall()


def millie_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "millie", *words]


def environment() -> dict[str, str]:
    package = str(Path(millie.__file__).parents[1])
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MILLIE_REVIEW", "DJANGO"))}
    return {**ours, "PYTHONPATH": package}


@contextmanager
def served(tmp_path: Path, *words: str) -> Iterator[Server]:
    server = Server(tmp_path / "data", words)
    try:
        server.start()
        yield server
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            server.stop()


def test_nothing_is_lost_and_nothing_twice_while_server_and_worker_are_killed(
    tmp_path: Path, client_module: ModuleType, crops: list[Path]
) -> None:
    assert len(crops) == 50
    with served(tmp_path) as server:
        client = client_module.Client(server.address, server.token())
        answers: dict[str, str] = {}

        def send_all() -> None:
            for path in crops:
                while path.name not in answers:
                    try:
                        name = f"patient {path.stem}"
                        answers[path.name] = client.submit(
                            [path], path.stem, patient=name, um_px="0.12"
                        )
                    except (OSError, client_module.ProblemError):
                        time.sleep(0.3)

        sender = threading.Thread(target=send_all)
        sender.start()
        draw, killed = random.Random(0), {"server": 0, "worker": 0}  # noqa: S311
        while sender.is_alive() or killed["server"] < 3 or killed["worker"] < 4:
            time.sleep(draw.uniform(1, 6))
            if killed["server"] < 3 and draw.random() < 0.4:
                server.kill()
                killed["server"] += 1
                server.start()
            elif workers := server.workers():
                os.kill(workers[0], signal.SIGKILL)
                killed["worker"] += 1
                if killed["worker"] > 8:
                    sender.join(2)
        sender.join()
        server.wait_until(
            lambda: server.rows("SELECT count(*) FROM review_job WHERE status = 'done'") == [(50,)],
            _PATIENCE_S,
        )
        assert server.rows("SELECT count(*) FROM review_sample") == [(50,)]
        assert server.rows("SELECT count(*) FROM review_image") == [(50,)]
        assert server.rows("SELECT count(DISTINCT sha256) FROM review_image") == [(50,)]
        assert server.rows("SELECT count(*) FROM review_analysis") == [(50,)]
        assert server.rows("SELECT count(*) FROM review_job") == [(50,)]
        assert server.rows("SELECT count(*) FROM review_analysis WHERE n_cells = 1") == [(50,)]
        events = dict(server.rows("SELECT action, count(*) FROM review_auditevent GROUP BY action"))
        assert (events["sample.submitted"], events["sample.analysed"]) == (50, 50)
        assert sorted(answers.values()) == sorted(
            name for (name,) in server.rows("SELECT pseudonym FROM review_sample")
        )
        on_disk = {path.name for path in (server.data / "images").iterdir()}
        assert on_disk == {s for (s,) in server.rows("SELECT sha256 FROM review_image")}
        assert not list((server.data / "work").iterdir())
        print("killed:", killed)


def test_twenty_samples_at_once_are_all_called(
    tmp_path: Path, client_module: ModuleType, crops: list[Path]
) -> None:
    with served(tmp_path) as server:
        client = client_module.Client(server.address, server.token())
        started, found = time.monotonic(), {}

        def send(number: int) -> None:
            images = crops[2 * number : 2 * number + 3]
            found[number] = client.submit(images, specimen="blood", um_px="0.12")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken_s = time.monotonic() - started
        ended = [client.wait(sample, _PATIENCE_S) for sample in found.values()]
        called_s = time.monotonic() - started
        print(f"20 samples of 3 images: taken in {taken_s:.1f} s, called in {called_s:.1f} s")
        assert len({each["id"] for each in ended}) == 20
        assert {each["status"] for each in ended} == {"done"}
        assert all(each["state"] and each["n_cells"] == 3 for each in ended)
        one = ended[0]["id"]
        assert client.result(one)["patient"]["patient"] == one
        assert b"For research use only" in client.report(one)
        assert len(list(client.cells(one))) == 3
        assert len(list(client.samples(status="done"))) == 20
        with pytest.raises(client_module.ProblemError, match="the file is not an image"):
            client.submit([Path(client_module.__file__)])


def test_ctrl_c_ends_it_in_order_and_the_next_start_goes_on(
    tmp_path: Path, client_module: ModuleType, crops: list[Path]
) -> None:
    with served(tmp_path) as server:
        client = client_module.Client(server.address, server.token())
        samples = [client.submit([path], um_px="0.12") for path in crops[:4]]
        server.wait_until(
            lambda: (
                server.rows("SELECT count(*) FROM review_job WHERE status = 'running'") == [(1,)]
            )
        )
        workers = server.workers()
        assert server.stop() == 0
        for pid in workers:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert server.rows("SELECT count(*) FROM review_job WHERE status = 'running'") == [(0,)]
        server.start()
        assert {client.wait(sample, _PATIENCE_S)["status"] for sample in samples} == {"done"}
        assert server.rows("SELECT max(attempts) FROM review_job") == [(1,)]


def test_a_watched_folder_is_taken(
    tmp_path: Path, client_module: ModuleType, crops: list[Path]
) -> None:
    watched = tmp_path / "watched"
    (watched / "Doe").mkdir(parents=True)
    (watched / "Doe" / "1.png").write_bytes(crops[0].read_bytes())
    with served(tmp_path, "--watch", str(watched)) as server:
        client = client_module.Client(server.address, server.token())
        server.wait_until(lambda: list(client.samples()))
        (found,) = client.samples()
        assert client.wait(found["id"], _PATIENCE_S)["status"] == "done"
        assert "Doe" not in (tmp_path / "log.txt").read_text()


def test_the_demo_fills_the_worklist(tmp_path: Path) -> None:
    started = time.monotonic()
    with served(tmp_path, "--demo") as server:
        server.wait_until(
            lambda: server.rows("SELECT count(*) FROM review_analysis") == [(4,)], _PATIENCE_S
        )
        print(f"demo filled after {time.monotonic() - started:.0f} s")
        states = {state for (state,) in server.rows("SELECT state FROM review_analysis")}
        assert len(states) > 1


def test_schemathesis_finds_nothing(
    tmp_path: Path, client_module: ModuleType, crops: list[Path]
) -> None:
    pytest.importorskip("schemathesis", reason="needs the extra millie[review-test]")
    checks = (
        "not_a_server_error", "status_code_conformance", "content_type_conformance",
        "response_headers_conformance", "response_schema_conformance", "unsupported_method",
        "ignored_auth", "missing_required_header", "negative_data_rejection",
    )  # fmt: skip
    with served(tmp_path) as server:
        client = client_module.Client(server.address, server.token())
        sample = client.wait(client.submit(crops[:1], um_px="0.12"), _PATIENCE_S)["id"]
        config = tmp_path / "schemathesis.toml"
        config.write_text(f'[parameters]\n"path.sample_id" = "{sample}"\n')
        words = [
            str(Path(sys.executable).with_name("st")), "--config-file", str(config), "run",
            f"{server.address}/api/v1/openapi.json", "--checks", ",".join(checks),
            "--header", f"Authorization: Bearer {client.token}", "--max-examples", "50",
            "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
        ]  # fmt: skip
        done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert "No issues found" in done.stdout, done.stdout
        assert server.health() == 200

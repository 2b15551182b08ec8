"""Weights by revision and hash: the real client of the Hub against a local server in its place."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from millie.config import ModelConfig
from millie.errors import ConfigError, MissingWeightsError
from millie.models.encoders import build_encoder
from millie.models.hub import local_file

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REVISION = "0123456789abcdef0123456789abcdef01234567"
WORD = f"hub:some-lab/Some.Model@{REVISION}/deep/weights.bin#{SHA256}"


class LikeTheHub(BaseHTTPRequestHandler):
    """Answers for one file at one revision, as the Hub does for a file it stores."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if self._answer():
            self.wfile.write(CONTENT)

    def _answer(self) -> bool:
        known = self.path == f"/some-lab/Some.Model/resolve/{REVISION}/deep/weights.bin"
        self.send_response(200 if known else 404)
        if known:
            self.send_header("ETag", f'"{SHA256}"')
            self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(CONTENT) if known else 0))
        self.end_headers()
        return known

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def server() -> Iterator[str]:
    pytest.importorskip("huggingface_hub", reason="pip install 'millie[hub]'")
    with ThreadingHTTPServer(("127.0.0.1", 0), LikeTheHub) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def asked(word: str, server: str, cache: Path) -> str:
    """What :func:`local_file` says in a process of its own: the client reads its address once."""
    code = (
        "import sys, pathlib; from millie.models.hub import local_file; from millie.errors import "
        "MillieError\ntry:\n print(local_file(pathlib.Path(sys.argv[1])).read_bytes()[:7])\n"
        "except MillieError as error:\n print(type(error).__name__, error)"
    )
    environment = {
        **{k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HF_ENDPOINT": server, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", code, word],
        check=True, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_file_is_fetched_once_and_its_hash_compared(server: str, tmp_path: Path) -> None:
    assert asked(WORD, server, tmp_path) == "b'weights'"
    assert asked(WORD, "http://127.0.0.1:9", tmp_path) == "b'weights'", "from the cache, offline"
    other = WORD[:-4] + "0000"
    assert asked(other, server, tmp_path).startswith("BundleError weights.bin of".replace(
        "weights.bin", "deep/weights.bin"))  # fmt: skip
    assert "expected" in asked(other, server, tmp_path)


def test_without_a_network_it_says_how_to_get_the_file(server: str, tmp_path: Path) -> None:
    told = asked(WORD, "http://127.0.0.1:9", tmp_path)
    assert told.startswith("MissingWeightsError")
    assert f"huggingface.co/some-lab/Some.Model/resolve/{REVISION}/deep/weights.bin" in told
    assert "--set model.weights=FILE" in told
    missing = asked(WORD.replace("weights.bin", "none.bin"), server, tmp_path)
    assert missing.startswith("MissingWeightsError")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingWeightsError, match=r"pip install 'millie\[hub\]'"):
        build_encoder(ModelConfig(encoder="resnet_small", weights=Path(WORD)))


@pytest.mark.parametrize(
    "word",
    [
        WORD.replace(REVISION, "main"),
        WORD.partition("#")[0],
        "hub:model.safetensors",
        WORD.replace("some-lab/", ""),
    ],
)
def test_a_word_without_commit_or_hash_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="expected hub:OWNER/NAME@REVISION/FILE#SHA256"):
        local_file(Path(word))


def test_a_plain_path_stays_as_it_is(tmp_path: Path) -> None:
    assert local_file(tmp_path / "hub.pth") == tmp_path / "hub.pth"

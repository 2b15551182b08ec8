"""Send a patient's images to a millie review server, wait for the call, and print it.

    export MILLIE_TOKEN=millie_...
    python review_client.py http://127.0.0.1:8000 image-1.jpg image-2.jpg

Needs Python 3.11 and nothing else. For research use only: every call needs review by a qualified
person.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ProblemError(Exception):
    """The server refused; ``problem`` is its answer (RFC 9457)."""

    def __init__(self, problem: dict[str, Any]) -> None:
        reasons = [file["reason"] for file in problem.get("files", [])]
        super().__init__("; ".join([problem["detail"], *reasons]))
        self.problem = problem


@dataclass(frozen=True)
class Client:
    """A server, and the token of ``millie tokens add NAME --scope submit --scope read``."""

    address: str
    token: str

    def submit(self, images: Sequence[Path], key: str | None = None, **about: str) -> str:
        """Send the images of one patient, or one zip; gives the sample's pseudonym.

        ``key`` is the same where the same sample may be sent again after a failure: the server then
        makes one sample of it. ``about`` may hold ``patient``, ``specimen`` and ``um_px``.
        """
        boundary = secrets.token_hex(16)
        body = b"".join(_parts(boundary, images, about))
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Idempotency-Key": key or secrets.token_hex(16),
        }
        return str(self._json("samples", body, headers)["id"])

    def poll(self, sample: str) -> dict[str, Any]:
        """Where the analysis of a sample stands."""
        return self._json(f"samples/{sample}")

    def wait(self, sample: str, timeout_s: float = 1800.0) -> dict[str, Any]:
        """Poll until the analysis is done or failed."""
        until = time.monotonic() + timeout_s
        while (found := self.poll(sample))["status"] in {"queued", "running"}:
            if time.monotonic() > until:
                raise TimeoutError(f"{sample} is not done after {timeout_s:g} s")
            time.sleep(2)
        return found

    def result(self, sample: str) -> dict[str, Any]:
        """The call, with the model's card."""
        return self._json(f"samples/{sample}/result")

    def report(self, sample: str) -> bytes:
        """The report: one HTML page."""
        return self._ask(f"samples/{sample}/report")

    def samples(self, **filters: str) -> Iterator[dict[str, Any]]:
        """All samples; ``state``, ``status`` and ``since`` filter them."""
        yield from self._pages("samples", filters)

    def cells(self, sample: str) -> Iterator[dict[str, Any]]:
        """All cells of a sample, with what people named them."""
        yield from self._pages(f"samples/{sample}/cells", {})

    def _pages(self, path: str, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
        page = pages = 1
        while page <= pages:
            words = urllib.parse.urlencode({**filters, "page": page, "per_page": 500})
            found = self._json(f"{path}?{words}")
            yield from found["items"]
            page, pages = page + 1, found["pages"]

    def _json(self, path: str, body: bytes | None = None, headers: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ask(path, body, headers))
        return found

    def _ask(self, path: str, body: bytes | None = None, headers: Any = None) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        request = urllib.request.Request(f"{self.address}/api/v1/{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise ProblemError(json.load(error)) from error


def _parts(boundary: str, images: Sequence[Path], about: dict[str, str]) -> Iterator[bytes]:
    for name, value in about.items():
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        yield value.encode() + b"\r\n"
    for path in images:
        name = path.name.replace('"', "_")
        head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
        yield f"--{boundary}\r\n{head}\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
    yield f"--{boundary}--\r\n".encode()


if __name__ == "__main__":
    client = Client(sys.argv[1], os.environ["MILLIE_TOKEN"])
    found = client.wait(client.submit([Path(name) for name in sys.argv[2:]]))
    print(found["id"], found["state"] or found["error"])

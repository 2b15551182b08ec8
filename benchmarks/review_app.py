"""How long the review app lets a reader wait, in real Chromium, on a drawn sample of 5,000 cells.

    python benchmarks/review_app.py [--cells 5000] [--keys 100] [--repeats 5]

Needs `pip install 'millie[review]' playwright` and a Chromium (--chromium). The cells are those of
one drawn patient, turned and repeated; their image is a field of 48 megapixels. The server is
waitress in a process of its own, the database SQLite with every commit forced to the disk.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
from PIL import Image

import millie
from millie.bags.bag_writer import CellCrop, write_bag
from millie.bags.bagfile import BagMeta
from millie.bags.store import BagReader, Store
from millie.outputs.patient.tables import read_predictions, write_predictions
from millie.synthetic import write_cohort
from millie.types import Cell, ImageKind, Patient, Prediction, SourceRecord, Winner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from millie.bags.bagfile import BagReader as Bag

NAME, PASSWORD = "reader", "correct horse battery staple"
FIELD_PX = (8000, 6000)


def crops(bag: Bag, count: int, rng: np.random.Generator) -> Iterator[CellCrop]:
    """The bag's cells again and again, each turned, somewhere in one large field."""
    images, masks = bag.images(0, bag.n_cells), bag.masks(0, bag.n_cells)
    for number in range(count):
        index, turn = number % bag.n_cells, (number // bag.n_cells) % 4
        left, top = (int(rng.integers(0, side - 110)) for side in FIELD_PX)
        yield CellCrop(
            Cell(0, left + 55, top + 55, left, top, 110, 110, 9000.0),
            np.ascontiguousarray(np.rot90(images[index], turn)),
            np.ascontiguousarray(np.rot90(masks[index], turn)),
        )


def draw_sample(data: Path, count: int) -> None:
    """One analysed sample in the data folder, made without a model's work on 5,000 cells."""
    from django.conf import settings

    from millie.review.jobs.results import store_analysis
    from millie.review.models import Sample

    rng = np.random.default_rng(1)
    films = write_cohort(data / "films", 1, 3, cells_per_patient=60).parent
    patient = next((films / "images").iterdir())
    millie.predict("acute-leukaemia", patient, data / "small")
    small = read_predictions(data / "small")
    field = data / "field.jpg"
    with Image.open(next(patient.glob("*.jpg"))) as opened:
        tile = np.asarray(opened.convert("RGB"))
    times = [-(-FIELD_PX[1] // tile.shape[0]), -(-FIELD_PX[0] // tile.shape[1])]
    whole = np.tile(tile, (*times, 1))[: FIELD_PX[1], : FIELD_PX[0]]
    Image.fromarray(whole).save(field, quality=88)
    content = field.read_bytes()
    digest = sha256(content).hexdigest()
    settings.DATA.image(digest).write_bytes(content)
    sample = Sample.objects.create(pseudonym="S-large", submitted_by=NAME)
    sample.images.create(position=1, name="image-1.jpg", sha256=digest, n_bytes=len(content))
    folder = settings.DATA.samples / "S-large" / "1" / "calls"
    store = Store(folder / "store")
    store.root.mkdir(parents=True)
    source = SourceRecord("S-large/image-1.jpg", digest, ImageKind.FIELD, 0.11, *FIELD_PX[::-1])
    with BagReader(Store(small.store).path_of(small.patients[0].patient)) as bag:
        meta = BagMeta(bag.meta.size_px, bag.meta.size_um, bag.meta.um_px, bag.meta.digest)
        owner = Patient("S-large", None, ())
        write_bag(store.path_of("S-large"), owner, crops(bag, count, rng), [source], meta)
    call = small.patients[0]
    scores = rng.dirichlet(np.ones(len(small.model.labels)) * 0.5, count).astype(np.float32)
    winners = {x: tuple(Winner(int(i), 0.05, 1) for i in rng.permutation(count)[:12])
        for x in small.model.labels}  # fmt: skip
    prediction = Prediction(
        "S-large", call.state, call.reasons, call.label, call.probabilities, scores, winners, count,
        small.model.title, small.model.sha256, call.ranges, call.quality, call.p_values,
        call.supported,
    )  # fmt: skip
    write_predictions(folder, small.model, [prediction], store)
    store_analysis(sample, folder, data)


def serve(data: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Waitress with eight threads on a free port, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "waitress", "--threads", "8", "--listen",
        f"127.0.0.1:{port}", "millie.review.wsgi:application"]  # fmt: skip
    server = subprocess.Popen(command, env={**os.environ, "MILLIE_REVIEW_DATA": str(data)},
        stderr=subprocess.DEVNULL)  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            with urlopen(f"{address}/login"):
                return server, address
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server does not answer")


def log_in(page: Page, address: str) -> None:
    page.goto(f"{address}/login")
    page.fill("#id_username", NAME)
    page.fill("#id_password", PASSWORD)
    page.click("main button")
    page.wait_for_selector("#worklist")


def until(page: Page, condition: str) -> None:
    """Wait for a condition in the page; its policy forbids what wait_for_function does."""
    page.evaluate(
        f"() => new Promise((done) => {{ const look = () => ({condition}) ? done() : "
        "requestAnimationFrame(look); look(); })"
    )


def mark_ms(page: Page, name: str) -> float:
    """When the page said so, ms after the navigation began."""
    until(page, f"performance.getEntriesByName('{name}').length > 0")
    found: float = page.evaluate(f"performance.getEntriesByName('{name}')[0].startTime")
    return found


_ON_SCREEN = """[...document.querySelectorAll('#gallery img')].filter(
  (i) => i.getBoundingClientRect().top < innerHeight).every((i) => i.complete && i.naturalWidth)"""


def open_gallery(page: Page, address: str) -> tuple[float, float]:
    """Until keys work, and until every picture on the screen is there, ms."""
    page.goto(f"{address}/samples/S-large/cells")
    usable = mark_ms(page, "gallery-usable")
    until(page, _ON_SCREEN)
    shown: float = page.evaluate("performance.now()")
    return usable, shown


def type_keys(page: Page, count: int) -> list[float]:
    """From each key to its decision saved and answered, ms."""
    for number in range(count):
        page.keyboard.press("123456"[number % 6])
        until(page, f"performance.getEntriesByName('decision-saved').length === {number + 1}")
    found: list[float] = page.evaluate(
        "performance.getEntriesByName('decision-saved').map((e) => e.duration)"
    )
    return found


def open_field(page: Page, address: str) -> float:
    """Until every tile of the whole field is there, ms."""
    page.goto(f"{address}/samples/S-large/fields/1")
    return mark_ms(page, "field-shown")


def told(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)) - 1)]
    median = statistics.median(values)
    print(f"{name:52} n {len(values):4}  median {median:6.0f}  p95 {p95:6.0f}  "
        f"most {ordered[-1]:6.0f} ms  load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip


def measure(address: str, options: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=flags)
        usable, shown, fields = [], [], []
        for _ in range(options.repeats):  # each with an empty cache
            context = browser.new_context(viewport={"width": 1366, "height": 768})
            page = context.new_page()
            log_in(page, address)
            one: Any = open_gallery(page, address)
            usable.append(one[0])
            shown.append(one[1])
            fields.append(open_field(page, address))
            context.close()
        told(f"gallery of {options.cells} cells: keys work", usable)
        told("gallery: every picture on the screen", shown)
        told("field of 48 MP, first opening (tiles are cut)", fields[:1])
        told("field of 48 MP, later", fields[1:] or fields)
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        log_in(page, address)
        open_gallery(page, address)
        told("key to saved", type_keys(page, options.keys))
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        os.environ |= {"MILLIE_REVIEW_DATA": temporary, "DJANGO_SETTINGS_MODULE": SETTINGS}
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from django.contrib.auth.models import Group, User

        user = User.objects.create_user(NAME, password=PASSWORD)
        user.groups.add(Group.objects.get_or_create(name="reviewer")[0])
        draw_sample(data, options.cells)
        server, address = serve(data)
        try:
            measure(address, options)
        finally:
            server.terminate()
            server.wait()


SETTINGS = "millie.review.settings"

if __name__ == "__main__":
    main()

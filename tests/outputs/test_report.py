from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from millie.bags.store import BagMeta, CellCrop, Store, safe_id, write_bag
from millie.errors import DataError, MissingFileError
from millie.outputs.report import write_prediction_run, write_report
from millie.types import (
    Cell,
    Finding,
    ImageKind,
    Measure,
    Patient,
    Prediction,
    Problem,
    Reason,
    SourceRecord,
    Winner,
)

from .conftest import (
    CARD,
    CREATED,
    TOO_FEW,
    MakeBag,
    MakePrediction,
    read_field,
    write_table,
)

PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7*7 }}",
    "javascript:alert(1)",
    "</style><script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "\u202egnp.exe",
)
WORST = ("javascript:alert(1)", " ".join(PAYLOADS))


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [v for t, n, v in self.attributes if (t, n) == (tag, name)]


def check_page(page: Page) -> None:
    """Nothing active, nothing from elsewhere, and the things every page must have."""
    assert not {"script", "iframe", "object", "embed", "form", "link"} & set(page.tags)
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert all(src.startswith("data:image/") for src in page.values("img", "src"))
    assert len(page.values("img", "alt")) == page.tags.count("img")
    assert all(re.match(r"(\.\./)?[\w./%-]+$|#", href) for href in page.values("a", "href"))
    assert "default-src 'none'" in page.values("meta", "content")[0]
    assert page.text.count("For research use only") >= 2
    assert {"html", "main", "header", "footer", "h1", "title"} <= set(page.tags)
    assert page.tags.count("h1") == 1
    identifiers = [v for _, name, v in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))


def test_a_run_leaves_what_others_rely_on(run_folder: Path) -> None:
    assert {"predictions.csv", "cells.csv", "predictions.json", "report.html", "patients",
            "overlays", "store"} == {p.name for p in run_folder.iterdir()}  # fmt: skip
    assert {p.stem for p in (run_folder / "patients").iterdir()} == {"p1", "p2", "p3", "p4"}
    assert (run_folder / "overlays" / "p1" / "im0.jpg").is_file()
    assert (run_folder / "overlays" / "p2" / "cells.jpg").is_file()


def test_index_lists_by_urgency_with_links_and_remedies(run_folder: Path) -> None:
    page = Page(run_folder / "report.html")
    check_page(page)
    links = [href for href in page.values("a", "href") if not href.startswith("#")]
    tables, patients = links[:2], links[2:]
    assert tables == ["predictions.csv", "cells.csv"]
    assert [Path(href).stem for href in patients] == ["p1", "p3", "p2", "p4"]
    assert all((run_folder / href).is_file() for href in links)
    assert "take other fields" in page.text
    assert re.search(r"broken.jpg\s*cut short; export it again", page.text)
    assert "Treat as not examined" in page.text
    assert f"{TOO_FEW.text}{TOO_FEW.remedy}" in page.text


def test_the_worklist_has_a_column_for_each_class_whatever_is_called(run_folder: Path) -> None:
    raw = (run_folder / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r'data-label="(AML|APL)">([^<]+)<', raw)
    assert [label for label, _ in rows] == ["AML", "APL"] * 3
    assert [value for label, value in rows if label == "APL"] == ["0.90", "0.40", "&lt;0.07"]


def test_notes_stand_apart_from_what_could_not_be_used(
    tmp_path: Path, make_bag: MakeBag, make_prediction: MakePrediction
) -> None:
    problems = [
        Problem("p1", "a.jpg", "ImageError", "a.jpg: cut short"),
        Problem("p1", "b.jpg", Finding.DUPLICATE, "shows the same cell as c.jpg", note=True),
    ]
    store, out = make_bag("p1"), tmp_path / "run"
    write_prediction_run(out, CARD, [make_prediction("p1")], store, problems, created=CREATED)
    for path in (out / "report.html", out / "patients" / "p1.html"):
        text = re.sub(r"\s+", " ", Page(path).text)
        lost, notes = text.split("Could not be used (1)")[1].split("Notes: nothing was lost (1)")
        assert "cut short" in lost
        assert "a.jpg: cut short" not in lost  # the file stands in a column of its own
        assert "shows the same cell as c.jpg" in notes


def test_alone_is_the_probability_of_the_class_above_the_cell(run_folder: Path) -> None:
    raw = (run_folder / "patients" / "p1.html").read_text(encoding="utf-8")
    told = re.findall(r'alone <span class="num">([^<]+)</span>', raw)
    # cells 5 and 4 for APL, as likely as their own probability of it; 0 and 1 for AML, of AML
    assert told == ["&gt;0.93", "0.77", "&gt;0.93", "0.77"]


def test_a_field_leads_to_its_picture_at_full_size(run_folder: Path) -> None:
    page = Page(run_folder / "patients" / "p1.html")
    (href,) = [h for h in page.values("a", "href") if h.startswith("../overlays")]
    assert (run_folder / "patients" / href).is_file()


def test_a_page_says_what_the_cells_look_like_and_what_to_check(
    tmp_path: Path, make_bag: MakeBag, make_prediction: MakePrediction
) -> None:
    store, out = make_bag("p1"), tmp_path / "run"
    looks = ("myeloblast", "lymphocyte", "lymphocyte", "basophil", "lymphocyte", "lymphocyte")
    one = make_prediction("p1")
    winners = {
        label: tuple(replace(w, looks_like=looks[w.cell]) for w in cells)
        for label, cells in one.winners.items()
    }
    touching = (Measure("touching_fraction", 0.5),)
    one = replace(one, cell_types=looks, winners=winners, quality=touching)
    card = CARD | {
        "cell_types": ["lymphocyte", "basophil", "myeloblast", "monocyte"],
        "mature_types": ["lymphocyte"],
    }
    write_prediction_run(out, card, [one], store, created=CREATED)
    text = re.sub(r"\s+", " ", Page(out / "patients" / "p1.html").text)
    counts = text.split("What the cells look like")[1]
    assert "Not a differential count" in counts
    assert "Lymphocyte4 (67%) Basophil1 (17%) Myeloblast1 (17%)" in counts
    assert "Monocyte" not in counts
    assert "50% of the cells touch another one" in text
    assert "100% of the evidence shown for APL lies in cells that look mature" in text
    index = re.sub(r"\s+", " ", Page(out / "report.html").text)
    assert "check touching another cell, strongest evidence" in index


def test_patient_page_says_what_would_resolve_it_and_the_interval(run_folder: Path) -> None:
    page = Page(run_folder / "patients" / "p3.html")
    assert "Why no call was made, and what would resolve it" in page.text
    assert f"{TOO_FEW.text}{TOO_FEW.remedy}" in page.text
    assert "0.38 to 0.53" in page.text
    table = re.sub(r"\s+", " ", page.text)
    assert "Quality of the images: 1 failed" in table
    assert "Sharpness, median cell0.5000at least 0.2500passed" in table
    assert "share of the cropnot measuredat least 10.0%, at most 70.0%failed" in table
    assert "left:38.4%;width:14.1%" in page.values("span", "style")
    for limit in ("left:45.0%", "left:6.2%"):  # called from, excluded below; at APL alone
        assert page.values("span", "style").count(limit) == 1
    assert "cells. Marks: APL is not called below 0.45" in table
    assert "APL is excluded where the whole line lies below 0.062." in table


def test_one_limit_for_both_is_told_once(run_folder: Path) -> None:
    file = run_folder / "predictions.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["excluded_below"] = content["model"]["threshold"]
    file.write_text(json.dumps(content), encoding="utf-8")
    write_report(run_folder)
    text = re.sub(r"\s+", " ", Page(run_folder / "patients" / "p3.html").text)
    assert text.count("0.450") == 1
    assert "Mark, at 0.450: APL is called from it on, and excluded only where" in text


def test_every_page_says_what_the_model_tells_and_what_few_cells_miss(run_folder: Path) -> None:
    pages = [run_folder / "report.html", *(run_folder / "patients").glob("*.html")]
    assert len(pages) == 5
    for path in pages:
        assert CARD["scope"] in Page(path).text
    content = json.loads((run_folder / "predictions.json").read_text(encoding="utf-8"))
    shares = {one["patient"]: one["missed_share"] for one in content["patients"]}
    assert shares["p1"] == pytest.approx(1 - 0.05 ** (1 / 6))
    assert shares["p4"] is None
    told = "With 6 usable cells, abnormal cells up to 39.3% of the film’s white cells can be missed"
    assert told in Page(run_folder / "patients" / "p1.html").text
    assert "can be missed" not in Page(run_folder / "patients" / "p4.html").text


def test_patient_page_says_call_model_quality_and_evidence(run_folder: Path) -> None:
    page = Page(run_folder / "patients" / "p1.html")
    check_page(page)
    for words in (
        "Suspected APL", "A suggestion, not a diagnosis", "0.90", "apl-blood", "9f" * 32, "6 cells",
        "0.1 µm/px", "smudge", "Against APL: for AML", "broken.jpg",
        "slide/im0.jpg", "scale bar: 10 µm",
        "Not excluded at 93 % by the patients held out of training: APL.",
    ):  # fmt: skip
        assert words in re.sub(r"\s+", " ", page.text), words
    # 2 + 2 in the strip, 6 in the gallery, a field, a histogram
    assert page.tags.count("img") == 12


def test_unknown_scale_is_flagged_and_no_bar_is_drawn(run_folder: Path) -> None:
    page = Page(run_folder / "patients" / "p3.html")
    check_page(page)
    assert "scale unknown" in page.text
    assert "scalebar" not in " ".join(page.values("span", "class"))
    assert "at least 50 are needed" in page.text


def test_cells_of_another_patient_are_to_be_checked(
    make_bag: MakeBag, make_prediction: MakePrediction, store: Store
) -> None:
    make_bag("p1")
    shared = Problem("p1", "a.jpg", Finding.SAME_CELL, "1 cell also under patient p2", note=True)
    write_prediction_run(
        store.root.parent, CARD, [make_prediction()], store, [shared], created=CREATED
    )
    assert "Patients with the same cells" in Page(store.root.parent / "patients" / "p1.html").text
    assert "patients with the same cells" in Page(store.root.parent / "report.html").text


def test_failed_patient_has_a_page_with_the_remedy(run_folder: Path) -> None:
    page = Page(run_folder / "patients" / "p4.html")
    check_page(page)
    assert "Failed: no result" in page.text
    assert "take other fields" in page.text


def test_report_made_again_is_the_same_to_the_byte(run_folder: Path) -> None:
    pages = [run_folder / "report.html", *(run_folder / "patients").iterdir()]
    before = {path: path.read_bytes() for path in pages}
    assert write_report(run_folder) == run_folder / "report.html"
    assert {path: path.read_bytes() for path in pages} == before


def test_every_cell_is_in_the_gallery_or_counted(
    make_bag: MakeBag, make_prediction: MakePrediction, store: Store
) -> None:
    make_bag("many", n=320)
    out = store.root.parent
    write_prediction_run(out, CARD, [make_prediction("many", n=320)], store, created=CREATED)
    page = Page(out / "patients" / "many.html")
    assert "The first 300 are shown; 20 more" in re.sub(r"\s+", " ", page.text)


@pytest.mark.parametrize("fusion", ["ghost_vlad", "type_shares", "max"])
def test_a_page_says_why_mature_cells_may_weigh_most(
    make_bag: MakeBag, make_prediction: MakePrediction, store: Store, fusion: str
) -> None:
    make_bag("p")
    out = store.root.parent
    card = CARD | {"fusion": fusion}
    write_prediction_run(out, card, [make_prediction("p")], store, created=CREATED)
    page = Page(out / "patients" / "p.html")
    check_page(page)
    assert ("cells of the same kind in other patients" in page.text) == (fusion == "ghost_vlad")
    assert ("patient’s own mature ones" in page.text) == (fusion == "type_shares")
    assert fusion.replace("_", " ") in page.text


def test_page_of_the_worst_pictures_stays_below_5_mb(tmp_path: Path) -> None:
    store, n, rng = Store(tmp_path / "store"), 310, np.random.default_rng(0)
    noise = rng.integers(0, 255, (8, 224, 224, 3), dtype=np.uint8)
    mask = np.zeros((224, 224), np.uint8)
    crops = (CellCrop(Cell(0, 1, 1, 0, 0, 2, 2, 4), noise[i % 8], mask) for i in range(n))
    source = SourceRecord("a.jpg", "0", ImageKind.CELL, 0.1, 10, 10)
    meta = BagMeta(224, 25.0, 0.1, "d")
    write_bag(store.path_of("p"), Patient("p", None, ()), crops, [source], meta)
    winners = {c: tuple(Winner(i, 0.08, 1) for i in range(12)) for c in CARD["labels"]}
    scores = np.full((n, 2), 0.5, np.float32)
    prediction = Prediction(
        "p", "AML", (), "AML", {"AML": 0.7, "APL": 0.3}, scores, winners, n, "m", "0"
    )
    write_prediction_run(tmp_path, CARD, [prediction], store, created=CREATED)
    assert (tmp_path / "patients" / "p.html").stat().st_size < 5_000_000


@pytest.mark.parametrize("payload", WORST)
def test_hostile_names_do_nothing(
    payload: str, make_bag: MakeBag, make_prediction: MakePrediction, store: Store
) -> None:
    out = store.root.parent
    make_bag(payload, n=4, names=[payload], um_px=None)
    prediction = make_prediction(payload, payload, 0.6, 4, [Reason(*[payload] * 3)])
    problems = [
        Problem(payload, payload, payload, payload),
        Problem(payload + "2", "", payload, payload, fatal=True),
    ]
    card = {**CARD, "name": payload, "version": payload}
    write_prediction_run(
        out, card, [prediction], store, problems, read_field=read_field, created=CREATED
    )
    pages = [out / "report.html", *(out / "patients").iterdir()]
    assert len(pages) == 3
    for path in pages:
        page = Page(path)
        check_page(page)
        assert payload.replace("\u202e", "\ufffd") in page.text


def test_study_page_holds_every_section(study_folder: Path) -> None:
    page = Page(write_report(study_folder))
    check_page(page)
    text = re.sub(r"\s+", " ", page.text)
    for words in (
        "Detection of APL in 6 patients", "0.875", "0.775 to 0.925", "DeLong",
        "3 folds x 2 repeats.", "No patient is in more than one part of a split (1 split in",
        "called APL", "Highest probability of AML", "s2: reference diagnosis AML, called APL",
        "wrong in 100", "Single cells vs expert", "millie", "not called APL",
        "standard deviation 0.123", "without smudge cells (present in 2 patients)", "0.811",
        "Calibration error 0.062", "Shown: all cells, frozen encoder", "By cell type",
    ):  # fmt: skip
        assert words in text, words
    assert "Controls for confounding" not in text
    alts = " ".join(page.values("img", "alt"))
    for words in ("ROC curve of APL with a 95% band", "Calibration", "principal components"):
        assert words in alts


def test_study_page_shows_controls_and_verdict(study_folder: Path) -> None:
    entry = {"name": "Background only", "description": "cells masked", "auc": {"value": 0.55}}
    content = {"verdict": "The model needs the cells.", "controls": [entry]}
    (study_folder / "controls.json").write_text(json.dumps(content))
    page = Page(write_report(study_folder))
    assert "The model needs the cells." in page.text
    assert "Background only" in page.text
    assert "0.550" in page.text


def test_study_page_is_the_same_to_the_byte(study_folder: Path) -> None:
    first = write_report(study_folder).read_bytes()
    assert write_report(study_folder).read_bytes() == first


def test_overlapping_split_is_shouted(study_folder: Path) -> None:
    split = {"repeat": 1, "fold": 2, "train": ["s0", "s1"], "validation": [], "test": ["s1"]}
    (study_folder / "splits.json").write_text(json.dumps({"assignments": [split]}))
    page = Page(write_report(study_folder))
    assert "do not use these results" in page.text
    assert "repeat 1, fold 2: s1" in page.text


def test_study_without_store_says_so(study_folder: Path) -> None:
    (study_folder / "bags").rename(study_folder / "elsewhere")
    page = Page(write_report(study_folder))
    check_page(page)
    assert "Cell images are missing" in page.text
    with_pictures = Page(write_report(study_folder, study_folder / "elsewhere"))
    assert "Cell images are missing" not in with_pictures.text


def test_study_with_the_numbers_alone(study_folder: Path) -> None:
    for name in ("cells.csv", "pca.csv", "splits.json"):
        (study_folder / name).unlink()
    path = study_folder / "metrics.json"
    metrics = json.loads(path.read_text())
    for key in ("cells", "calibration", "confusion", "protocol", "environment"):
        del metrics[key]
    path.write_text(json.dumps(metrics))
    check_page(Page(write_report(study_folder)))


@pytest.mark.parametrize("payload", WORST)
def test_hostile_names_do_nothing_in_a_study(payload: str, tmp_path: Path) -> None:
    rows = [[f"{payload}{i}", payload if i % 2 else "AML", 0, 0, 0.4, 0.6, 0.5, payload, 3]
            for i in range(4)]  # fmt: skip
    probabilities = ["probability_AML", f"probability_{payload}"]
    write_table(
        tmp_path / "predictions.csv",
        ["patient", "label", "repeat", "fold", *probabilities, "threshold", "call", "n_cells"],
        rows,
    )
    metrics = {
        "classes": ["AML", payload], "positive": payload, "n_by_class": {payload: 2, "AML": 2},
        "headline": {payload: {"value": 0.5, "low": 0.1, "high": 0.9, "method": payload}},
        "protocol": payload, "environment": {payload: payload}, "confusion": [[1, 1], [1, 1]],
        "controls": {"verdict": payload, "controls": [{"name": payload, payload: {"value": 1}}]},
    }  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    page = Page(write_report(tmp_path))
    check_page(page)
    assert payload.replace("\u202e", "\ufffd") in page.text


def test_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither predictions\.json"):
        write_report(tmp_path)
    with pytest.raises(MissingFileError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


def test_run_without_its_bags_is_refused(run_folder: Path) -> None:
    (run_folder / "store" / f"{safe_id('p1')}.h5").unlink()
    with pytest.raises(MissingFileError, match="p1"):
        write_report(run_folder)


def test_run_with_another_bag_is_refused(run_folder: Path, make_bag: MakeBag) -> None:
    make_bag("p1", n=9)
    with pytest.raises(DataError, match=r"cells\.csv has 6 cells, the bag 9"):
        write_report(run_folder)


@pytest.mark.parametrize("damage", [{"classes": None}, {"headline": 3}, {"n_by_class": {"a": "b"}}])
def test_damaged_metrics_are_refused(study_folder: Path, damage: dict[str, object]) -> None:
    path = study_folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(DataError, match=r"metrics\.json"):
        write_report(study_folder)

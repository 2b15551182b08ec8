"""Colour transfer inside folds: the test part has no say, and the networks see the change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from millie.bags.loading import shown
from millie.bags.store import BagMeta, BagReader, CellCrop, Store, write_bag
from millie.config import Config
from millie.errors import ConfigError
from millie.evaluation.colours import FILE, ColourTransfer, source_of
from millie.evaluation.crossval import crossval, open_study
from millie.evaluation.folds import fold_digest
from millie.learning.fit import fit
from millie.learning.material import Opener, participants
from millie.learning.splits import load_splits, make_splits
from millie.types import Cell, ImageKind, Patient, SourceRecord

TINT = {"warm": (1.0, 0.85, 0.7), "cold": (0.8, 0.95, 1.0)}

QUICK = [
    "model.encoder=tiny", "model.pretrained=false", "prediction.runtime=torch",
    "model.hidden=[8]", "training.max_epochs=2", "training.ensemble=1",
    "evaluation.folds=2", "evaluation.bootstrap=100", "training.colour_transfer=true",
]  # fmt: skip


def add_patient(store: Store, name: str, label: str, site: str, seed: int, n_cells: int = 8) -> str:
    """A bag whose crops have the tint of their site."""
    rng = np.random.default_rng(seed)
    crops = []
    for j in range(n_cells):
        image = rng.normal(200, 15, (16, 16, 3))
        image[5:11, 5:11] = rng.normal((120, 60, 150), 25, (6, 6, 3))
        image = np.clip(image * TINT.get(site, (1.0, 1.0, 1.0)), 0, 255).astype(np.uint8)
        mask = np.zeros((16, 16), np.uint8)
        mask[5:11, 5:11] = 1
        crops.append(CellCrop(Cell(0, 10.0 * j, 5.0, 10 * j, 0, 8, 8, 64.0), image, mask))
    record = SourceRecord("a.png", f"{seed:064x}", ImageKind.FIELD, 0.1, 100, 100, "", {})
    patient = Patient(name, label, (), site=site)
    path = store.path_of(name)
    write_bag(path, patient, iter(crops), [record], BagMeta(16, 25.0, 25 / 16, "d" * 64), [])
    return name


@pytest.fixture(scope="session")
def two_sites(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight patients from a warm site, six from a cold one, both diagnoses at both."""
    store = Store(tmp_path_factory.mktemp("sites"))
    for i in range(14):
        site = "warm" if i < 8 else "cold"
        add_patient(store, f"p-{i:02d}", ("AML", "APL")[i % 2], site, i)
    store.describe("two sites", Config().with_settings(["crops.size_px=16"]), ("AML", "APL"))
    return store


@pytest.fixture
def transfer(two_sites: Store) -> ColourTransfer:
    return ColourTransfer(two_sites, [bag.patient for bag in two_sites.index()])


def crops_of(store: Store, patient: str) -> np.ndarray:
    with BagReader(store.path_of(patient)) as bag:
        return bag.images(0, bag.n_cells)


def test_sources_are_sites_with_scanners(two_sites: Store, transfer: ColourTransfer) -> None:
    bag = two_sites.index()[0]
    assert source_of(replace(bag, scanner="X1")) == "warm, X1"
    assert source_of(replace(bag, site="", scanner="")) == ""
    assert transfer.names == ["warm", "cold"], "the larger one comes first"


def test_all_get_the_colours_of_the_largest(two_sites: Store, transfer: ColourTransfer) -> None:
    patients = sorted(transfer.sources)
    colours = transfer.fit(patients)
    changes = transfer.changes(colours, patients)
    cold = [p for p in patients if transfer.sources[p] == "cold"]
    assert colours.target == "warm"
    assert sorted(changes) == cold

    warm = np.concatenate([crops_of(two_sites, p) for p in patients if p not in cold])
    before = np.concatenate([crops_of(two_sites, p) for p in cold])
    after = np.concatenate([changes[p][1](crops_of(two_sites, p)) for p in cold])
    gap = [np.abs(x.mean((0, 1, 2)) - warm.mean((0, 1, 2))).max() for x in (before, after)]
    assert gap[0] > 20
    assert gap[1] < 4


def test_a_batch_is_changed_as_its_images_are(transfer: ColourTransfer) -> None:
    change = transfer.changes(transfer.fit(sorted(transfer.sources)), ["p-09"])["p-09"][1]
    images = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
    one_by_one = np.concatenate([change(images[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(change(images), one_by_one)
    assert change(images[:0]).shape == (0, 16, 16, 3)


def test_a_test_patient_has_no_say(two_sites: Store, tmp_path: Path) -> None:
    """Another patient in the test part, quite other colours: the statistics stay the same."""
    other = Store(tmp_path)
    patients = [bag.patient for bag in two_sites.index()]
    for name in patients[:-1]:
        other.path_of(name).write_bytes(two_sites.path_of(name).read_bytes())
    add_patient(other, patients[-1], "APL", "cold", 999, n_cells=3)
    part = patients[:-1]
    first = ColourTransfer(two_sites, patients).fit(part)
    assert ColourTransfer(other, patients).fit(part) == first
    assert ColourTransfer(two_sites, patients).fit(patients) != first


def test_a_source_that_nobody_trains_on_stays_as_it_is(transfer: ColourTransfer) -> None:
    warm = [p for p, s in transfer.sources.items() if s == "warm"]
    cold = [p for p, s in transfer.sources.items() if s == "cold"]
    assert transfer.changes(transfer.fit(warm), cold) == {}
    assert transfer.fit(cold).target == "cold", "the target may be the source left out"
    assert transfer.fit([]).target == ""


def test_embeddings_are_cached_by_the_change(two_sites: Store, transfer: ColourTransfer) -> None:
    opener = Opener(two_sites, Config().with_settings(QUICK))
    patients = sorted(transfer.sources)
    changes = transfer.changes(transfer.fit(patients), patients)
    plain, changed, again = (
        opener.open(patients, colours=c).source for c in (None, changes, changes)
    )
    for patient in patients:
        same = plain.digest([patient]) == changed.digest([patient])
        assert same == (transfer.sources[patient] == "warm")
    assert changed.digest(patients) == again.digest(patients)


def test_crops_and_their_background_change_alike(
    two_sites: Store, transfer: ColourTransfer
) -> None:
    config = Config().with_settings([*QUICK, "training.mode=end_to_end", "model.background=only"])
    change = transfer.changes(transfer.fit(sorted(transfer.sources)), ["p-09"])
    source = Opener(two_sites, config).open(["p-09"], colours=change).source
    plain = Opener(two_sites, config).open(["p-09"]).source
    assert source.digest(["p-09"]) != plain.digest(["p-09"])
    with BagReader(two_sites.path_of("p-09")) as bag:
        expected = shown(bag, 0, 2, "only", change["p-09"][1])
    found = source.cells("p-09", np.arange(2)).permute(0, 2, 3, 1).numpy() * 255
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_crossval_uses_the_statistics_of_each_fold(two_sites: Store, tmp_path: Path) -> None:
    config = Config().with_settings(QUICK)
    result = crossval(two_sites, config, tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    assert [f["target"] for f in content["folds"]] == ["warm", "warm"]
    fold = load_splits(tmp_path / "splits.json").assignments[0]
    transfer = ColourTransfer(two_sites, sorted(content["sources"]))
    expected = transfer.fit((*fold.train, *fold.validation))
    written = content["folds"][0]["statistics"]
    assert written == {name: s.to_dict() for name, s in expected.statistics.items()}
    assert "Reinhard" in " ".join(result.metrics["protocol"])

    kept = crossval(two_sites, config.with_settings(["training.colour_transfer=false"]), tmp_path)
    assert not (tmp_path / FILE).exists(), "what an earlier run wrote would be shown as this one's"
    assert kept.metrics["headline"]["auc_repeats"] != result.metrics["headline"]["auc_repeats"]


def test_a_bundle_cannot_carry_it(two_sites: Store) -> None:
    with pytest.raises(ConfigError, match=r"training\.colour_transfer=false"):
        fit(two_sites, Config().with_settings(QUICK))


def test_the_setting_changes_the_digest_of_a_fold(two_sites: Store, tmp_path: Path) -> None:
    config = Config().with_settings(QUICK)
    crossval(two_sites, config, tmp_path)
    fold = load_splits(tmp_path / "splits.json").assignments[0]
    other = config.with_settings(["training.colour_transfer=false"])
    digests = {
        fold_digest(open_study(two_sites, participants(two_sites), c, "APL"), fold)
        for c in (config, other)
    }
    assert len(digests) == 2


def test_another_source_of_a_patient_changes_the_digest_of_a_fold(two_sites: Store) -> None:
    """The same cells, but a site that was corrected: all of that fold's colours are others."""
    config = Config().with_settings(QUICK)
    who = participants(two_sites)
    fold = make_splits(who.labels, 2, 1, 0).assignments[0]
    study = open_study(two_sites, who, config, "APL")
    before = fold_digest(study, fold)
    assert study.recoloured is not None
    study.recoloured.transfer.sources[fold.train[0]] = "elsewhere"
    assert fold_digest(study, fold) != before

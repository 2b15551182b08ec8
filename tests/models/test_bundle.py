"""Bundles: what is saved comes back; what was touched is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from millie.config import Config, to_toml
from millie.errors import BundleError, ConfigError, MissingFileError
from millie.models import bundle_folder, manifest
from millie.models.bundle import (
    Bundle,
    BundleDescription,
    ensemble_probabilities,
    load_bundle,
    save_bundle,
    shipped_bundles,
)
from millie.models.bundle_folder import file_record, parse_settings
from millie.models.encoders import build_encoder, new_encoder, weights_digest
from millie.models.network import MilNetwork, build_network

LABELS = ("AML", "APL", "normal")
DESCRIPTION = BundleDescription(
    name="toy", version="0.1.0", labels=LABELS, positive="APL", threshold=0.4, temperature=1.7,
    qc={"min_cells": 50, "blur": 0.25}, provenance={"cohort": "synthetic", "patients": [1, 2]},
    card="# Toy\n\nFor research use only. µm\n", created="2026-01-02T03:04:05+00:00",
)  # fmt: skip
CONFIG = Config().with_settings([
    "model.aggregator=ghost_vlad", "model.hidden=[4]", "crops.size_px=200", "crops.size_um=20",
])  # fmt: skip
SMALL = Config().with_settings(["model.encoder=resnet_small", "model.pretrained=false"])
ENCODER_SHA256 = "0123456789abcdef" * 4
REFERENCE = {"mean": torch.arange(6.0), "std": torch.ones(6), "distances": torch.tensor([1.0, 2.0])}


def networks(n: int = 2, config: Config = CONFIG) -> list[MilNetwork]:
    found = [build_network(config.model, LABELS, 6, seed=i) for i in range(n)]
    for network in found:
        network.standardiser.fit(torch.randn(20, 6, generator=torch.Generator().manual_seed(n)))
    return found


@pytest.fixture
def saved(tmp_path: Path) -> Bundle:
    return save_bundle(
        tmp_path / "toy", networks(), CONFIG, DESCRIPTION, ENCODER_SHA256,
        reference=REFERENCE,
    )  # fmt: skip


def test_what_is_saved_comes_back(saved: Bundle) -> None:
    loaded = load_bundle(saved.folder)
    assert loaded.labels == LABELS
    assert loaded.name == "toy 0.1.0"
    assert loaded.config == CONFIG
    assert loaded.card == DESCRIPTION.card
    assert {name: value.tolist() for name, value in loaded.reference.items()} == {
        name: value.tolist() for name, value in REFERENCE.items()
    }
    stated = loaded.manifest
    assert (stated.positive, stated.threshold, stated.temperature) == ("APL", 0.4, 1.7)
    assert (stated.size_px, stated.size_um) == (200, 20.0)
    assert stated.qc == DESCRIPTION.qc
    assert stated.provenance == DESCRIPTION.provenance
    assert stated.created == DESCRIPTION.created
    x = torch.randn(1, 5, 6)
    for before, after in zip(networks(), loaded.networks, strict=True):
        assert not after.training
        assert torch.equal(after(x), before.eval()(x))
    loaded.check()


def test_shipped_models_are_loaded_without_torchs_compiler() -> None:
    code = (
        "import sys\n"
        "from millie.models.bundle import load_bundle, shipped_bundles\n"
        "for name in shipped_bundles(): load_bundle(name)\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])\n"
    )
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert ran.stdout.strip() == "[]"  # it takes a second, of the five that a patient may take


def test_equal_content_gives_equal_bytes(saved: Bundle, tmp_path: Path) -> None:
    again = save_bundle(
        tmp_path / "again", networks(), CONFIG, DESCRIPTION, ENCODER_SHA256,
        reference=REFERENCE,
    )  # fmt: skip
    assert again.sha256 == saved.sha256
    for path in saved.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_the_digest_is_that_of_the_manifest_file(saved: Bundle) -> None:
    data = (saved.folder / "bundle.json").read_bytes()
    assert saved.sha256 == file_record(data).sha256
    assert json.loads(data)["schema"] == manifest.SCHEMA


def test_a_trained_encoder_travels_with_the_bundle(tmp_path: Path) -> None:
    encoder = new_encoder("resnet_small", seed=3)
    start = weights_digest(encoder)
    with torch.no_grad():
        encoder.get_parameter("stem.weight").mul_(1.01)
    network = build_network(SMALL.model, LABELS, encoder=encoder)
    saved = save_bundle(tmp_path / "b", [network], SMALL, DESCRIPTION, start)
    assert saved.manifest.encoder.trained
    assert weights_digest(saved.encoders()[0]) == weights_digest(encoder)
    assert saved.golden["images"].dtype == torch.uint8
    saved.check()


def test_an_untouched_encoder_is_named_only(tmp_path: Path) -> None:
    encoder = new_encoder("resnet_small", seed=0)
    network = build_network(SMALL.model, LABELS, encoder=encoder)
    saved = save_bundle(tmp_path / "b", [network], SMALL, DESCRIPTION, weights_digest(encoder))
    assert not saved.manifest.encoder.trained
    assert saved.networks[0].encoder is None
    names = load_file(saved.folder / "weights.safetensors").keys()
    assert not [name for name in names if "encoder" in name]
    assert weights_digest(saved.encoders()[0]) == weights_digest(encoder)


def test_another_encoder_on_this_machine_is_refused(saved: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="trained on blood_cell with weights 0123456789"):
        saved.encoders()
    made = replace(DESCRIPTION, provenance={"millie": "0.0.7"})
    named = save_bundle(tmp_path / "b", networks(), CONFIG, made, ENCODER_SHA256)
    with pytest.raises(BundleError, match=r"train it again \(millie train\).*\(0\.0\.7\)"):
        named.encoders()


def test_a_bundle_of_before_a_setting_was_there_takes_its_default(saved: Bundle) -> None:
    text = (saved.folder / "config.toml").read_text(encoding="utf-8")
    old = "".join(x for x in text.splitlines(keepends=True) if not x.startswith("prototypes"))
    assert old != text
    forge_file(saved, "config.toml", old.encode())
    assert load_bundle(saved.folder).config == saved.config


def test_the_path_of_weights_does_not_travel(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(new_encoder("resnet_small", seed=5).state_dict(), path)
    config = Config().with_settings([f"model.weights={path}", "model.encoder=resnet_small"])
    digest = weights_digest(build_encoder(config.model))
    network = build_network(config.model, LABELS, 256)
    saved = save_bundle(tmp_path / "b", [network], config, DESCRIPTION, digest)
    assert str(tmp_path) not in (saved.folder / "config.toml").read_text()
    assert saved.config.model.weights is None
    assert weights_digest(saved.encoders(path)[0]) == digest


@pytest.mark.parametrize("seed", range(4))
def test_every_flipped_bit_is_refused(saved: Bundle, seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = sorted(saved.folder.iterdir())
    assert len(paths) == 6
    for trial in range(60):
        path = paths[trial % len(paths)]
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            load_bundle(saved.folder)
        path.write_bytes(intact)
    load_bundle(saved.folder)


def test_every_bit_of_the_manifest_counts(saved: Bundle) -> None:
    data = (saved.folder / "bundle.json").read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(BundleError):
            manifest.from_bytes(bytes(damaged), "bundle.json")


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_shortened_files_are_refused(saved: Bundle, cut: int) -> None:
    for path in sorted(saved.folder.iterdir()):
        intact = path.read_bytes()
        path.write_bytes(intact[:cut] if len(intact) > cut else intact + b" ")
        with pytest.raises(BundleError, match=r"altered|valid JSON"):
            load_bundle(saved.folder)
        path.write_bytes(intact)


@pytest.mark.parametrize(
    "name",
    ["bundle.json", "weights.safetensors", "config.toml", "golden.safetensors", "MODEL_CARD.md"],
)
def test_missing_files_are_named(saved: Bundle, name: str) -> None:
    (saved.folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(saved.folder)


def test_what_an_operating_system_left_does_not_spoil_a_bundle(saved: Bundle) -> None:
    for name in (".DS_Store", "._bundle.json", "Thumbs.db", "desktop.ini"):
        (saved.folder / name).write_bytes(b"x")
    assert load_bundle(saved.folder).sha256 == saved.sha256
    (saved.folder / ".hidden").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"'\.hidden' does not belong"):
        load_bundle(saved.folder)


def test_unknown_files_and_folders_are_refused(saved: Bundle) -> None:
    extra = saved.folder / "model.pkl"
    extra.write_bytes(b"")
    with pytest.raises(BundleError, match=r"'model\.pkl' does not belong"):
        load_bundle(saved.folder)
    extra.unlink()
    (saved.folder / "more").mkdir()
    with pytest.raises(BundleError, match="'more' does not belong"):
        load_bundle(saved.folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json"])
def test_links_are_refused(saved: Bundle, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(saved.folder / name, elsewhere)
    (saved.folder / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match="no plain file"):
        load_bundle(saved.folder)


def rewrite(bundle: Bundle, **changes: object) -> None:
    """Forge a manifest whose own digest is right."""
    content = bundle.manifest.model_dump(mode="json", by_alias=True) | changes
    forged = manifest._canonical({**content, "digest": manifest._digest(content)})
    (bundle.folder / "bundle.json").write_bytes(forged)


@pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/passwd", "a/b", "x.pkl"])
def test_paths_that_leave_the_folder_are_refused(saved: Bundle, name: str) -> None:
    files = saved.manifest.model_dump(mode="json")["files"]
    rewrite(saved, files={**files, name: files["config.toml"]})
    with pytest.raises(BundleError, match="allowed besides"):
        load_bundle(saved.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "schema 1, this version of millie reads 2"),
        ({"version": "1"}, "version: String should match"),
        ({"requires_millie": "new"}, "requires_millie: .*'>=0.2,<0.3'"),
        ({"requires_millie": ">=77"}, "this model needs millie >=77, and this is millie"),
        ({"requires_millie": ">=77", "schema": 3, "surprise": 1}, "this model needs millie >=77"),
        ({"positive": "CML"}, "positive 'CML'"),
        ({"labels": ["APL", "APL"]}, "labels"),
        ({"threshold": 1.5}, "threshold"),
        ({"temperature": 0}, "temperature"),
        ({"threshold": "0.5"}, "threshold"),
        ({"name": "../toy"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"networks": 3}, "lack"),
        ({"networks": 1}, "no network"),
        ({"labels": ["APL", "AML", "normal"]}, "those of the golden sample"),
        ({"size_px": 224}, "different encoders or crops"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(
    saved: Bundle, changes: dict[str, object], message: str
) -> None:
    rewrite(saved, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(saved.folder)


def test_another_encoder_than_the_configurations_is_refused(saved: Bundle) -> None:
    record = saved.manifest.model_dump(mode="json")["encoder"]
    rewrite(saved, encoder={**record, "name": "vgg19"})
    with pytest.raises(BundleError, match="different encoders"):
        load_bundle(saved.folder)


def forge_file(bundle: Bundle, name: str, data: bytes) -> None:
    """Replace a file and state its new hash, as a careless maker might."""
    (bundle.folder / name).write_bytes(data)
    files = bundle.manifest.model_dump(mode="json")["files"]
    rewrite(bundle, files={**files, name: file_record(data).model_dump()})


@pytest.mark.parametrize("name", ["weights", "reference", "golden"])
def test_values_that_are_not_finite_are_refused(saved: Bundle, tmp_path: Path, name: str) -> None:
    tensors = load_file(saved.folder / f"{name}.safetensors")
    key = min(tensors)
    tensors[key].view(-1)[0] = torch.nan
    save_file(tensors, tmp_path / "new")
    forge_file(saved, f"{name}.safetensors", (tmp_path / "new").read_bytes())
    with pytest.raises(BundleError, match="not finite"):
        load_bundle(saved.folder)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("weights.safetensors", b"\x80\x04K\x01.", "no readable safetensors"),
        ("config.toml", b"[model]\nlayers = 3\n", "does not fit this version"),
        ("config.toml", b"\xff", "does not fit this version"),
    ],
)
def test_files_of_another_kind_are_refused(
    saved: Bundle, name: str, data: bytes, message: str
) -> None:
    forge_file(saved, name, data)
    with pytest.raises(BundleError, match=message):
        load_bundle(saved.folder)


def test_a_golden_sample_that_is_not_reproduced_is_refused(saved: Bundle, tmp_path: Path) -> None:
    sample = load_file(saved.folder / "golden.safetensors")
    sample["probabilities"] += torch.tensor([1e-3, -1e-3, 0.0])
    save_file(sample, tmp_path / "new")
    forge_file(saved, "golden.safetensors", (tmp_path / "new").read_bytes())
    with pytest.raises(BundleError, match=r"differ by 0\.001, allowed 0\.0001. Fetch or train"):
        load_bundle(saved.folder)


@pytest.mark.parametrize("key", ["probabilities", "embeddings"])
def test_a_golden_sample_of_another_form_is_refused(
    saved: Bundle, tmp_path: Path, key: str
) -> None:
    sample = load_file(saved.folder / "golden.safetensors")
    del sample[key]
    save_file(sample, tmp_path / "new")
    forge_file(saved, "golden.safetensors", (tmp_path / "new").read_bytes())
    with pytest.raises(BundleError, match=r"golden sample(: lacking| with)"):
        load_bundle(saved.folder)


ODD = [None, True, "x", "", -1, 0, 1, 10**30, 2.5, 1e308, -1e308, [], [65_536] * 16, {"a": {}}]


def is_refused_or_works(folder: Path) -> bool:
    try:
        bundle = load_bundle(folder)
    except BundleError:
        return True
    cells = torch.randn(5, bundle.networks[0].dim)
    logits = torch.stack([n.bag_logits(cells[None])[0] for n in bundle.networks])
    return bool(bundle.probabilities(logits).isfinite().all())


def places(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in sorted(content.items()):
        yield content, key
        if isinstance(value, dict):
            yield from places(value)


def changed(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The content with one field left out or odd, in turn."""
    for owner, key in list(places(content)):
        value = owner.pop(key)
        yield content
        for odd in ODD:
            owner[key] = odd
            yield content
        owner[key] = value


def test_no_field_of_the_manifest_can_do_worse_than_be_refused(saved: Bundle) -> None:
    content = saved.manifest.model_dump(mode="json", by_alias=True)
    for forged in changed(content):
        data = manifest._canonical({**forged, "digest": manifest._digest(forged)})
        (saved.folder / "bundle.json").write_bytes(data)
        assert is_refused_or_works(saved.folder), forged


def changed_settings(*stages: str) -> Iterator[bytes]:
    content = tomllib.loads(to_toml(CONFIG))
    for forged in changed({stage: content[stage] for stage in stages or content}):
        lines = [
            f"{stage}.{key} = {json.dumps(value)}\n"
            for stage, own in forged.items()
            for key, value in (own.items() if isinstance(own, dict) else [("x", own)])
            if value is not None
        ]
        yield "".join(lines).encode()


def test_no_setting_of_a_bundle_can_do_worse_than_be_refused(saved: Bundle) -> None:
    for data in changed_settings("crops", "model"):
        forge_file(saved, "config.toml", data)
        assert is_refused_or_works(saved.folder), data
    for data in changed_settings():
        with suppress(BundleError):
            assert parse_settings(data, saved.folder).reading.max_expansion <= 200


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "training.seed" + ".a" * 5000 + " = 1", "a = " + "9" * 5000]
)
def test_settings_beyond_what_python_reads_are_refused(saved: Bundle, text: str) -> None:
    forge_file(saved, "config.toml", text.encode())
    with pytest.raises(BundleError, match=r"does not fit this version"):
        load_bundle(saved.folder)


@pytest.mark.parametrize("name", ["weights", "reference", "golden"])
def test_no_tensor_of_a_bundle_can_do_worse_than_be_refused(
    saved: Bundle, tmp_path: Path, name: str
) -> None:
    good = load_file(saved.folder / f"{name}.safetensors")
    for key, value in good.items():
        if key.startswith("1."):
            continue  # the second network is as the first
        for odd in (
            None, value[:0], value[0], value[None], value.double(), value.half(), -value,
            value.to(torch.float8_e5m2), value * 1e30, value * 0, torch.zeros(1, 3, 0, 0).byte(),
        ):  # fmt: skip
            tensors = {k: v.contiguous() for k, v in {**good, key: odd}.items() if v is not None}
            save_file(tensors, tmp_path / "new")
            forge_file(saved, f"{name}.safetensors", (tmp_path / "new").read_bytes())
            assert is_refused_or_works(saved.folder), (key, odd)


@pytest.mark.parametrize(
    "header", [b"{}", b'{"__metadata__":null}', b'{"__metadata__":{"labels":"["}}', b"[]", b"0"]
)
def test_headers_without_tensors_are_refused(saved: Bundle, header: bytes) -> None:
    for name in ("weights", "golden"):
        data = len(header).to_bytes(8, "little") + header
        forge_file(saved, f"{name}.safetensors", data)
        with pytest.raises(BundleError):
            load_bundle(saved.folder)


def test_nothing_is_allocated_for_sizes_that_the_weights_do_not_have(saved: Bundle) -> None:
    text = to_toml(CONFIG.with_settings(["model.hidden=[65536]", "model.prototypes=1024"]))
    forge_file(saved, "config.toml", text.encode())
    record = bundle_folder.read_settings(saved.folder)[0].model_dump(mode="json")
    rewrite(saved, files=record["files"], encoder={**record["encoder"], "dim": 65_536})
    with pytest.raises(BundleError, match=r"expected torch\.float32 \(65536,"):  # 17 TB
        load_bundle(saved.folder)


def test_classes_swapped_in_the_weights_are_noticed(saved: Bundle, tmp_path: Path) -> None:
    tensors = load_file(saved.folder / "weights.safetensors")
    for name in ("weight", "bias"):
        tensors[f"0.head.4.{name}"] = tensors[f"0.head.4.{name}"].flip(0).contiguous()
    save_file(tensors, tmp_path / "new")
    forge_file(saved, "weights.safetensors", (tmp_path / "new").read_bytes())
    with pytest.raises(BundleError, match="does not reproduce its golden sample"):
        load_bundle(saved.folder)


def test_a_bundle_tightens_the_limits_of_images_and_never_lifts_them(tmp_path: Path) -> None:
    config = CONFIG.with_settings(["reading.max_expansion=1e12", "reading.max_file_megabytes=3"])
    saved = save_bundle(tmp_path / "b", networks(), config, DESCRIPTION, ENCODER_SHA256)
    reading = saved.config.reading
    assert (reading.max_expansion, reading.max_file_megabytes) == (200, 3)
    assert bundle_folder.read_settings(saved.folder)[1] == saved.config


def test_a_bundle_cannot_allow_itself_a_larger_gap(saved: Bundle, tmp_path: Path) -> None:
    sample = load_file(saved.folder / "golden.safetensors")
    sample["probabilities"] += torch.tensor([1e-3, -1e-3, 0.0])
    save_file(sample, tmp_path / "new")
    data = (tmp_path / "new").read_bytes()
    (saved.folder / "golden.safetensors").write_bytes(data)
    files = saved.manifest.model_dump(mode="json")["files"]
    files["golden.safetensors"] = file_record(data).model_dump()
    rewrite(saved, golden_tolerance=0.9, files=files)
    with pytest.raises(BundleError, match=r"allowed 0\.0001"):
        load_bundle(saved.folder)


def test_changed_weights_fail_the_golden_sample(saved: Bundle) -> None:
    saved.check()
    with torch.no_grad():
        for weight in saved.networks[0].parameters():
            weight.add_(0.5)
    with pytest.raises(BundleError, match="does not reproduce"):
        saved.check()


def test_an_own_golden_sample_is_kept(tmp_path: Path) -> None:
    cells = torch.randn(3, 6)
    saved = save_bundle(
        tmp_path / "b", networks(), CONFIG, DESCRIPTION, ENCODER_SHA256, golden=cells
    )
    assert torch.equal(saved.golden["embeddings"], cells)
    assert float(saved.golden["probabilities"].sum()) == pytest.approx(1)
    with pytest.raises(ConfigError, match="golden sample"):
        save_bundle(tmp_path / "c", networks(), CONFIG, DESCRIPTION, ENCODER_SHA256,
                    golden=torch.zeros(3))  # fmt: skip


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    broken = networks()
    broken[1].standardiser.mean[2] = torch.inf
    with pytest.raises(BundleError, match="not finite"):
        save_bundle(tmp_path / "b", broken, CONFIG, DESCRIPTION, ENCODER_SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "name"),
        ({"positive": "CML"}, "positive 'CML'"),
        ({"threshold": 2.0}, "threshold"),
        ({"qc": {"blur": float("nan")}}, "qc"),
        ({"provenance": {"file": Path("x")}}, "provenance"),
        ({"provenance": {"auc": float("nan")}}, "provenance"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    values = {f: getattr(DESCRIPTION, f) for f in BundleDescription.__dataclass_fields__}
    with pytest.raises(ConfigError, match=message):
        save_bundle(tmp_path / "b", networks(), CONFIG, BundleDescription(**{**values, **changes}),
                    ENCODER_SHA256)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_networks_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    with_encoder = build_network(SMALL.model, LABELS, encoder=new_encoder("resnet_small"))
    without = build_network(SMALL.model, LABELS, 256)
    for mixed in ([], [with_encoder, without]):
        with pytest.raises(ConfigError, match="all or none with an encoder"):
            save_bundle(tmp_path / "b", mixed, SMALL, DESCRIPTION, ENCODER_SHA256)


def test_an_existing_folder_is_kept_unless_it_is_a_bundle_to_replace(
    saved: Bundle, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("keep")
    for replaced in (False, True):
        with pytest.raises(ConfigError, match="exists; name another folder"):
            save_bundle(other, networks(), CONFIG, DESCRIPTION, ENCODER_SHA256, replace=replaced)
    with pytest.raises(ConfigError, match="exists"):
        save_bundle(saved.folder, networks(), CONFIG, DESCRIPTION, ENCODER_SHA256)
    new = save_bundle(saved.folder, networks(3), CONFIG, DESCRIPTION, ENCODER_SHA256, replace=True)
    assert len(load_bundle(saved.folder).networks) == 3
    assert new.sha256 != saved.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "toy"]


def test_a_failed_rename_keeps_the_old_bundle(
    saved: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        save_bundle(saved.folder, networks(3), CONFIG, DESCRIPTION, ENCODER_SHA256, replace=True)
    assert load_bundle(saved.folder).sha256 == saved.sha256


def test_names_of_shipped_bundles(
    saved: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_folder, "_shipped_root", lambda: saved.folder.parent)
    assert shipped_bundles() == ("toy",)
    assert load_bundle("toy").sha256 == saved.sha256
    with pytest.raises(MissingFileError, match=r"'roy' is neither .*; shipped: toy"):
        load_bundle("roy")


def test_all_shipped_bundles_reproduce_their_golden_samples() -> None:
    assert "apl-blood" in shipped_bundles()
    for name in shipped_bundles():
        bundle = load_bundle(name)
        bundle.check()
        assert bundle.manifest.positive == "APL"


def test_a_bare_name_means_the_shipped_bundle(
    saved: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_folder, "_shipped_root", lambda: saved.folder.parent)
    work = tmp_path / "work"
    (work / "toy").mkdir(parents=True)
    monkeypatch.chdir(work)
    assert bundle_folder.locate("toy") == saved.folder
    assert bundle_folder.locate("./toy") == Path("toy")
    assert bundle_folder.locate(Path("toy")) == Path("toy")


def test_without_shipped_bundles_the_list_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_folder, "_shipped_root", lambda: tmp_path / "none")
    assert shipped_bundles() == ()
    with pytest.raises(MissingFileError, match="shipped: none"):
        load_bundle("toy")


def test_probabilities_of_one_network_without_temperature_are_softmax() -> None:
    logits = torch.randn(1, 4, 3)
    expected = logits[0].double().softmax(dim=-1)
    torch.testing.assert_close(ensemble_probabilities(logits, 1.0), expected)


def test_the_ensemble_averages_probabilities(saved: Bundle) -> None:
    logits = torch.randn(2, 5, 3)
    mean = logits.double().softmax(dim=-1).mean(dim=0)
    torch.testing.assert_close(ensemble_probabilities(logits, 1.0), mean)
    sharpened = (mean ** (1 / 1.7)) / (mean ** (1 / 1.7)).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(saved.probabilities(logits), sharpened)
    with pytest.raises(ConfigError, match="logits of 3 networks: expected 2"):
        saved.probabilities(torch.zeros(3, 3))


def test_certain_logits_stay_finite() -> None:
    found = ensemble_probabilities(torch.tensor([[900.0, -900.0, 0.0]]), 1.3)
    assert found.isfinite().all()
    assert float(found.sum()) == pytest.approx(1)


def test_a_cascade_comes_back_as_it_was(tmp_path: Path) -> None:
    """Saved and loaded, without a golden sample that no longer fits."""
    config = SMALL.with_settings(["model.aggregator=type_shares", "model.prototypes=2"])
    labels = ("ALL", "AML", "APL", "normal")
    network = build_network(config.model, labels, 6, types=4, seed=1)
    description = BundleDescription(name="m", version="1.0.0", labels=labels, positive="APL")
    save_bundle(tmp_path / "m", [network], config, description, "0" * 64)
    cells = torch.randn(1, 9, 6)
    (loaded,) = load_bundle(tmp_path / "m").networks
    torch.testing.assert_close(loaded.bag_logits(cells), network.eval().bag_logits(cells))

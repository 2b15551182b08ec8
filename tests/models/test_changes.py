"""Which digit of a version each difference of two models needs."""

from __future__ import annotations

from typing import Any

import pytest

from millie.config import Config
from millie.models.bundle import shipped_bundles
from millie.models.bundle_folder import locate, read_settings
from millie.models.changes import Stated, changes
from millie.models.manifest import FileRecord, Manifest
from millie.models.versions import Digit

OTHER = FileRecord(size_bytes=1, sha256="0" * 64)


@pytest.fixture(scope="module")
def old() -> Stated:
    return read_settings(locate("apl-blood"))


def with_fields(old: Stated, **fields: Any) -> Stated:
    return old[0].model_copy(update=fields), old[1]


def with_settings(old: Stated, *words: str) -> Stated:
    return old[0], old[1].with_settings(list(words))


def with_file(old: Stated, name: str) -> Stated:
    return with_fields(old, files={**old[0].files, name: OTHER})


def needed(old: Stated, new: Stated) -> tuple[Digit, str]:
    (found,) = changes(old, new)
    return found.digit, found.what


def test_a_model_and_itself_need_no_version(old: Stated) -> None:
    assert changes(old, old) == ()


def test_the_order_of_the_labels_and_the_day_are_no_change(old: Stated) -> None:
    new = with_fields(old, labels=old[0].labels[::-1], created="2030-01-01T00:00:00+00:00")
    assert changes(old, new) == ()


@pytest.mark.parametrize(
    ("words", "digit", "what"),
    [
        (["crops.size_um=20"], Digit.MAJOR, "settings of 'crops'"),
        (["segmentation.um_px=0.2"], Digit.MAJOR, "settings of 'segmentation'"),
        (["reading.max_cell_side_um=50"], Digit.MAJOR, "settings of 'reading'"),
        (["model.background=keep"], Digit.MAJOR, "model.background"),
        (['prediction.negative_labels=["fine"]'], Digit.MAJOR, "mean no disease"),
        (["prediction.min_cells=77"], Digit.MINOR, "settings of 'prediction'"),
    ],
)
def test_settings(old: Stated, words: list[str], digit: Digit, what: str) -> None:
    found = needed(old, with_settings(old, *words))
    assert found[0] == digit
    assert what in found[1]


def test_settings_that_only_training_reads_need_no_version(old: Stated) -> None:
    assert changes(old, with_settings(old, "training.max_epochs=3")) == ()


@pytest.mark.parametrize(
    ("fields", "digit", "what"),
    [
        ({"labels": ["AML", "APL", "ALL"]}, Digit.MAJOR, "AML, APL -> AML, APL, ALL"),
        ({"positive": "AML"}, Digit.MAJOR, "APL -> AML"),
        ({"threshold": 0.9}, Digit.MINOR, "0.4104 -> 0.9"),
        ({"temperature": 2.0}, Digit.MINOR, "1 -> 2"),
        ({"qc": {}}, Digit.MINOR, "gates"),
        ({"provenance": {}}, Digit.PATCH, "provenance"),
        ({"name": "other"}, Digit.PATCH, "name"),
        ({"requires_millie": ">=9"}, Digit.PATCH, "requires_millie"),
    ],
)
def test_fields(old: Stated, fields: dict[str, Any], digit: Digit, what: str) -> None:
    found = needed(old, with_fields(old, **fields))
    assert found[0] == digit
    assert what in found[1]


@pytest.mark.parametrize(
    ("name", "digit"),
    [
        ("weights.safetensors", Digit.MINOR),
        ("reference.safetensors", Digit.MINOR),
        ("MODEL_CARD.md", Digit.PATCH),
    ],
)
def test_files(old: Stated, name: str, digit: Digit) -> None:
    assert needed(old, with_file(old, name))[0] == digit


def test_another_encoder_is_other_weights(old: Stated) -> None:
    encoder = old[0].encoder.model_copy(update={"weights_sha256": "0" * 64})
    assert needed(old, with_fields(old, encoder=encoder)) == (Digit.MINOR, "weights of the encoder")


def test_the_gravest_comes_first(old: Stated) -> None:
    new = with_file(with_fields(old, threshold=0.9, positive="AML"), "MODEL_CARD.md")
    assert [x.digit for x in changes(old, new)] == [Digit.MAJOR, Digit.MINOR, Digit.PATCH]


def test_every_field_of_a_manifest_is_judged_or_named_here() -> None:
    """A new field must get a digit."""
    judged = {"labels", "positive", "encoder", "files", "threshold", "temperature", "qc",
              "provenance", "name", "requires_millie"}  # fmt: skip
    told_by_others = {"size_px", "size_um"}  # config.toml has them, and a bundle compares both
    told_by_others |= {"networks"}  # of another number are other weights
    none = {"schema_version", "version", "created", "golden_tolerance"}
    assert set(Manifest.model_fields) == judged | told_by_others | none


def test_shipped_models_are_made_for_this_millie() -> None:
    for name in shipped_bundles():
        manifest, config = read_settings(locate(name))
        assert isinstance(config, Config)
        assert manifest.version == "1.0.0"
        assert manifest.requires_millie == ">=0.1,<0.3"

"""The manifest of a bundle: ``bundle.json``, its fields, and how it protects itself.

The file must be, to the byte, the canonical text of its content, and its ``digest`` must be the
SHA-256 of that content without the field: a flipped bit anywhere is refused. This finds damage; it
does not prove who made a bundle: for that, compare ``Bundle.sha256`` with a published one. This
module reads no weights.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from millie.errors import BundleError
from millie.models.versions import PATTERN, check_requirement, parsed

SCHEMA = 2
"""Version of the layout of bundles."""

MANIFEST = "bundle.json"
WEIGHTS = "weights.safetensors"
CONFIG = "config.toml"
GOLDEN = "golden.safetensors"
CARD = "MODEL_CARD.md"
REFERENCE = "reference.safetensors"
MAX_BYTES = {WEIGHTS: 4 * 10**9, CONFIG: 10**6, GOLDEN: 10**8, CARD: 10**6, REFERENCE: 10**8}
"""The files of a bundle, and how large each may be."""
OPTIONAL_FILES = frozenset({REFERENCE})
REQUIRED_FILES = frozenset(MAX_BYTES) - OPTIONAL_FILES

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What the name of a model may be."""

_SHA256 = r"^[0-9a-f]{64}$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class FileRecord(_Part):
    """A file of the bundle: its size in bytes and its SHA-256."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


class EncoderRecord(_Part):
    """The encoder: name, features D, digest of the pretrained weights, and whether ours differ.

    ``trained``: the bundle holds the encoder's weights, one set a network; otherwise the encoder
    is built by name and must have this digest.
    """

    name: str
    dim: int = Field(ge=1, le=65_536)
    weights_sha256: str = Field(pattern=_SHA256)
    trained: bool


class Manifest(_Part):
    """All that a bundle states about itself, apart from weights and configuration.

    Attributes:
        schema_version: of the layout; written as ``schema``.
        name: of the model, as people type it.
        version: of this model, MAJOR.MINOR.PATCH, see :mod:`millie.models.versions`.
        requires_millie: versions of millie that may use it, a PEP 440 specifier.
        created: ISO 8601 date and time, UTC.
        labels: classes in the order of the logits.
        positive: the class that threshold and gates are about.
        threshold: calibrated probability of ``positive`` from which it is called, 0 to 1.
        temperature: divides the log-probabilities of the ensemble's mean; 1: not calibrated.
        size_px: side of the crops it was trained on.
        size_um: the same in um; 0: native pixels.
        encoder: see :class:`EncoderRecord`.
        networks: size of the ensemble.
        qc: limits of the gates by name (``min_cells``, ``blur``, ...).
        provenance: how it was trained: cohort, splits, command, versions, figures.
        golden_tolerance: largest difference of a probability in :meth:`Bundle.check`.
        files: record of each file but the manifest.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, populate_by_name=True
    )

    schema_version: int = Field(SCHEMA, alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=PATTERN)
    requires_millie: str = Field(max_length=100)
    created: str
    labels: list[str] = Field(min_length=2)
    positive: str
    threshold: float = Field(ge=0, le=1)
    temperature: float = Field(gt=0)
    size_px: int = Field(ge=1)
    size_um: float = Field(ge=0)
    encoder: EncoderRecord
    networks: int = Field(ge=1, le=100)
    qc: dict[str, float]
    provenance: dict[str, Any]
    golden_tolerance: float = Field(gt=0, lt=1)
    files: dict[str, FileRecord]

    @field_validator("requires_millie")
    @classmethod
    def _range(cls, value: str) -> str:
        parsed(value)
        return value

    @field_validator("provenance")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected plain finite JSON values ({error})") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.schema_version != SCHEMA:
            raise ValueError(f"schema {self.schema_version}, this version of millie reads {SCHEMA}")
        if len(set(self.labels)) != len(self.labels) or self.positive not in self.labels:
            raise ValueError(f"labels {self.labels} with positive '{self.positive}'")
        names = set(self.files)
        if not REQUIRED_FILES <= names <= REQUIRED_FILES | OPTIONAL_FILES:
            raise ValueError(
                f"files {sorted(names)}; needed {sorted(REQUIRED_FILES)}, "
                f"allowed besides {sorted(OPTIONAL_FILES)}"
            )
        for name, record in self.files.items():
            if record.size_bytes > MAX_BYTES[name]:
                raise ValueError(f"{name} is larger than {MAX_BYTES[name]:,} bytes")
        return self


def to_bytes(manifest: Manifest) -> bytes:
    """The canonical text of ``bundle.json`` with its digest."""
    content = manifest.model_dump(mode="json", by_alias=True)
    return _canonical({**content, "digest": _digest(content)})


def from_bytes(data: bytes, origin: str) -> Manifest:
    """Read and verify a manifest.

    Args:
        data: the file's bytes.
        origin: named in errors.

    Raises:
        BundleError: not JSON, not canonical, another digest or schema, made for other versions of
            millie, or a field does not fit.
    """
    try:
        content = json.loads(data)
        canonical = _canonical(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{origin} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or canonical != data:
        raise BundleError(f"{origin} was altered: it is not as millie writes it{_REMEDY}")
    if content.pop("digest", None) != _digest(content):
        raise BundleError(f"{origin} was altered: its content does not match its digest{_REMEDY}")
    check_requirement(content.get("requires_millie"), origin)
    if content.get("schema") != SCHEMA:
        raise BundleError(
            f"{origin}: schema {content.get('schema')!r}, this version of millie reads {SCHEMA}; "
            "use the version of millie that wrote the bundle, or train again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{origin}: {place}: {first['msg']}{_REMEDY}") from error


_REMEDY = "; fetch or train the bundle again"


def _canonical(content: Any) -> bytes:
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)
    return f"{text}\n".encode()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()

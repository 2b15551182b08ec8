"""A new version of a model with the same weights: other text, or another range of millie.

Owns which fields may be restated without training; all others would change calls. The rest of the
bundle is copied to the byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from millie.errors import ConfigError, MissingFileError
from millie.models import manifest as layout
from millie.models.bundle import Bundle, load_bundle
from millie.models.bundle_folder import check_target, file_record, locate, read_folder, write_folder
from millie.models.versions import Digit, is_enough, next_version

if TYPE_CHECKING:
    from pathlib import Path


def restate_bundle(
    name_or_path: str | Path,
    out: Path,
    version: str,
    *,
    card: Path | None = None,
    requires_millie: str | None = None,
) -> Bundle:
    """Write a model anew under a higher version, with another card or range.

    Args:
        name_or_path: the model.
        out: folder of the new one; must not exist.
        version: MAJOR.MINOR.PATCH, above the model's.
        card: Markdown file with the model card; None: as it was.
        requires_millie: PEP 440 specifier; None: as it was. It must allow this millie.

    Raises:
        ConfigError: ``out`` exists, the version is none or not higher, or the range is none.
        BundleError: the model is damaged or may not be used by this millie, before or after.
        MissingFileError: there is no such model, or the card cannot be read as UTF-8 text.
    """
    check_target(out, replace=False)
    manifest, _, contents = read_folder(locate(name_or_path))
    if card is not None:
        contents[layout.CARD] = _text(card).encode()
    changed = {
        "version": version,
        "requires_millie": manifest.requires_millie if requires_millie is None else requires_millie,
        "files": {name: file_record(data).model_dump() for name, data in contents.items()},
    }
    try:
        new = layout.Manifest.model_validate(
            {**manifest.model_dump(mode="json", by_alias=True), **changed}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error
    if not is_enough(manifest.version, version, Digit.PATCH):
        raise ConfigError(
            f"version {version} is not above {manifest.version} of {manifest.name}: "
            f"give at least {next_version(manifest.version, Digit.PATCH)}"
        )
    data = layout.to_bytes(new)
    layout.from_bytes(data, f"the new {layout.MANIFEST}")
    write_folder(out, {**contents, layout.MANIFEST: data})
    return load_bundle(out)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFileError(f"card {path} cannot be read as UTF-8 text ({error})") from error

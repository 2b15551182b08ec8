"""Options that several commands share: their help texts, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millie.config import Config

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file (TOML, one table per stage).", show_default=False),
]
Profile = Annotated[
    str, typer.Option("--profile", help="Named settings; `millie models` lists them.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One setting, as stage.field=value. Repeatable.", show_default=False
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, help="Worker processes (default: one per core)."),
]

Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Folder that holds all images of a manifest (default: the manifest's own folder).",
        show_default=False,
    ),
]
Pseudonyms = Annotated[
    Path | None,
    typer.Option(
        "--pseudonyms",
        help="Table (CSV) that links random pseudonyms to names, kept outside the results, which "
        "then name no patient, file or folder. Give it again for the same pseudonyms.",
        show_default=False,
    ),
]
Shard = Annotated[
    str,
    typer.Option("--shard", help="Part i/n of the patients, i counted from 0, for job arrays."),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="Where work runs: serial, process, dask or ray.")
]
EngineAddress = Annotated[
    str | None,
    typer.Option("--engine-address", help="Cluster for dask or ray (default: this machine)."),
]
Lenient = Annotated[
    bool,
    typer.Option(
        "--lenient",
        help="Exit code 0 although single files could not be used; still 1 where a patient is "
        "left without a result.",
    ),
]
Verbose = Annotated[bool, typer.Option("--all-problems", help="List every problem and note.")]


def chosen_config(file: Path | None, profile: str, words: Sequence[str] | None) -> Config:
    """The settings that ``--config``, ``--profile`` and ``--set`` ask for.

    Raises:
        MissingFileError: the file does not exist.
        ConfigError: an unknown profile or key, or a value that does not fit.
    """
    from millie.config import load

    return load(file, profile).with_settings(list(words or []))


def shard_of(text: str) -> tuple[int, int]:
    """Index and count of ``i/n``.

    Raises:
        BadParameter: it is not of that form.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()):
        raise typer.BadParameter(f"--shard {text}: expected i/n, for example 0/4")
    return int(index), int(count)


def table_path(out: Path | None, overlay: Path | None) -> Path:
    """Where ``detect`` writes its table: as named, else beside the pictures.

    Raises:
        ConfigError: neither is named.
    """
    from millie.errors import ConfigError

    if out:
        return out
    if overlay:
        return overlay / "cells.csv"
    raise ConfigError(
        "no output given; use --out cells.csv for a table, or --overlay DIR for outlined images"
    )

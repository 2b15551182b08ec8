"""Options that several commands share, with the words that explain them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file; tables are stages.", show_default=False)
]
Profile = Annotated[
    str, typer.Option("--profile", help="Named settings: default, paper, released-code.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One setting: stage.field=value. May be repeated.", show_default=False
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, help="Processes; default: one a core."),
]

EngineName = Annotated[
    str, typer.Option("--engine", help="Who works: serial, process, dask or ray.")
]
EngineAddress = Annotated[
    str | None,
    typer.Option("--engine-address", help="Cluster (dask, ray); default: this machine."),
]
Verbose = Annotated[bool, typer.Option("--all-problems", help="List every problem, not 20.")]

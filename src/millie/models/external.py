"""Encoders that run elsewhere: a model of their vectors knows them by name and width alone.

In ``model.encoder`` such a model states ``external:NAME``. Owns that word and what it means for
who asks for the encoder itself; the vectors come from :mod:`millie.bags.vectors`.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

from millie.errors import ConfigError

_PREFIX = "external:"


def external(name: str) -> str:
    """What ``model.encoder`` states for vectors of an encoder of this name."""
    return _PREFIX + name


def vectors_of(encoder: str) -> str:
    """Name of the encoder elsewhere that ``model.encoder`` states; empty: it is one of ours."""
    return encoder.removeprefix(_PREFIX) if encoder.startswith(_PREFIX) else ""


def name_digest(name: str) -> str:
    """SHA-256 (hex) that stands where that of the weights would: they are not known here."""
    return hashlib.sha256(name.encode()).hexdigest()


def cannot_run(name: str) -> NoReturn:
    """Refuse to compute vectors of an encoder that is not here.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"this model takes vectors of '{name}', which millie cannot compute from images: compute "
        "them with the program that made those it was trained on, then `millie import-features "
        f"COHORT.csv --encoder {name} --out STORE` and `millie predict MODEL STORE`"
    )

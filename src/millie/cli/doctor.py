"""What this installation has: models, encoders, aggregators, profiles; and whether it can run.

Serves ``millie models`` and ``millie doctor``. Nothing here changes anything on the machine.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from millie import __version__
from millie.config import Config, profiles
from millie.engines.seam import available_cores
from millie.errors import MillieError

if TYPE_CHECKING:
    from millie.models.encoders import EncoderSpec

Table = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]

_PROFILES = {
    "default": "as in apl-blood: isolated cells, immature ones against the patient's own mature",
    "acute-leukaemia": "classes from several laboratories: cautious limits, bags of all sizes",
    "whole-crop": "whole crops, ImageNet encoder, maximum fusion: the earlier default",
    "paper": "the published method as the paper states it",
    "released-code": "the published method as its code has it",
}

_MIN_FREE_GB = 2.0
_MIN_MEMORY_GB = 3.5


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``millie doctor``.

    Attributes:
        name: what was checked.
        state: ok, warn (works, with a reservation) or fail (cannot work).
        text: what was found, and what to do about it.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str


def installed() -> Iterator[Table]:
    """Tables of shipped bundles, encoders, aggregators and profiles, as (title, columns, rows)."""
    from millie.models.aggregators import AGGREGATORS
    from millie.models.bundle import load_bundle, shipped_bundles
    from millie.models.encoders import ENCODERS

    bundles = [load_bundle(name) for name in shipped_bundles()]
    rows = [
        (b.manifest.name, b.manifest.version, b.manifest.requires_millie, ", ".join(b.labels),
         b.config.model.encoder)
        for b in bundles
    ]  # fmt: skip
    yield "Models", ("name", "version", "needs millie", "labels", "encoder"), rows
    encoders = [
        (e.name, str(e.dim), str(e.input_px), e.source or _unpublished(e))
        for e in ENCODERS.values()
    ]
    yield "Encoders (model.encoder)", ("name", "features", "input px", "weights"), encoders
    fusions = [(a.name, a.description, a.source) for a in AGGREGATORS.values()]
    yield "Aggregators (model.aggregator)", ("name", "what it does", "source"), fusions
    named = [(name, _PROFILES.get(name, "")) for name in profiles()]
    yield "Profiles (--profile)", ("name", "settings"), named


def checks() -> list[Check]:
    """Run every check; none raises."""
    return [
        Check("millie", "ok", f"{__version__} on Python {platform.python_version()}"),
        _python(),
        _cores(),
        _memory(),
        _disk(),
        *(_package(name) for name in ("torch", "openvino", "opencv-python-headless", "h5py")),
        _torchvision(),
        _attempt("default encoder", _load_default_encoder),
        *_bundles(),
    ]


def _unpublished(encoder: EncoderSpec) -> str:
    return "needs none" if encoder.weightless else "none: train from scratch"


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    return Check("python", "ok" if good else "fail", f"{sys.executable}; 3.11 or newer required")


def _cores() -> Check:
    return Check("cores", "ok", f"{available_cores()} of {os.cpu_count()} available")


def _memory() -> Check:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Check("memory", "warn", "unknown on this system")
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return Check("memory", "ok" if size >= _MIN_MEMORY_GB else "warn", f"{size:.1f} GB")


def _disk() -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 1e9
    state: Literal["ok", "warn"] = "ok" if free >= _MIN_FREE_GB else "warn"
    return Check("disk", state, f"{free:.1f} GB free in {folder} (temporary files)")


def _package(name: str) -> Check:
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name, "fail", f"not installed; run: pip install {name}")


def _torchvision() -> Check:
    if importlib.util.find_spec("torchvision") is None:
        return Check("torchvision", "ok", "not installed (not needed)")
    return Check(
        "torchvision", "warn",
        "installed, but not needed; if torch fails to import, run: pip uninstall torchvision",
    )  # fmt: skip


def _load_default_encoder() -> str:
    from millie.models.encoders import build_encoder

    config = Config().model
    build_encoder(config)
    return f"{config.encoder}: weights loaded"


def _bundles() -> Iterable[Check]:
    from millie.models.bundle import shipped_bundles

    return [_attempt(f"model {name}", _BundleCheck(name)) for name in shipped_bundles()]


@dataclass(frozen=True, slots=True)
class _BundleCheck:
    name: str

    def __call__(self) -> str:
        from millie.models.bundle import load_bundle

        bundle = load_bundle(self.name)
        return f"checksums and golden sample verified, SHA-256 {bundle.sha256[:12]}"


def _attempt(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", action())
    except (MillieError, ImportError, OSError) as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}")

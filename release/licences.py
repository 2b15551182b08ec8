"""The licences of everything that an installation of millie brings, and whether it may bring them.

`python release/licences.py` prints a table of the base install and fails where a package is under
GPL, LGPL, AGPL or terms that are not for commercial use, or where nothing says its licence. It
reads what is installed: the metadata of each package that `millie` needs, and the shared libraries
that wheels carry in folders of their own, of which metadata say nothing; exceptions are among those
alone. Extras are not judged: `slides` brings OpenSlide and `review` psycopg, both under the LGPL.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FORBIDDEN = re.compile(
    r"\b[al]?gpl|general public|affero|non-?commercial|\bcc-by-nc|\bsspl|\bbusl|proprietary"
)
PERMISSIVE = re.compile(
    r"apache|\bbsd|\b0bsd|\bmit\b|\bisc\b|python software foundation|\bpsf|\bpython-2|\bzlib|\bhpnd"
    r"|\bbsl-1|\bmpl|mozilla|\bcc0|unlicense"
)
"""Both of terms in lower case."""

STATED = {
    "cycler": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-based",
}
"""Licence by the text that these packages have in place of a name."""

LIBRARIES = {
    "libgfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libquadmath": "LGPL-2.1-or-later",
    "libavcodec": "LGPL-2.1-or-later",
    "libavformat": "LGPL-2.1-or-later",
    "libavutil": "LGPL-2.1-or-later",
    "libswresample": "LGPL-2.1-or-later",
    "libswscale": "LGPL-2.1-or-later",
}
"""Copyleft libraries in the base's wheels: GCC's run time, whose exception frees what is linked to
it, and FFmpeg of OpenCV. Each is a shared file that can be exchanged, as the LGPL asks."""

FREE_LIBRARIES = frozenset({
    "aec", "aom", "avif", "brotlicommon", "brotlidec", "crypto", "drm", "freetype", "harfbuzz",
    "hdf5", "hdf5_hl", "jpeg", "lcms2", "lzma", "openblasp", "openjp2", "png16", "scipy_openblas",
    "scipy_openblas64_", "sharpyuv", "ssl", "sz", "tiff", "vpx", "webp", "webpdemux", "webpmux",
    "Xau", "xcb", "zstd",
})  # fmt: skip
"""Permissive libraries in the base's wheels, without `lib`; any other has to be looked up."""


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    Attributes:
        name: normalised.
        version: installed.
        licence: SPDX expression, else what its metadata say; empty: nothing.
        libraries: copyleft libraries in it, with their licences.
        unknown: libraries in it whose licence is not known here.
    """

    name: str
    version: str
    licence: str
    libraries: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()


def packages(root: str = "millie") -> list[Package]:
    """What `millie` without extras needs on this machine, itself left out, by name.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(root, "")]
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in done:
            continue
        done.add((canonicalize_name(name), extra))
        found[canonicalize_name(name)] = own = metadata.distribution(name)
        waiting += _needs(own, extra)
    del found[canonicalize_name(root)]
    return [_package(name, own) for name, own in sorted(found.items())]


def problems(found: Iterable[Package]) -> Iterator[str]:
    """Each package that may not be brought, and why."""
    for package in found:
        title = f"{package.name} {package.version}"
        if not is_allowed(package.licence):
            yield f"{title}: licence '{package.licence or 'not stated'}'"
        if package.unknown:
            yield f"{title}: libraries of unknown licence: {', '.join(package.unknown)}"


def is_allowed(licence: str) -> bool:
    """Whether every part (AND) of an expression offers terms (OR) that are permissive."""
    parts = (part.split(" or ") for part in licence.lower().split(" and "))
    return all(any(_is_free(terms) for terms in part) for part in parts)


def _is_free(terms: str) -> bool:
    return bool(PERMISSIVE.search(terms)) and not FORBIDDEN.search(terms)


def _needs(own: metadata.Distribution, extra: str) -> Iterator[tuple[str, str]]:
    for text in own.requires or ():
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            yield from ((need.name, wanted) for wanted in ("", *need.extras))


def _package(name: str, own: metadata.Distribution) -> Package:
    about = own.metadata
    stated = about.get("License-Expression") or STATED.get(name) or _of_classifiers(about)
    files = [path for path in own.files or () if ".so" in path.name]
    names = {re.split(r"[-.]", path.name)[0] for path in files}
    apart = {re.split(r"[-.]", path.name)[0] for path in files if path.parts[0].endswith(".libs")}
    unknown = apart - LIBRARIES.keys() - {f"lib{free}" for free in FREE_LIBRARIES}
    carried = tuple((lib, LIBRARIES[lib]) for lib in sorted(names & LIBRARIES.keys()))
    return Package(name, own.version, stated, carried, tuple(sorted(unknown)))


def _of_classifiers(about: metadata.PackageMetadata) -> str:
    """Classifiers, or the field License where that is a name and not a text."""
    named = [
        one.rpartition("::")[2].strip()
        for one in about.get_all("Classifier") or ()
        if one.startswith("License ::")
    ]
    text = (about.get("License") or "").strip()
    return " AND ".join(named) or (text if "\n" not in text else "")


def main() -> int:
    found = packages()
    for package in found:
        print(f"{package.name:28} {package.version:14} {package.licence}")
        for library, licence in package.libraries:
            print(f"  {library:40}  {licence}")
    wrong = list(problems(found))
    for line in wrong:
        print(f"NOT ALLOWED  {line}", file=sys.stderr)
    print(f"{len(found)} packages, {len(wrong)} not allowed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

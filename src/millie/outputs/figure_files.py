"""The bytes of a figure: SVG for a page, SVG and PDF for a manuscript.

Owns file formats and nothing of what is drawn. The same figure gives the same bytes: no dates,
fixed identifiers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from millie.files import write_bytes
from millie.outputs.gallery import data_uri

_STYLE: dict[Any, Any] = {"svg.hashsalt": "millie", "svg.fonttype": "none", "pdf.fonttype": 42}
_DPI = 200


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, texts as text."""
    return _saved(figure, "svg", {"Date": None})


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as PDF with embedded TrueType fonts, as journals ask for."""
    return _saved(figure, "pdf", {"CreationDate": None})


def svg_uri(figure: Figure) -> str:
    """The figure as a data URI for a page."""
    return data_uri(svg_bytes(figure), "image/svg+xml")


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Write each figure as ``<name>.svg`` and ``<name>.pdf``.

    A PDF takes a second for its fonts: where the SVG on disk is already the same, both are kept.

    Returns:
        The SVGs as data URIs, by name.
    """
    uris = {}
    for name, figure in figures.items():
        vector, pdf = folder / f"{name}.svg", folder / f"{name}.pdf"
        content = svg_bytes(figure)
        if not (pdf.is_file() and vector.is_file() and vector.read_bytes() == content):
            write_bytes(pdf, pdf_bytes(figure))
            write_bytes(vector, content)
        uris[name] = data_uri(content, "image/svg+xml")
    return uris


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(stream, format=kind, metadata=metadata, dpi=_DPI)
    return stream.getvalue()

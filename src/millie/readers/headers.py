"""Headers of tables as people write them, and what they probably mean by them.

Owns the words that other programs and other languages use for our columns. Nothing is renamed in
silence: a header is suggested, and the person decides.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALSO_CALLED: Mapping[str, str] = {
    "patient": (
        "patientid patientno patientnumber patientname patientennummer patients pat patid pid "
        "pseudonym case caseid caseno subject subjectid donor donorid sample sampleid mrn fall "
        "fallid fallnummer probe probenid id"
    ),
    "label": (
        "diagnosis diagnoses diagnose diagnostic dx class classname classlabel target category "
        "disease subtype labels groundtruth truth diagnosen befund"
    ),
    "path": (
        "filepath imagepath imgpath filename file files fname imagefile imagename image images img "
        "picture photo folder directory dir location paths datei dateiname bild pfad"
    ),
    "um_px": "mpp umperpx umperpixel micronsperpixel pixelsize pixelsizeum scale resolution",
    "site": "hospital center centre clinic institution laboratory lab klinik",
    "stain": "staining stained dye",
    "scanner": "microscope camera device instrument",
    "split": "set subset partition fold part",
    "age": "ageyears ageatdiagnosis alter years",
    "sex": "gender geschlecht",
    "cell_label": "celltype celllabel cellclass",
    "kind": "imagekind imagetype type",
    "image": (
        "filepath imagepath filename file fname imagefile imagename images img picture photo path"
    ),
    "diagnosis": "diagnoses diagnose dx label labels class target disease",
}
"""By column of ours: other words for it, the likelier first; lower case, letters and digits."""

_NOT_LETTERS = re.compile(r"[\W_]+")


def meant(column: str, found: Sequence[str]) -> str | None:
    """The header of a table that probably means a column of ours; None: none does."""
    return _as_a_whole(column, found) or _by_a_part(column, found)


def column_meant(header: str, columns: Sequence[str]) -> str | None:
    """The column of ours that a header probably means; None: none."""
    whole = (column for column in columns if _as_a_whole(column, [header]))
    part = (column for column in columns if _by_a_part(column, [header]))
    return next(whole, None) or next(part, None)


def _as_a_whole(column: str, found: Sequence[str]) -> str | None:
    plain = {_NOT_LETTERS.sub("", header.lower()): header for header in found if header}
    own = _NOT_LETTERS.sub("", column)
    words = (own, *ALSO_CALLED.get(column, "").split())
    named = next((plain[word] for word in words if word in plain), None)
    near = difflib.get_close_matches(own, plain, n=1, cutoff=0.75)
    return named or (plain[near[0]] if near else None)


def _by_a_part(column: str, found: Sequence[str]) -> str | None:
    """``dx_final`` for a diagnosis, ``image_filename`` for a path."""
    parts = {part: header for header in reversed(found) for part in _NOT_LETTERS.split(header)}
    words = (column, *ALSO_CALLED.get(column, "").split())
    return next((parts[word] for word in words if word in parts), None)


def missing_text(required: Sequence[str], found: Sequence[str], ours: Sequence[str]) -> str | None:
    """What to say of required columns that a table lacks; None where it has them all.

    Args:
        required: columns that must be there.
        found: headers of the table.
        ours: all columns that the table may have: none of them means another.
    """
    missing = [column for column in required if column not in found]
    if not missing:
        return None
    free = [header for header in found if header not in ours]
    told, unclear = [], []
    for column in missing:
        header = meant(column, free)
        if header is None:
            unclear.append(column)
            continue
        free.remove(header)
        told.append(f"column '{column}' missing; did you mean '{header}'? Rename it to '{column}'")
    if unclear:
        have = ", ".join(found)[:200] or "none"
        told.append(f"column {', '.join(unclear)} missing; found {have}. Add it")
    return ". ".join(told)

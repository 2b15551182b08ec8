"""Adapters of sets of single cells sorted by type: PBC, AML-Cytomorphology_LMU, bone marrow.

None of the three says which patient a cell comes from. Owns what they share:

- The class folders, and where a set has them the finer types in the file names, become
  ``cell_label``, for evaluation only. Each type has one name across the sets (those of
  apl_aml.py), so that a model trained on one can score the cells of another.
- The cells are dealt into pools by the digest of their name, which is independent of type: one bag
  per class folder would give the type away through whatever is measured per bag (stain, scale). A
  pool is not a patient. Where all donors were healthy it is labelled ``normal``, otherwise not at
  all, so it cannot be trained on by mistake.
- Identical files are one cell, counted once; if they are in two class folders, without cell label.
- Red cells around a cell give its scale: whole ones with a fitted outline (diameter 7.2 um) give
  0.105 to 0.109 um/px on PBC and 0.096 on the bone-marrow set, from few circles each; both are
  taken as 0.1. The scale of the LMU set is the paper's (14.14 px/um).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from millie.errors import ManifestError
from millie.files import is_visible
from millie.readers.content import note, problem, unlisted, without_copies
from millie.readers.images import find_images
from millie.readers.published import Dataset, Layout, count_notes
from millie.types import Cohort, ImageKind, ImageSource, Patient, PixelSize, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

POOL_CELLS = 500
"""Cells a pool, on average: a bag that is quick to cut and to store."""

RATINGS = "annotations.dat"
"""Of the LMU set: file, type and up to two later ratings, separated by blanks, no first line."""


@dataclass(frozen=True, slots=True)
class _Classes:
    """What one set's folders mean.

    Attributes:
        layout: its tree; the anchors are the class folders.
        types: cell type of each class folder.
        published: images of each class folder.
        um_px: scale of all images.
        label: diagnosis of all donors, or None where they differ.
        site: where the films come from.
        finer: cell type by the part of a file's name before the first ``_``, by folder.
        ratings: True if the set has a file of experts' ratings beside the folders.
    """

    layout: Layout
    types: Mapping[str, str]
    published: Mapping[str, int]
    um_px: float
    label: str | None
    site: str
    finer: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ratings: bool = False


def prepare(root: Path, classes: _Classes) -> Cohort:
    """Read class folders into pools of cells; nothing is decoded.

    Raises:
        ManifestError: the folder is not this set, or holds no image.
    """
    root = classes.layout.check(root)
    images: list[ImageSource] = []
    counts: Counter[str] = Counter()
    for name in classes.types:
        if (root / name).is_dir():
            found = [_cell(path, root, name, classes) for path in find_images(root / name)]
            counts[name] = len(found)
            images += found
    if not images:
        raise ManifestError(f"{root}: no images in any class folder\n{classes.layout.trees(root)}")
    single, copies = without_copies("", images)
    problems = [
        *_strangers(root, classes),
        *copies,
        *(_rating_notes(root, classes) if classes.ratings else ()),
        *count_notes(counts, classes.published, "images"),
    ]
    pools = _pools(single, classes)
    text = f"patients unknown: cells split at random into {len(pools)} pools of about {POOL_CELLS}"
    problems.append(note("", "", f"{text}; a pool is not a patient"))
    return Cohort(classes.layout.name, pools, tuple(problems))


def _cell(path: Path, root: Path, folder: str, classes: _Classes) -> ImageSource:
    prefix = path.stem.partition("_")[0].upper()
    finer = classes.finer.get(folder, {})
    return ImageSource(
        path=path,
        name=path.relative_to(root).as_posix(),
        kind=ImageKind.CELL,
        pixel_size=PixelSize(classes.um_px),
        cell_label=finer.get(prefix, classes.types[folder]),
    )


def _pools(images: Sequence[ImageSource], classes: _Classes) -> tuple[Patient, ...]:
    """Deal images by the digest of their names, in its order."""
    number = max(1, round(len(images) / POOL_CELLS))
    dealt: dict[int, list[tuple[str, ImageSource]]] = defaultdict(list)
    for image in images:
        digest = hashlib.sha256(image.name.encode("utf-8", "surrogateescape")).hexdigest()
        dealt[int(digest[:12], 16) % number].append((digest, image))
    return tuple(
        Patient(
            id=f"{classes.layout.name}-pool-{pool:03d}",
            label=classes.label,
            images=tuple(image for _, image in sorted(own, key=lambda pair: pair[0])),
            site=classes.site,
        )
        for pool, own in sorted(dealt.items())
    )


def _strangers(root: Path, classes: _Classes) -> Iterator[Problem]:
    """Folders that are no published class."""
    for folder in sorted(root.iterdir()):
        known = folder.name in classes.types or not is_visible(folder.name)
        if folder.is_dir() and not known:
            yield unlisted("", folder.name, f"{folder.name} is not a published class: left out")


def _rating_notes(root: Path, classes: _Classes) -> Iterator[Problem]:
    """Compare folders with the file of ratings, which lies beside or above them."""
    path = next((p / RATINGS for p in (root, root.parent) if (p / RATINGS).is_file()), None)
    if path is None:
        text = f"{RATINGS} is missing: cell types come from the class folders alone"
        yield note("", "", f"{text}, and agreement between experts is unknown")
        return
    rated = wrong = contested = 0
    for line in path.read_text("utf-8", errors="replace").splitlines():
        values = line.split()
        if len(values) < 2 or values[1] not in classes.types:
            continue
        folder = values[0].replace("\\", "/").partition("/")[0]
        wrong += folder in classes.types and folder != values[1]
        later = [value for value in values[2:4] if value in classes.types]
        rated += bool(later)
        contested += any(value != values[1] for value in later)
    if wrong:
        error = ManifestError(f"{wrong} cells are in a folder that contradicts {RATINGS}")
        yield problem("", RATINGS, error)
    yield note("", "", f"{rated} cells were rated again, {contested} of them differently")


def _tree(before: str, folders: str, file: str) -> str:
    return f"ROOT/\n{before}└── {folders}/{file}"


_MUNICH = {
    "BAS": "basophil",
    "EBO": "erythroblast",
    "EOS": "eosinophil",
    "KSC": "smudge cell",
    "LYT": "lymphocyte",
    "MMZ": "metamyelocyte",
    "MON": "monocyte",
    "MYB": "myelocyte",
    "NGB": "band neutrophil",
    "NGS": "segmented neutrophil",
    "PMO": "promyelocyte",
}
"""Class folders that both Munich sets have."""

_PBC_IMAGES = {
    "basophil": 1218, "eosinophil": 3117, "erythroblast": 1551, "ig": 2895, "lymphocyte": 1214,
    "monocyte": 1420, "neutrophil": 3329, "platelet": 2348,
}  # fmt: skip
_LMU_IMAGES = {
    "BAS": 79, "EBO": 78, "EOS": 424, "KSC": 15, "LYA": 11, "LYT": 3937, "MMZ": 15, "MOB": 26,
    "MON": 1789, "MYB": 42, "MYO": 3268, "NGB": 109, "NGS": 8484, "PMB": 18, "PMO": 70,
}  # fmt: skip
_MARROW_IMAGES = {
    "ABE": 8, "ART": 19630, "BAS": 441, "BLA": 11973, "EBO": 27395, "EOS": 5883, "FGC": 47,
    "HAC": 409, "KSC": 42, "LYI": 65, "LYT": 26242, "MMZ": 3055, "MON": 4040, "MYB": 6557,
    "NGB": 9968, "NGS": 29424, "NIF": 3538, "OTH": 294, "PEB": 2740, "PLM": 7629, "PMO": 11994,
}  # fmt: skip

_LMU_ONLY = tuple(f"{name}/" for name in _LMU_IMAGES if name not in _MARROW_IMAGES)
_MARROW_ONLY = tuple(f"{name}/" for name in _MARROW_IMAGES if name not in _LMU_IMAGES)

_PBC = _Classes(
    layout=Layout(
        name="pbc",
        anchors=tuple(f"{name}/" for name in _PBC_IMAGES),
        any_anchor=True,
        tree=_tree(
            "├── basophil/BA_100102.jpg ...\n├── ig/{MY,MMY,PMY,IG}_102433.jpg ...\n"
            "├── neutrophil/{BNE,SNE,NEUTROPHIL}_101082.jpg ...\n",
            "{eosinophil,erythroblast,lymphocyte,monocyte,platelet}",
            "*.jpg",
        ),
    ),
    types={name: name for name in _PBC_IMAGES} | {"ig": "immature granulocyte"},
    published=_PBC_IMAGES,
    um_px=0.1,
    label="normal",
    site="Hospital Clinic of Barcelona",
    finer={
        "ig": {"PMY": "promyelocyte", "MY": "myelocyte", "MMY": "metamyelocyte"},
        "neutrophil": {"BNE": "band neutrophil", "SNE": "segmented neutrophil"},
    },
)

_LMU = _Classes(
    layout=Layout(
        name="aml_lmu",
        anchors=tuple(f"{name}/" for name in _LMU_IMAGES),
        any_anchor=True,
        foreign=_MARROW_ONLY,
        tree=_tree("", "{" + ",".join(_LMU_IMAGES) + "}", "MYO_0001.tiff ...")
        + f"\n{RATINGS} beside ROOT or in it  (file, type, second and third rating)",
    ),
    types=_MUNICH
    | {"LYA": "variant lymphocyte", "MOB": "monoblast", "MYO": "blast", "PMB": "promyelocyte"},
    published=_LMU_IMAGES,
    um_px=0.0707,
    label=None,
    site="LMU Munich",
    ratings=True,
)

_MARROW = _Classes(
    layout=Layout(
        name="bone_marrow_mll",
        anchors=tuple(f"{name}/" for name in _MARROW_IMAGES),
        any_anchor=True,
        foreign=_LMU_ONLY,
        tree=_tree(
            "├── BLA/0001-1000/BLA_00001.jpg ...   (large classes in folders of 1,000)\n",
            "{" + ",".join(_MARROW_IMAGES) + "}",
            "*.jpg",
        ),
    ),
    types=_MUNICH
    | {
        "ABE": "abnormal eosinophil",
        "ART": "artefact",
        "BLA": "blast",
        "FGC": "faggot cell",
        "HAC": "hairy cell",
        "LYI": "immature lymphocyte",
        "NIF": "unidentified",
        "OTH": "other",
        "PEB": "proerythroblast",
        "PLM": "plasma cell",
    },
    published=_MARROW_IMAGES,
    um_px=0.1,
    label=None,
    site="Munich Leukemia Laboratory",
)

_POOLED = (
    "Not published: cells are split at random into pools of about 500. A pool is not a patient; do "
    "not compute intervals over pools."
)

PBC = Dataset(
    name="pbc",
    summary="normal blood cells by type, 17,092 single cells",
    description=(
        "CellaVision DM96 crops of single cells from healthy people, 360 x 363 px, in 8 class "
        "folders (Acevedo et al., Data in Brief 2020); about 0.1 um/px. The file names give finer "
        "types: PMY promyelocyte, MY myelocyte, MMY metamyelocyte, BNE band, SNE segmented."
    ),
    source="Mendeley Data, doi 10.17632/snkd93bnjr.1 (PBC_dataset_normal_DIB).",
    terms="CC BY 4.0.",
    patients=_POOLED,
    labels="normal (all donors were healthy); cell types become cell labels.",
    traps=(
        "Promyelocytes of healthy people test the recognition of promyelocytes, not of APL.",
        "The paper counts 611 promyelocytes; 592 file names in the full set begin with PMY.",
        "151 immature granulocytes (IG) and 50 neutrophils have no finer type.",
        "Platelets and erythroblasts are not leukocytes.",
        "Resized copies with other folders are in circulation: use the original 8 class folders.",
        "A few files are identical copies: counted once.",
    ),
    verified="Against 5,893 files in the published folders (cropped to the central 200 x 200 px).",
    layout=_PBC.layout,
    prepare=partial(prepare, classes=_PBC),
)

AML_LMU = Dataset(
    name="aml_lmu",
    summary="blood cells of AML patients and controls by type, 18,365 single cells",
    description=(
        "Single-cell crops of 400 x 400 px (TIFF, four channels) from blood films of 100 patients "
        "with AML and 100 without a malignancy, in 15 class folders (Matek et al., Nature Machine "
        "Intelligence 2019); 100x oil, 14.14 px/um (0.0707 um/px)."
    ),
    source="The Cancer Imaging Archive, AML-Cytomorphology_LMU, doi 10.7937/tcia.2019.36f5o9ld.",
    terms="Creative Commons Attribution as on the collection's page; TCIA data usage policy.",
    patients=_POOLED,
    labels="None: AML and control cells are mixed. Cell types become cell labels.",
    traps=(
        "Nothing says whose a cell is: it cannot train or test a call for a patient.",
        (
            "Very unbalanced classes: 8,484 segmented neutrophils, 70 promyelocytes, 11 atypical "
            "lymphocytes."
        ),
        "Bilobed promyelocytes (PMB) are typical of APL; they count as promyelocytes here.",
        "Second and third ratings often differ from the first: see annotations.dat.",
    ),
    verified="Not against files: folders as in public loaders, scale and counts from the paper.",
    layout=_LMU.layout,
    prepare=partial(prepare, classes=_LMU),
)

BONE_MARROW_MLL = Dataset(
    name="bone_marrow_mll",
    summary="bone-marrow cells by type, 171,374 single cells",
    description=(
        "Single-cell crops of 250 x 250 px from bone-marrow films of 945 patients with many "
        "diseases, May-Gruenwald-Giemsa, 40x oil, in 21 class folders (Matek et al., Blood 2021); "
        "about 0.1 um/px, estimated from red cells."
    ),
    source=(
        "The Cancer Imaging Archive, Bone-Marrow-Cytomorphology_MLL_Helmholtz_Fraunhofer, doi "
        "10.7937/TCIA.AXH3-T579."
    ),
    terms="CC BY 4.0; TCIA data usage policy.",
    patients=_POOLED,
    labels="None: diseases are mixed and not given. Cell types become cell labels.",
    traps=(
        "Nothing says whose a cell is: it cannot train or test a call for a patient.",
        "Artefacts (ART) and unidentifiable cells (NIF) are classes: 14% of the images.",
        "Large classes are in folders of 1,000, small ones are not; repacked copies are flat.",
        "Crops show neighbouring cells: the label is that of the central one.",
    ),
    verified=(
        "Against 175 files of 7 classes (flat folders); folders of 1,000 as in public loaders."
    ),
    layout=_MARROW.layout,
    prepare=partial(prepare, classes=_MARROW),
)

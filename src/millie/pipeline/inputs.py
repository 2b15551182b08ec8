"""What a person names on the command line or in a notebook: paths, folders, a manifest, a store.

Owns the reading of such words into patients or bags; the formats are the readers' and the stores'.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from millie.bags.copies import shared_between
from millie.bags.store import BagReader, Store
from millie.bags.vectors import UNNAMED
from millie.config import Config
from millie.errors import ConfigError, ImageError, MissingFileError
from millie.models.external import vectors_of
from millie.outputs.result_folder import STORE, Results, files_of, is_store
from millie.readers.cell_tables import is_table
from millie.readers.cohort import read_folders, read_manifest
from millie.readers.content import problem
from millie.readers.fields import read_again
from millie.readers.manifest import is_manifest
from millie.readers.spelling import exists, named
from millie.readers.stray import without_strays
from millie.readers.table import SPREADSHEETS
from millie.types import Cohort, Field, Problem, SourceRecord

if TYPE_CHECKING:
    from millie.outputs.overlays import FieldReader

PathLike = str | os.PathLike[str]
"""A path as people write it."""

_TABLES = frozenset({".csv", ".tsv", ".txt"}) | SPREADSHEETS
"""Endings by which an input is taken for a manifest; what can be read of it, the reader says."""


def paths_of(inputs: PathLike | Sequence[PathLike]) -> list[Path]:
    """One path or several, as paths, with accents as they are on the disk.

    Raises:
        ConfigError: an empty text, which would mean the whole folder that one is in.
    """
    several = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if "" in several:
        raise ConfigError("an input is an empty text: name folders, images or a manifest")
    return [named(each) for each in several]


def settings_of(config: Config | None) -> Config:
    """The settings, by default those of the default profile.

    Raises:
        ConfigError: something else than a configuration was given.
    """
    if config is None:
        return Config()
    if not isinstance(config, Config):
        raise ConfigError(
            f"settings: got {type(config).__name__}, expected millie.Config, for example "
            'millie.Config().with_settings(["training.max_epochs=30"])'
        )
    return config


def cohort_of(inputs: Sequence[Path], root: Path | None = None) -> Cohort:
    """Patients from one manifest, or from folders and images.

    Args:
        inputs: what was named.
        root: folder that no path of a manifest may leave; None: the manifest's own.

    Raises:
        MissingFileError: an input does not exist.
        ManifestError: the manifest breaks its rules, or nothing usable is there.
        ConfigError: a manifest beside other inputs, or a root without a manifest.
    """
    missing = [path for path in inputs if not exists(path)]
    dead = [path for path in missing if os.path.islink(path)]  # noqa: PTH114 - of any length
    misspelt = [path for path in missing if path not in dead or missing == inputs]
    if misspelt:
        raise MissingFileError(f"{misspelt[0]} does not exist; give folders, images or a manifest")
    inputs = [path for path in inputs if path not in dead]
    tables = [p for p in inputs if p.is_file() and p.suffix.lower() in _TABLES]
    if tables and len(inputs) > 1 and (manifests := list(filter(is_manifest, tables))):
        raise ConfigError(
            f"{manifests[0]} is a manifest: give it alone, it names its images itself"
        )
    if tables and len(inputs) == 1:
        return read_manifest(tables[0], root)
    if root is not None:
        raise ConfigError(f"--root {root} goes with a manifest; folders and images need none")
    kept, notes = without_strays(inputs)
    # As in a manifest's cohort: workers on other machines start in other folders.
    cohort = read_folders([path.absolute() for path in kept])
    lost = [problem("", str(path), ImageError(f"{path}: a link to nothing")) for path in dead]
    return replace(cohort, problems=(*cohort.problems, *notes, *lost))


def check_nameless(inputs: Sequence[Path]) -> None:
    """Refuse pseudonyms for what keeps the names that it was written with.

    Raises:
        ConfigError: a store, or a table that names its patients.
    """
    if is_store(inputs):
        raise ConfigError(
            f"{inputs[0]} keeps the names that it was cut with: cut one without them by `millie "
            "segment --pseudonyms`"
        )
    if tables := [path for path in inputs if is_table(path)]:
        raise ConfigError(
            f"{tables[0]} names its patients itself: write pseudonyms into its column of patients"
        )


def elsewhere(store: Path, out: Path) -> Store:
    """A named store, which must not be replaced with the results that are made from it.

    Raises:
        ConfigError: it lies in the folder of the results.
    """
    if store.resolve().is_relative_to(out.resolve()):
        raise ConfigError(
            f"{store} lies in {out}, whose files are replaced by the new results: name another "
            "folder for them"
        )
    return Store(store)


def store_within(results: Results, cohort: Cohort) -> Store:
    """The store of a prediction run, with what the last run or a killed one cut of these patients.

    Raises:
        ConfigError: a file of the user's own stands where a patient's page is to lie.
    """
    results.check_free(files_of(patient.id for patient in cohort.patients))
    store = Store(results.new / STORE)
    wanted = {store.path_of(patient.id) for patient in cohort.patients}
    for path in store.files():
        if path not in wanted:
            path.unlink()
    for path in wanted:
        results.carry(f"{STORE}/{path.name}")
    return store


def images_of(cohort: Cohort | None, store: Store, config: Config) -> FieldReader:
    """Reads an image of a bag again: where the cohort has it, else where the bag says it lay.

    Raises:
        MissingFileError: when called, for an image of which neither tells its place.
    """
    known = {
        (patient.id, image.name): image.path
        for patient in (cohort.patients if cohort else ())
        for image in patient.images
    }

    def read(patient: str, record: SourceRecord) -> Field:
        path = known.get((patient, record.name))
        if path is None and record.path:
            path = Path(os.path.normpath(store.root.resolve() / record.path))
        if path is None:
            raise MissingFileError(f"{record.name}: its bag does not say where it lies")
        return read_again(record, path, config.reading)

    return read


def bags_of_store(store: Store, config: Config) -> tuple[list[Path], list[Problem]]:
    """Every bag of a store, and what could not be used when it was cut.

    Raises:
        ConfigError: its crops or vectors are not those that the model expects.
    """
    wanted = vectors_of(config.model.encoder)
    if store.encoder != wanted:
        _refuse_cells(store, wanted)
    if not wanted:
        _check_crops(store, config)
    found, unreadable = store.scan()
    problems = [*store.description.problems, *unreadable]
    for bag in found:
        with BagReader(bag.path, verify=False) as reader:
            problems += reader.meta.problems
    return [bag.path for bag in found], problems


def without_contradictions(store: Store, bags: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The bags to call: a patient whose cell lies under another diagnosis too is not called.

    Returns:
        The bags that stay, and what to tell of cells that two patients have in common.
    """
    told = [problem for pair in shared_between(bags) for problem in pair.problems()]
    told = [problem if problem.note else replace(problem, fatal=True) for problem in told]
    out = {store.path_of(problem.patient) for problem in told if problem.fatal}
    return [bag for bag in bags if bag not in out], told


def _refuse_cells(store: Store, wanted: str) -> NoReturn:
    if not wanted:
        raise ConfigError(
            f"{store.root} holds vectors ({store.encoder}) and no pictures, and this model takes "
            "images: name these, or use a model that was trained on such vectors"
        )
    expected = f"this model takes vectors of '{wanted}'"
    if not store.encoder:
        raise ConfigError(f"{store.root} holds pictures of cells, and {expected}")
    held = "do not say what computed them" if store.encoder == UNNAMED else f"are '{store.encoder}'"
    raise ConfigError(
        f"the vectors {held}, and {expected}: if they are that, state it with `millie "
        f"import-features --encoder {wanted}` and give the store"
    )


def _check_crops(store: Store, config: Config) -> None:
    got, wanted = store.description.config.crops, config.crops
    if (got.size_px, got.size_um) != (wanted.size_px, wanted.size_um):
        raise ConfigError(
            f"{store.root} holds crops of {got.size_px} px over {got.size_um} um, the model "
            f"expects {wanted.size_px} px over {wanted.size_um} um; predict from the images"
        )
    kept = [n for n in ("keep_smudge", "keep_unoutlined") if getattr(got, n) > getattr(wanted, n)]
    if kept:
        raise ConfigError(
            f"{store.root} holds cells that the model was trained without "
            f"({', '.join(f'crops.{n}=true' for n in kept)}); predict from the images"
        )

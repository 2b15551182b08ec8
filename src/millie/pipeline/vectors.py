"""Patients whose cells come as vectors, for a model that was trained on such.

Owns what ``predict`` takes for such a model besides a store: one manifest whose paths are files of
vectors, or these files themselves, each a patient. Reading them into bags is ``import_features``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from millie.bags.vectors import UNNAMED
from millie.config import Config
from millie.errors import ConfigError
from millie.models.external import external, vectors_of
from millie.pipeline.import_features import Load, load_file, rows_of
from millie.pipeline.inputs import cohort_of
from millie.readers.cell_tables import is_table
from millie.readers.feature_files import is_feature_file
from millie.types import Cohort, ImageSource, Patient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from millie.bags.store import Store


def settings_of_vectors(store: Store, config: Config) -> Config:
    """Settings for a store of vectors: the encoder is what made them, whatever was named.

    Settings for a store of pictures are returned as they are.
    """
    if not (name := store.encoder):
        return config
    model = config.model.model_copy(
        update={"encoder": external(name), "weights": None, "pretrained": True}
    )
    return config.model_copy(update={"model": model})


def check_named(store: Store) -> None:
    """Refuse to train on vectors of which nobody has said what computed them.

    Raises:
        ConfigError: the store does not name its encoder.
    """
    if store.encoder == UNNAMED:
        raise ConfigError(
            f"{store.root} does not say what computed its vectors, and a model must, so that it "
            "is never given others: import them again with `millie import-features --encoder NAME`"
        )


def patients_for(
    config: Config, inputs: Sequence[Path], root: Path | None
) -> tuple[Cohort, Load | None]:
    """Patients for a model, and if it takes vectors what gives these.

    Args:
        config: of the model.
        inputs: what was named.
        root: folder that no path of a manifest may leave.

    Raises:
        ConfigError: images for a model of vectors, or files of vectors for one of images.
        MissingFileError, ManifestError: as :func:`millie.pipeline.inputs.cohort_of`.
    """
    if name := vectors_of(config.model.encoder):
        return patients_of_vectors(inputs, root, name)
    if all(is_feature_file(path) for path in inputs):
        raise ConfigError(
            f"{inputs[0]} holds vectors, and this model takes images: name these, or use a model "
            "that was trained on such vectors (millie train STORE of millie import-features)"
        )
    return cohort_of(inputs, root), None


def patients_of_vectors(
    inputs: Sequence[Path], root: Path | None, name: str
) -> tuple[Cohort, Load]:
    """Patients from one manifest, from files of one patient each, or from one table of cells.

    Args:
        inputs: what was named.
        root: folder that no path of a manifest may leave.
        name: of the encoder that the model expects.

    Returns:
        The patients, and what gives their vectors.

    Raises:
        ConfigError: images, or a folder that is no store.
        MissingFileError, ManifestError: as :func:`millie.pipeline.inputs.cohort_of`.
    """
    if all(is_feature_file(path) for path in inputs):
        return rows_of(inputs[0]) if [*map(is_table, inputs)] == [True] else _one_each(inputs)
    if any(path.is_dir() for path in inputs):
        _wants_vectors(inputs[0], name)
    cohort = cohort_of(inputs, root)
    if not any(is_feature_file(image.path) for p in cohort.patients for image in p.images):
        _wants_vectors(inputs[0], name)
    return cohort, load_file


def _one_each(files: Sequence[Path]) -> tuple[Cohort, Load]:
    patients: dict[str, Patient] = {}
    for path in files:
        other = patients.get(path.stem)
        if other is not None:
            raise ConfigError(
                f"two files are called {path.stem} ({other.images[0].path} and {path}), and "
                "patients take their file's name; name them in a manifest"
            )
        source = ImageSource(path=path.absolute(), name=path.name)
        patients[path.stem] = Patient(path.stem, None, (source,))
    return Cohort("files", tuple(patients.values())), load_file


def _wants_vectors(given: Path, name: str) -> NoReturn:
    raise ConfigError(
        f"{given}: this model takes vectors of '{name}', not images. Compute them with the "
        "program that made those it was trained on, and give their files, a manifest of them, or "
        f"a store of `millie import-features --encoder {name}`; for images, use another model "
        "(millie models)"
    )

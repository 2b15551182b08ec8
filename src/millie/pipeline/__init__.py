"""The method in order: images -> cells -> bags -> model -> calls -> report.

The Python interface. Each function is one command and is to be had from ``millie`` itself:
``millie.predict(...)``. This is the only module that knows the order of the stages; each stage
knows only its own work. Nothing here prints: long work reports through a progress callback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from millie.bags.store import Store
from millie.config import Config
from millie.outputs.result_folder import STORE, check_kind, is_store, new_results
from millie.pipeline.detect_cells import detect_in_files
from millie.pipeline.evaluate_decisions import evaluate
from millie.pipeline.import_features import fill_vectors
from millie.pipeline.inputs import (
    PathLike,
    bags_of_store,
    check_nameless,
    cohort_of,
    elsewhere,
    images_of,
    paths_of,
    settings_of,
    store_within,
    without_contradictions,
)
from millie.pipeline.monitor_runs import monitor
from millie.pipeline.pseudonyms import check_no_names, pseudonymised
from millie.pipeline.results import (
    CrossvalResult,
    DetectResult,
    EvaluateResult,
    MonitorResult,
    PredictResult,
    SegmentResult,
    TrainResult,
    ValidateResult,
)
from millie.pipeline.segment_cohort import Progress, fill_store, silent
from millie.pipeline.train_models import crossval, train
from millie.pipeline.validate_runs import validate
from millie.pipeline.vectors import patients_for
from millie.readers.cohort import write_new_manifest
from millie.readers.datasets import prepare as read_dataset
from millie.readers.outlines import with_outlines
from millie.types import Cohort

if TYPE_CHECKING:
    from millie.engines.seam import Engine
    from millie.models.bundle import Bundle
    from millie.outputs.overlays import Pictures
    from millie.pipeline.caller import KeptModel

__all__ = [
    "CrossvalResult", "DetectResult", "EvaluateResult", "MonitorResult", "PredictResult",
    "Progress", "SegmentResult", "TrainResult", "ValidateResult", "crossval", "detect", "evaluate",
    "load_bundle", "monitor", "predict", "prepare", "read_cohort", "segment", "silent", "train",
    "validate",
]  # fmt: skip


def prepare(dataset: str, root: PathLike, out: PathLike) -> Cohort:
    """Read a published data set's own layout and write it as a manifest.

    Args:
        dataset: a name of :data:`millie.readers.datasets.DATASETS`.
        root: folder that holds the data set.
        out: the manifest (CSV) to write.

    Raises:
        ConfigError: no such data set, or ``out`` exists and holds anything else.
        ManifestError: the folder is not that data set; the message shows the expected tree.
    """
    cohort = read_dataset(dataset, Path(root))
    write_new_manifest(cohort, Path(out))
    return cohort


def read_cohort(inputs: PathLike | Sequence[PathLike], root: PathLike | None = None) -> Cohort:
    """Read patients from one manifest, or from folders and images.

    Args:
        inputs: one path or several. A manifest is a CSV with the columns ``patient``, ``label`` and
            ``path``; a folder is one patient.
        root: folder that no path of a manifest may leave; None: the manifest's own.

    Raises:
        MissingFileError: an input does not exist.
        ManifestError: the manifest breaks its rules, or nothing usable is there.
        ConfigError: a manifest beside other inputs.

    Example:
        >>> import millie
        >>> cohort = millie.read_cohort("films/manifest.csv")
        >>> cohort.labels
        ('APL', 'normal')
        >>> len(cohort.patients)
        12
    """
    return cohort_of(paths_of(inputs), Path(root) if root else None)


def segment(
    cohort: Cohort | PathLike | Sequence[PathLike],
    store: PathLike,
    config: Config | None = None,
    engine: Engine | None = None,
    part: tuple[int, int] = (0, 1),
    progress: Progress = silent,
    outlines: PathLike | None = None,
    *,
    whole: bool = True,
    pseudonyms: PathLike | None = None,
) -> SegmentResult:
    """Cut every patient's cells into a bag store; finished patients are skipped.

    A patient that fails has no bag afterwards, even where an earlier run had cut one from other
    files or settings: nobody is trained on or called by images that were not named now.

    Args:
        cohort: patients, from :func:`read_cohort`, or what that takes.
        store: folder of the bag store; made if missing.
        config: stages reading, segmentation and crops are used; None: the default.
        engine: who works; None: this process. ``millie.engines.seam.ProcessEngine()`` uses all
            cores.
        part: shard ``(index, count)`` of the patients, for job arrays.
        progress: called after each patient.
        outlines: GeoJSON file, or folder of such files, with outlines of cells drawn or corrected
            elsewhere, each called after its image; they replace what segmentation finds there.
        whole: the store is for all that is to be trained on: name bags of other cohorts in it.
        pseudonyms: table (CSV) outside the store that links random pseudonyms with the names of
            patients and images; the store then holds no name. None: names are kept.

    Raises:
        NoCellsError: not one patient gave a cell.
        ConfigError: another shard cuts this store with other settings, the folder holds something
            else than a store, or bags with names where pseudonyms are wanted; or a file of outlines
            goes with no image.
        MissingFileError, ManifestError: as :func:`read_cohort`.

    Example:
        >>> cells = millie.segment(cohort, "store")
        >>> cells.done, cells.failures
        (12, ())
        >>> cells.rows()[0]["n_cells"] > 3
        True
    """
    patients = cohort if isinstance(cohort, Cohort) else read_cohort(cohort)
    if outlines is not None:
        patients = with_outlines(patients, Path(outlines))
    check_kind(Path(store), "store")
    if pseudonyms:
        check_no_names(Path(store), Store(Path(store)).files())
        patients = pseudonymised(patients, Path(pseudonyms), [Path(store)])
    home = None if pseudonyms else Path(store)
    return fill_store(
        patients, Path(store), settings_of(config), engine, part, progress, home=home, whole=whole
    )


def load_bundle(bundle: PathLike) -> Bundle:
    """Load a model, every file of it verified.

    Args:
        bundle: its folder, or the name of a shipped one.

    Raises:
        MissingFileError: no such bundle.
        BundleError: a file of it is missing, unknown or altered.

    Example:
        >>> bundle = millie.load_bundle("my-model")
        >>> bundle.labels, len(bundle.networks)
        (('APL', 'normal'), 5)
    """
    from millie.models.bundle import load_bundle as load

    return load(bundle if isinstance(bundle, str) else Path(bundle))


def predict(
    bundle: PathLike,
    inputs: PathLike | Sequence[PathLike],
    out: PathLike,
    file: PathLike | None = None,
    settings: str | Sequence[str] = (),
    engine: Engine | None = None,
    progress: Progress = silent,
    root: PathLike | None = None,
    pseudonyms: PathLike | None = None,
    kept: KeptModel | None = None,
    *,
    pictures: Pictures = "winners",
) -> PredictResult:
    """Call every patient found in the inputs and show the cells behind each call.

    Args:
        bundle: folder of a bundle or the name of a shipped one.
        inputs: patient folders, images, one manifest, or one bag store; for a model of vectors one
            store or manifest of such, or files of vectors, each a patient.
        out: folder for tables, pictures and the report: new, empty, or that of an earlier run,
            whose files are replaced once all new ones are there. Other files in it stay.
        file: TOML file with settings over the bundle's own.
        settings: ``stage.field=value``, one or several, over both.
        engine: who cuts the images; None: this process.
        progress: called after each patient of each step.
        root: as in :func:`read_cohort`.
        pseudonyms: as in :func:`segment`; the table lies outside ``out``.
        kept: where the model stays loaded for the next call of this function; None: it does not.
        pictures: which fields are drawn: those that hold evidence (``winners``), ``all`` or
            ``none``.

    Raises:
        MissingFileError: no such bundle, or an input does not exist.
        BundleError: the bundle is damaged.
        ManifestError: as :func:`read_cohort`.
        NoCellsError: not one patient gave a cell.
        ConfigError: a store whose crops are not the bundle's or that holds cells which the bundle
            leaves out, images for a model of vectors or the reverse, a setting that would change
            what the model was trained on (crops, model), an ``out`` that holds something else, or
            pseudonyms for a store.
        BusyError: another run is writing to ``out``.

    Example:
        >>> calls = millie.predict("my-model", "films/manifest.csv", "calls")
        >>> calls.rows()[0]["state"].endswith("INDETERMINATE")  # nobody is called by 6 cells
        True
        >>> list(calls.predictions[0].probabilities)
        ['APL', 'normal']
    """
    from millie.pipeline.caller import loading, settings_for

    bundle = bundle if isinstance(bundle, str) else Path(bundle)
    named, folder = paths_of(inputs), Path(out)
    words = [settings] if isinstance(settings, str) else settings
    chosen = settings_for(bundle, Path(file) if file else None, words)
    if pseudonyms:
        check_nameless(named)
    with new_results(folder) as results:
        cohort, load = None, None
        if not is_store(named):  # here, so that a fault of the inputs is told at once
            cohort, load = patients_for(chosen, named, Path(root) if root else None)
        with loading(bundle, chosen, engine, progress, kept) as (caller, watched):
            if cohort is None:
                store = elsewhere(named[0], folder)
                bags, problems = bags_of_store(store, chosen)
            else:
                if pseudonyms:
                    cohort = pseudonymised(cohort, Path(pseudonyms), [folder])
                store = store_within(results, cohort)
                if load:
                    fill_vectors(store, cohort, "", watched, load)
                    bags, problems = bags_of_store(store, chosen)
                else:
                    home = None if pseudonyms else folder / STORE
                    cut = fill_store(
                        cohort, store.root, chosen, engine, progress=watched, home=home, whole=False
                    )
                    bags = [store.path_of(patient) for patient in sorted(cut.patients)]
                    problems = list(cut.problems)
            model = caller()
        # Not before: the libraries that draw are imported while images are cut, as the model is.
        from millie.outputs.patient.remarks import remarks_of
        from millie.outputs.report import write_prediction_run

        bags, shared = without_contradictions(store, bags)
        problems += shared
        predictions, failed = model.predict(bags, chosen, progress)
        problems += failed
        card = model.card(chosen)
        write_prediction_run(
            results.new,
            card,
            predictions,
            store,
            problems,
            read_field=images_of(cohort, store, chosen),
            progress=progress,
            home=folder,
            pictures=pictures,
        )
        results.publish()
    return PredictResult(
        folder, folder / "report.html", tuple(predictions), card["scope"],
        remarks_of(predictions, card), tuple(problems),
    )  # fmt: skip


def detect(
    images: PathLike | Sequence[PathLike],
    out: PathLike | None = None,
    config: Config | None = None,
    overlay: PathLike | None = None,
    progress: Progress = silent,
    pseudonyms: PathLike | None = None,
) -> DetectResult:
    """Find leukocytes in image files.

    Args:
        images: files and folders of files; the table repeats these names.
        out: CSV to write, ``source,x_px,y_px,left_px,top_px,width_px,height_px,area_px`` in pixels
            of the full-resolution file, rows in the order of the files and of the boxes' tops;
            None: none is written.
        config: stages reading and segmentation are used; None: the default.
        overlay: folder for pictures with the outlines drawn; None: none.
        progress: called after each image.
        pseudonyms: as in :func:`segment`; table and pictures then show no name.

    Raises:
        ImageError: not one of the files is a usable image.
        ConfigError: ``out`` is another kind of file, or ``overlay`` holds another kind of result.

    Example:
        >>> found = millie.detect("films", overlay="drawn")
        >>> sorted(found.rows()[0])[:3]
        ['area_px', 'at_border', 'height_px']
        >>> len(found.cells) > 12
        True
    """
    table, pictures, names = (Path(each) if each else None for each in (out, overlay, pseudonyms))
    return detect_in_files(
        paths_of(images), table, settings_of(config), pictures, progress, pseudonyms=names
    )

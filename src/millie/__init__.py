"""millie: leukaemia calls from images of blood and marrow, with the cells behind each call.

For research use only. On the command line: ``millie --help``. In Python::

    import millie

    calls = millie.predict("acute-leukaemia", ["patient_017", "patient_018"], "calls")
    calls.to_frame()                                # a row a patient, where pandas is installed

    cohort = millie.read_cohort("cohort.csv")       # columns patient, label, path
    millie.segment(cohort, "store")                 # leukocytes, cut out: a bag a patient
    study = millie.crossval("store", "study")       # how well are new patients called?
    model = millie.train("store", "my-model")       # a model from all patients
    millie.predict(model.out, "new_patients.csv", "calls")
    millie.monitor(["calls", "calls_march"], "monitor")   # have the calls changed over time?
    millie.validate("plan.toml", "calls", "validation", "diagnoses.csv")   # your own validation

Functions take paths as text or :class:`pathlib.Path` and settings as :class:`Config` (``predict``,
whose model brings its own, as ``stage.field=value``). They give back small objects with a table:
``rows()``, ``to_dict()``, ``to_frame()``. Each is explained, with an example, by
``help(millie.predict)`` and so on. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"

__all__ = [
    "Config", "__version__", "crossval", "detect", "evaluate", "load_bundle", "monitor", "predict",
    "prepare", "read_cohort", "segment", "train", "validate",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # PEP 562: importing OpenCV and SciPy takes a second
    if name not in __all__:
        raise AttributeError(f"module 'millie' has no attribute '{name}'")
    from importlib import import_module  # noqa: PLC0415

    home = "millie.config" if name == "Config" else "millie.pipeline"
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

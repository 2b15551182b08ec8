# What `import millie` offers, for editors and type checkers; imported only when it is used.
from millie.config import Config as Config
from millie.pipeline import crossval as crossval
from millie.pipeline import detect as detect
from millie.pipeline import evaluate as evaluate
from millie.pipeline import load_bundle as load_bundle
from millie.pipeline import monitor as monitor
from millie.pipeline import predict as predict
from millie.pipeline import prepare as prepare
from millie.pipeline import read_cohort as read_cohort
from millie.pipeline import segment as segment
from millie.pipeline import train as train
from millie.pipeline import validate as validate

__all__ = [
    "Config", "__version__", "crossval", "detect", "evaluate", "load_bundle", "monitor", "predict",
    "prepare", "read_cohort", "segment", "train", "validate",
]  # fmt: skip
__version__: str

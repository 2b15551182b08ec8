"""Arrays of the small models that lie in this package beside the code that uses them."""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stored_arrays(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file of this package, by their names.

    Args:
        name: of the file, with its ending.

    Raises:
        FileNotFoundError: the package has no such file.
    """
    data = files("millie.segmentation").joinpath(name).read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}

"""Files of weights on the Hugging Face Hub, by revision and SHA-256 (extra ``hub``).

In ``model.weights`` such a file is ``hub:OWNER/NAME@REVISION/FILE#SHA256``: a commit, not a branch,
and the digest of the file, so that the same word means the same weights everywhere and for ever.
What was fetched once is taken from the Hub's cache, without a network.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path

from millie.errors import BundleError, ConfigError, MissingWeightsError

_SCHEME = "hub:"
_WORD = re.compile(
    r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})/(?P<file>[\w./-]+)"
    r"#(?P<sha256>[0-9a-f]{64})"
)


def local_file(weights: Path) -> Path:
    """The file itself, or that which a word of the Hub names, fetched if need be and compared.

    Raises:
        ConfigError: the word is malformed.
        MissingWeightsError: the extra is missing, or neither network nor cache has the file.
        BundleError: its SHA-256 is another.
    """
    word = weights.as_posix()
    if not word.startswith(_SCHEME):
        return weights
    found = _WORD.fullmatch(word)
    if found is None:
        raise ConfigError(
            f"model.weights={word}: expected hub:OWNER/NAME@REVISION/FILE#SHA256, the revision a "
            "commit of 40 hexadecimal digits (the Hub lists them under Files, History), SHA-256 "
            "of 64 (the Hub shows that of each large file on its page)"
        )
    repository, revision, file = found["repository"], found["revision"], found["file"]
    path = fetch(repository, file, revision, f"{file} of {repository}")
    if (digest := file_sha256(path)) != found["sha256"]:
        raise BundleError(
            f"{file} of {repository} at {revision[:10]}: SHA-256 {digest}, expected "
            f"{found['sha256']}; the word is wrong, or the file in {path} is damaged: delete it "
            "and fetch it again"
        )
    return path


def fetch(repository: str, file: str, revision: str, what: str, otherwise: str = "") -> Path:
    """A file of the Hub at a revision, from the cache or the network.

    Args:
        repository: ``owner/name``.
        file: path in it.
        revision: commit.
        what: for messages.
        otherwise: other files that would do.

    Raises:
        MissingWeightsError: the extra is not installed, or there is neither network nor a cached
            copy; the message names both ways out.
    """
    ways_out = (
        "Either install the extra (pip install 'millie[hub]') and run once with a network, or "
        f"download https://huggingface.co/{repository}/resolve/{revision}/{file}{otherwise} "
        "elsewhere and name it: --set model.weights=FILE"
    )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingWeightsError(
            f"{what}: huggingface-hub is not installed. {ways_out}"
        ) from error
    try:
        return Path(hub.hf_hub_download(repository, file, revision=revision))
    except (OSError, ValueError) as error:
        raise MissingWeightsError(
            f"{what}: could not be fetched from the Hugging Face Hub ({type(error).__name__}). "
            f"{ways_out}"
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Addresses of elsewhere, where a file of this machine is meant: no connection is ever made."""

import os
import re

from murank._exceptions import InputError

# As a Path, "s3://a" has become "s3:/a"; a name such as "cam01:/a" is one of a folder.
_URL = re.compile(
    r"[a-z][a-z0-9+.-]+://|(https?|ftps?|sftp|s3[an]?|gs|gcs|az|abfss?|wasbs?|hdfs|hf|file):/|data:",
    re.IGNORECASE,
)


def is_url(text: str) -> bool:
    """Whether it names something to be fetched; a file: URL counts, too."""
    return ":" in text and _URL.match(text) is not None


def refuse_url(source: str | os.PathLike[str]) -> None:
    """Raise InputError if it is a URL."""
    if is_url(os.fspath(source)):
        raise InputError(
            f"{os.fspath(source)} is a URL, and murank opens no connection: copy what it names "
            "onto this machine, and name the path"
        )


def listed_url(where: str, text: str) -> InputError:
    """Return the error for a URL in a list; `where`: file and row."""
    return InputError(
        f"{where}: {text} is a URL, and murank opens no connection: list files that are here"
    )

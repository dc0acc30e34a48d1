"""Text from libraries, less what is nobody's business."""

import re

# A path from the root, of two names or more; the last one stays, as it may be what is missing.
_PATH = re.compile(r"(?<![\w./:])/(?:[^\s'\"`:;,()\[\]/]+/)+([^\s'\"`:;,()\[\]/]*)")


def without_paths(text: str) -> str:
    """Return one line, in which of each absolute path only the last name is left."""
    return _PATH.sub(r"\1", " ".join(text.split()))


def size(count: int) -> str:
    """Return bytes for a person."""
    return f"{count / 2**30:.1f} GiB"

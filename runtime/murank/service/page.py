"""The page at /: one file, and a policy under which nothing runs but what stands in it."""

import base64
import hashlib
import re
from importlib import resources

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def read_page() -> tuple[str, str]:
    """Return the page and its Content-Security-Policy.

    The policy names its script and its style by their hashes, lets it ask this service alone, show
    pictures that it fetched itself, and make no markup of texts.
    """
    text = resources.files("murank.service").joinpath("page.html").read_text("utf-8")
    hashes = {"script": "", "style": ""}
    for kind, content in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind] += f" 'sha256-{digest}'"
    policy = (
        "default-src 'none'",
        f"script-src{hashes['script']}",
        f"style-src{hashes['style']}",
        "img-src blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return text, "; ".join(policy)

"""Images as they come in JSON: a data URL, base64, or an object that holds one or names a shot."""

import base64
import binascii
import re
from typing import Any

from murank._exceptions import InputError
from murank.gallery.gallery import Gallery

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ONE_OF = "a data URL, base64, or an object with image, content or id"


class NotThere(InputError):  # noqa: N818  an answer to a question, as much as an error
    """What was named is not in the gallery, or there is no gallery."""


def image_bytes(value: Any, name: str, gallery: Gallery | None) -> bytes:
    """Return the bytes of an image's file.

    Raises
    ------
    NotThere
        An id names no shot of which a crop is kept.
    InputError
        It is no image, or one that would have to be fetched: nothing ever is.
    """
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        return _stored(value["id"], name, gallery)
    return _decoded(image_text(value, name), name)


def image_text(value: Any, name: str) -> str:
    """Return the data URL or base64 of an image that names no shot. Raises InputError."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if isinstance(value.get("image"), str):
            return str(value["image"])
        if isinstance(value.get("content"), list):
            return _url_of(value["content"], name)
        if "image_url" in value:
            return _url_of([value], name)
    raise InputError(f"{name} must be {_ONE_OF}")


def _url_of(content: list[Any], name: str) -> str:
    """Return the one image among the parts of a message."""
    urls = []
    for part in content:
        if isinstance(part, dict) and "image_url" in part:
            held = part["image_url"]
            urls.append(held.get("url") if isinstance(held, dict) else held)
    if len(urls) != 1 or not isinstance(urls[0], str):
        raise InputError(f"{name} must have one image_url among its content")
    return urls[0]


def _decoded(text: str, name: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InputError(f"{name} must be a data URL with ;base64,")
    elif _URL.match(text):
        raise InputError(f"{name} is a URL, and nothing is fetched: send the image itself")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise InputError(f"{name} must be {_ONE_OF}")
    return data


def _stored(shot_id: str, name: str, gallery: Gallery | None) -> bytes:
    if gallery is None:
        raise NotThere(f"{name} names a shot, and there is no gallery")
    crop = gallery.crop(shot_id)
    if crop is None:
        raise NotThere(f"{name} names no shot of which a crop is kept")
    return crop

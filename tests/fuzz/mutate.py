"""Changes of files: of any bytes, and of what JSON, zip, PNG and JPEG are made of."""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 10**30, 1e308,
    -1e308, 1e-308, 0.5, -0.0, float("nan"), float("inf"),
)  # fmt: skip
TEXTS = (
    "",
    " ",
    "\x00",
    "\x1b[31m",
    "../..",
    "/dev/zero",
    "\ud800",
    "a" * 70_000,
    "\u202e",
    "None",
)
_WORDS = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\n",
    b",",
)


def flip(data: bytes, chance: random.Random) -> bytes:
    """Change a few bits."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """Lose the end, the beginning or something between."""
    first, last = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return chance.choice((data[:first], data[first:], data[:first] + data[last:]))


def repeat(data: bytes, chance: random.Random) -> bytes:
    """Say something again, or many times, or elsewhere."""
    first, last = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    last = min(last, first + 4096)
    where = chance.choice((last, chance.randrange(len(data) + 1)))
    return data[:where] + data[first:last] * chance.choice((1, 1, 2, 50)) + data[where:]


def overwrite(data: bytes, chance: random.Random) -> bytes:
    """Put a word of another kind in: the largest length, a minus, an end of line."""
    word = chance.choice(_WORDS)
    where = chance.randrange(len(data) + 1)
    return data[:where] + word + data[where + len(word) * chance.randrange(2) :]


BYTES: tuple[Mutation, ...] = (flip, flip, cut, repeat, overwrite)


def json_tree(data: bytes, chance: random.Random) -> bytes:
    """Change a value, drop, double or add a key; text that is JSON no more is left to others."""
    tree = json.loads(data)
    for _ in range(chance.choice((1, 1, 1, 3))):
        places = list(_places(tree))
        if places:
            holder, key = chance.choice(places)
            _change(holder, key, chance)
    text = json.dumps(tree)
    if chance.random() < 0.1:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    if chance.random() < 0.05:
        text = "[" * 100_000 + text
    return text.encode(errors="surrogatepass")


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found = []
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        found.append((tree, key))
        found += _places(tree[key])
    return found


def _change(holder: Any, key: Any, chance: random.Random) -> None:
    what = chance.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[chance.choice(TEXTS)] = holder[key]
    elif what == 2:
        holder[key] = chance.choice((None, True, [], {}, [holder[key]], {"a": holder[key]}))
    elif what == 3:
        holder[key] = chance.choice(TEXTS)
    elif isinstance(holder[key], str) and holder[key] and what == 4:
        holder[key] = flip(holder[key].encode(), chance).decode(errors="replace")
    else:
        holder[key] = chance.choice(NUMBERS)


def zip_members(data: bytes, chance: random.Random) -> bytes:
    """Change, drop, rename, double, pack or blow up a member; its checksum fits again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    number = chance.randrange(len(members))
    name, content = members[number]
    what = chance.randrange(7)
    if what == 0:
        del members[number]
    elif what == 1:
        members.append((name, content))
    elif what == 2:
        members[number] = (chance.choice((name + ".npy", "../x.npy", "x", "x" * 60_000)), content)
    elif what == 3:
        members[number] = (name, chance.choice((b"", b"no array", b"\x00" * 5_000_000)))
    elif what == 4:
        members[number] = (name, _other_header(content, chance))
    else:
        members[number] = (name, chance.choice(BYTES)(content, chance))
    packed = io.BytesIO()
    how = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", how) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return packed.getvalue()


def _other_header(content: bytes, chance: random.Random) -> bytes:
    """Let an array claim another shape or type."""
    shape = chance.choice((
        "(10000000000,)", "(1000000, 1000000)", "()", "(0,)", "(0, 0)", "(-1,)", "(2, 2, 2)",
        "(4294967296, 4294967296)", "(4611686018427387904, 4)", "(" + "1, " * 70 + ")",
    ))  # fmt: skip
    kind = chance.choice((
        "'<f4'", "'<f8'", "'<f2'", "'|O'", "'<U1000000000'", "'<i8'", "'>i4'", "'<c16'", "'|V9'",
        "'<M8[ns]'", "[('a', '<f4')]", "'|b1'", "'<U0'", "'|S3'",
    ))  # fmt: skip
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    body = content[10 + int.from_bytes(content[8:10], "little") :]
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def png_chunks(data: bytes, chance: random.Random) -> bytes:
    """Change, drop, double or move a chunk of a PNG; its checksum fits again."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    number = chance.randrange(len(chunks))
    kind, content = chunks[number]
    what = chance.randrange(6)
    if what == 0:
        del chunks[number]
    elif what == 1:
        chunks.insert(chance.randrange(len(chunks)), (kind, content))
    elif what == 2:  # sizes that it does not have
        width, height = (chance.choice((0, 1, 20, 9000, 50_000_000, 2**31 - 1)) for _ in "wh")
        chunks[0] = (b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:])
    elif what == 3:
        text = zlib.compress(b"a" * chance.choice((10, 3_000_000)))
        chunks.insert(1, (chance.choice((b"zTXt", b"iCCP", b"iTXt")), b"a\x00\x00" + text))
    else:
        chunks[number] = (kind, chance.choice(BYTES)(content, chance))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


_IN_SCAN = (0, *range(0xD0, 0xD8))  # after 0xFF: a byte of that value, a restart


def jpeg_markers(data: bytes, chance: random.Random) -> bytes:
    """Change, drop, double or move a segment of a JPEG."""
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if data[at + 1] == 0xDA:  # the scan: up to the next marker that is no filler
            while end + 1 < len(data) and (data[end] != 0xFF or data[end + 1] in _IN_SCAN):
                end += 1
        parts.append(data[at:end])
        at = end
    number = chance.randrange(len(parts))
    what = chance.randrange(5)
    if what == 0:
        del parts[number]
    elif what == 1:
        parts.insert(chance.randrange(len(parts)), parts[number] * chance.choice((1, 2, 200)))
    elif what == 2:
        part = next((i for i, one in enumerate(parts) if one[1] in (0xC0, 0xC2)), number)
        size = chance.choice((0, 1, 60_000, 65_535)), chance.choice((0, 1, 800, 65_535))
        parts[part] = parts[part][:5] + struct.pack(">HH", *size) + parts[part][9:]
    else:
        parts[number] = parts[number][:4] + chance.choice(BYTES)(parts[number][4:], chance)
    return data[:2] + b"".join(parts) + data[at:]


def text_numbers(data: bytes, chance: random.Random) -> bytes:
    """Put another number in the place of one that is written out."""
    starts = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if not starts:
        return flip(data, chance)
    start = end = chance.choice(starts)
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    return data[:start] + str(chance.choice(NUMBERS)).encode() + data[end:]


def json_header(data: bytes, chance: random.Random) -> bytes:
    """Change the JSON at the front of a safetensors file; its length fits again."""
    (length,) = struct.unpack_from("<Q", data)
    header = json_tree(data[8 : 8 + length], chance)
    claimed = chance.choice((len(header), len(header), len(header), 2**63, 0, len(header) + 1))
    return struct.pack("<Q", claimed) + header + data[8 + length :]

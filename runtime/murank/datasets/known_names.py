"""What people call paths, persons, cameras and the like, in columns and in arrays."""

import itertools
import re

# Our name of what an array holds, and others', in lower case and without _ and the like.
_ROLES = {
    "features": "f fea feas feat feats feature emb embs embed embeds embedding embeddings vectors",
    "distmat": "dist dists qgdist distance distances distmatrix distancematrix",
    "paths": "path img image file imgpath imgpaths imagepath imagepaths filepath filepaths imgname "
    "imgnames imagename imagenames filename filenames imgfile imagefile relpath name names",
    "pids": "pid id ids label labels person personid personids identity identities vid vids "
    "vehicleid",
    "camids": "cam cams camid camera cameras cameraid cameraids camlabel camlabels",
    "clothes": "cloth clothesid clothesids clothid clothids clothing",
    "num_query": "numqueries nquery nqueries",
}
_SIDES = {"query": ("q", "query", "queries", "probe", "prob"), "gallery": ("g", "gallery", "gal")}
_NO_COLUMN = ("id", "ids", "name", "names")  # of a table: the row, or anything


def letters_of(name: str) -> str:
    """Return its letters and digits, in lower case: the rest is written one way or another."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _known() -> dict[str, tuple[str, str]]:
    words = {role: (letters_of(role), *others.split()) for role, others in _ROLES.items()}
    known = {word: (role, "") for role, some in words.items() for word in some}
    for side, names in _SIDES.items():
        for role, some in words.items():
            for name, word in itertools.product(names, some):
                known.setdefault(name + word, (role, side))
                known.setdefault(word + name, (role, side))
    return known


_KNOWN = _known()
SIDES = tuple(_SIDES)


def role_of(name: str) -> tuple[str, str]:
    """Return what an array of this name holds, by our name of that, and of which side.

    The side is "" for both; the role is "" where nobody knows.
    """
    return _KNOWN.get(letters_of(name), ("", ""))


def column_role(name: str) -> str:
    """Return what a column of a table of images holds: paths, pids, camids, clothes, or "".

    A column "id" may number the rows, and a "name" may be anybody's.
    """
    role, side = role_of(name)
    is_label = role in ("paths", "pids", "camids", "clothes") and not side
    return role if is_label and letters_of(name) not in _NO_COLUMN else ""

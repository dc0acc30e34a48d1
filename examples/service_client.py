"""A neighbour of `murank serve` on the same box, with Python's standard library alone.

murank serve benchmarks/miniature/engine --gallery gallery.db --uds murank.sock
python examples/service_client.py people murank.sock
"""

import argparse
import base64
import json
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any


class Client(HTTPConnection):
    """Ask over a socket file. Beyond it: HTTPSConnection(host, 8600), and a token."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Reach the file instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Return what is answered; where the service is busy, come back when it says."""
        while True:
            self.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = self.getresponse()
            content = json.loads(answer.read())
            if answer.status == 429:
                time.sleep(int(answer.headers["Retry-After"]))
            elif answer.status == 200:
                return content
            else:
                raise RuntimeError(f"{answer.status}: {content['message']}")


def text_of(crop: Path) -> str:
    """An image as JSON carries it."""
    return base64.b64encode(crop.read_bytes()).decode()


def main(folder: Path, path: Path) -> None:
    """Ask a service at a socket file."""
    with closing(Client(path)) as client:
        demonstrate(client, folder)


def demonstrate(client: Client, folder: Path) -> None:
    """Store shots, look for somebody, compare crops, erase."""
    now = time.time()
    shots = sorted((folder / "bounding_box_test").glob("*.jpg"))[:40]
    rows = client.ask(
        "/v1/gallery/rows",
        {
            "crops": [text_of(shot) for shot in shots],
            "camera": [int(shot.name.split("_c")[1][0]) for shot in shots],
            "time": now, "id": [shot.stem for shot in shots], "subject": "a demonstration",
        },
    )  # fmt: skip
    print(f"stored: {sum(row['status'] == 'added' for row in rows['results'])}")
    crop = text_of(min((folder / "query").glob("*.jpg")))
    found = client.ask(
        "/v1/gallery/search", {"crop": crop, "since": now - 3600, "top_k": 3, "deadline_ms": 500}
    )
    for match in found["matches"]:
        print(f"{match['rank']}. {match['id']}, mu {match['mu']}: a candidate match")
    ranked = client.ask(
        "/v1/rerank", {"query": crop, "documents": [{"id": shot.stem} for shot in shots[:5]]}
    )
    print(f"nearest of the first five: {shots[ranked['results'][0]['index']].stem}")
    receipt = client.ask("/v1/gallery/erase", {"subject": "a demonstration"})
    print(f"erased: {receipt['rows']}, complete: {receipt['complete']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set, as murank world draws it")
    parser.add_argument("path", type=Path, help="of the socket file")
    args = parser.parse_args()
    if not (args.folder / "query").is_dir():
        parser.error(f"{args.folder} has no query/ and bounding_box_test/: murank world draws some")
    try:
        main(args.folder, args.path)
    except OSError as error:
        parser.exit(2, f"no service answers at {args.path} ({error}): start murank serve first\n")

"""A Ray cluster: a new one on this machine's loopback, or one that runs somewhere."""

import contextlib
import logging
import os
import platform
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from murank._exceptions import MachineError
from murank.machine.library import library, pip_install
from murank_kernels.machine.cores import usable_cores

_INSTALL = pip_install("ray")
_CONNECTING = 20  # seconds
_SHOWN = 300  # characters of what Ray says
_OBJECT_STORE = 256 << 20  # bytes; of units and answers, which are small
# Ray reads these as it is imported.
_ANYWHERE = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else its threads start a cluster once we have left
}
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one node: everything listens on 127.0.0.1 alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a note about CUDA_VISIBLE_DEVICES
    "RAY_AUTH_MODE": "token",  # other users of this machine reach the loopback, too
}


class RayCluster:
    """Where actors run."""

    def __init__(self, address: str) -> None:
        """`address`: "HOST:PORT" of one that runs, "" for a new one; connected at first use.

        Raises LibraryError (MachineError) if Ray is not installed.
        """
        self._address = address
        self._folder: Path | None = None
        added = dict(_ANYWHERE)
        if not address:
            added |= _LOCAL | {"RAY_AUTH_TOKEN": _token()}
        self._before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        try:
            self._ray = library("ray", "ray.data", "pyarrow", install=_INSTALL)
        except BaseException:
            self._restore()
            raise

    @property
    def ray(self) -> Any:
        """The module, once connected. Raises MachineError if that fails."""
        if not self._ray.is_initialized():
            self._connect()
        return self._ray

    def count(self, resource: str, each: int = 1) -> int:
        """Return how many actors the nodes have room for that take `each` of a resource."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(int(node.get(resource, 0)) // each for node in nodes)

    def close(self) -> None:
        """Leave it; a cluster of our own ends, and leaves nothing behind."""
        with _silent():
            self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._restore()

    def _connect(self) -> None:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"address": self._address}
        if self._address:
            _check_versions(self._ray, self._address)
        else:
            # Ray lets all users read its folder: it stands in one of ours.
            self._folder = Path(tempfile.mkdtemp(prefix="murank-"))
            options = {
                "address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1",
                "num_cpus": usable_cores(),
                "object_store_memory": _OBJECT_STORE, "_temp_dir": str(self._folder / "ray"),
            }  # fmt: skip
        try:
            with _silent():
                self._ray.init(log_to_driver=False, configure_logging=False, **options)
        except Exception as error:  # of any kind: Ray has no class of its own for these
            where = self._address or "this machine"
            raise MachineError(f"Ray does not start at {where}: {_line(error)}") from error

    def _restore(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_versions(ray: Any, address: str) -> None:
    """Raise MachineError unless a cluster answers that has our versions.

    Ray itself would wait for ever where none does.
    """
    # The loopback is this machine's outer address for Ray.
    address = ray._private.services.canonicalize_bootstrap_address(address)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECTING).close()
    except (OSError, OverflowError) as error:
        raise MachineError(f"no Ray cluster answers at {address}: {_line(error)}") from error
    theirs = _metadata(ray, address)
    for name, here in (("ray", ray.__version__), ("python", platform.python_version())):
        there = theirs[f"{name}_version"]
        if there != here:
            raise MachineError(
                f"the cluster at {address} has {name.capitalize()} {there}, and this machine "
                f"{here}: they must be the same"
            )


def _metadata(ray: Any, address: str) -> Mapping[str, str]:
    from ray._common.usage.usage_lib import get_cluster_metadata

    found: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            found.put(get_cluster_metadata(ray._raylet.GcsClient(address=address)))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            found.put(error)

    with _silent():
        threading.Thread(target=ask, daemon=True).start()
        try:
            metadata = found.get(timeout=_CONNECTING)
        except Empty:
            metadata = TimeoutError(f"nothing is said for {_CONNECTING} s")
    if not isinstance(metadata, dict):
        raise MachineError(f"no Ray cluster answers at {address}: {_line(metadata)}")
    return metadata


def _line(error: object) -> str:
    return " ".join(str(error).split())[:_SHOWN]


@cache
def _token() -> str:
    """Return the secret of this process's clusters: Ray keeps the first that it is told."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray's native parts write off stderr, and let signals stay whose they are."""
    handlers = _handlers()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handlers() -> Mapping[int, Any]:
    """Return those that Ray replaces; only the main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}

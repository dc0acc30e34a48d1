"""A Ray cluster of one-core nodes on the loopback, with nobody's work on its head."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


def import_ray() -> Any:
    """Ray, for one machine: everything listens on the loopback."""
    os.environ.update(LOOPBACK)
    # What workers and their processes find: the tree under test, and the work of these tests.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    import ray.cluster_utils

    return ray


@contextmanager
def cluster_of(nodes: int) -> Iterator[Any]:
    """A cluster; `nodes_of_work` lists those that may be removed."""
    cluster = import_ray().cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False},
    )
    try:
        cluster.nodes_of_work = [add_node(cluster) for _ in range(nodes)]
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """One more."""
    return cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=80 << 20)

"""Two machines of one core each, on this one: a Ray cluster to lose a machine of."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from src import workers

PATIENCE = 300  # seconds after which a test of a cluster is given up, as machines too busy for Ray hang
STORE = 80 * 2**20  # bytes of the object store, the least that Ray takes


class Machines:
    """A cluster, joined, and the second of its machines."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Of Ray's own processes no more than it takes, and its workers no less important than they.
        for name in ("prestart_worker_first_driver", "enable_metrics_collection", "worker_niceness"):
            os.environ[f"RAY_{name}"] = "0"
        # Training waits so long for a machine of which nobody knows yet that it is lost.
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "20"
        head = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        self.cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=_machine() | head))
        self.second: Any = None
        self.complete()
        workers.join(self.cluster.address)

    def complete(self) -> None:
        """Gives it a second machine where it has lost it."""
        if self.second is None:
            self.second = _patiently(lambda: self.cluster.add_node(**_machine()))

    def lose(self) -> None:
        """Kills the second machine, with all that runs on it."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None

    def losing(self, each: Callable[..., Iterator[Any]], after: int) -> Callable[..., Iterator[Any]]:
        """`workers.each`, in the course of which the second machine is lost, after so many results."""

        def losing_each(*arguments: Any, **options: Any) -> Iterator[Any]:
            for number, result in enumerate(each(*arguments, **options), 1):
                yield result
                if number == after:
                    self.lose()

        return losing_each

    def stop(self) -> None:
        ray = pytest.importorskip("ray")
        with no_longer_than(60):
            ray.shutdown()
            self.cluster.shutdown()


def _patiently(start: Callable[[], Any]) -> Any:
    """Starts a machine; Ray gives its own processes 15 seconds, which a busy one may not have at once."""
    for last in (False, False, True):
        try:
            return start()
        except Exception as error:  # of no class of its own
            if last:
                pytest.skip(f"Ray does not start here: {error}")
    return None


def _machine() -> dict[str, int]:
    """One core and little memory; free ports, as Ray soon gives up waiting for those that it picks."""
    names = (
        "metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port"
    )  # fmt: skip
    sockets = [socket.socket() for _ in names]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return {"num_cpus": 1, "object_store_memory": STORE, **dict(zip(names, ports, strict=True))}


def needed() -> None:
    """Skips a test where Ray is not installed."""
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install -r requirements-cluster.txt")


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Skips a test that takes longer; without alarms, as on Windows, it may take as long as it will."""

    def late(number: int, frame: FrameType | None) -> None:
        pytest.skip(f"Ray took more than {seconds} s here")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

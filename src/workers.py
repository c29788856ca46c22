"""Where work on many photos is done: on this machine or, where a Ray cluster is joined, by its workers.

The stages ask `joined`, and hand what they do with one item to `each`. Nothing of Ray is imported before
`join` is asked for a cluster. Results are the same either way, so that `cached` need not know.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm.auto import tqdm

T = TypeVar("T")
R = TypeVar("R")

INSTALL = "pip install -r requirements-cluster.txt"
_SOURCE = Path(__file__).resolve().parent
_WORKER = "FACE_WORKER"  # environment variable that is set where a worker of the cluster runs
_joined = ""  # the cluster, in the words of `join`


def join(cluster: str) -> None:
    """Joins a Ray cluster, from here on used by the stages: "local" starts one here, "" leaves it again.

    cluster: else an address such as "head:6379", or "auto" (the one that runs on this machine). All its
    machines see the photos and the folder of results under the same paths, and have the project's
    requirements installed; the project's own code is sent to them.
    Raises RuntimeError, with the remedy, where Ray is not installed or no cluster answers.
    """
    global _joined
    if cluster == _joined:
        return
    if _joined:
        _ray().shutdown()
        _joined = ""
    if not cluster:
        return
    ray = _ray(cluster)
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # the stages have their own
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that starts here
    variables = {_WORKER: "1"} | {n: os.environ[n] for n in ("FACE_DEVICE",) if n in os.environ}
    options: dict[str, Any] = {
        "runtime_env": {"py_modules": [str(_SOURCE)], "env_vars": variables},
        "logging_level": "ERROR",
        "log_to_driver": False,
    }
    if cluster == "local":
        options |= {"num_cpus": cores(), "include_dashboard": False}
    else:
        options["address"] = cluster
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise RuntimeError(
            f'No Ray cluster answers at "{cluster}": start one with `ray start --head --port 6379`, give its '
            f'address, such as "10.0.0.1:6379", or set cluster to "local". ({str(error).splitlines()[0]})'
        ) from error
    _joined = cluster
    has, nodes = ray.cluster_resources(), sum(node["Alive"] for node in ray.nodes())
    print(
        f"Ray {ray.__version__}, {nodes} machine{'s' if nodes > 1 else ''}: {has.get('CPU', 0):g} cores, "
        f"{has.get('GPU', 0):g} GPUs"
    )


def joined() -> bool:
    """Whether the stages have a cluster to work on."""
    return bool(_joined)


def each(function: Callable[[T], R], items: Sequence[T], at_once: int = 1, gpu: bool = True) -> Iterator[R]:
    """`function(item)` of each item, in order, by the workers of the cluster, `at_once` of them at a time.

    function: travels to each worker once, and is unpacked there: what it takes long to load is loaded then. A
    worker has a core, and a GPU where the cluster has any and `gpu` says that it may. What a worker that is
    lost was working on is done again elsewhere.
    Raises what `function` raises.
    """
    if not items:
        return
    ray = _ray()
    from ray.data import ActorPoolStrategy, DataContext, from_items

    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0)) if gpu else 0
    most = max(1, gpus or int(has.get("CPU", 1)))
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    parts = [items[start : start + at_once] for start in range(0, len(items), at_once)]
    # Held by this process, not read by tasks: these would wait for the cores that the workers have.
    data = from_items([{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
    done = data.map_batches(
        _Worker,
        fn_constructor_args=(ray.cloudpickle.dumps(function),),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=min(most, len(parts))),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in done.iter_rows():
        results, error = pickle.loads(row["results"])
        yield from results
        if error is not None:
            raise error


def summed(function: Callable[..., Any], shared: tuple[Any, ...], count: int) -> Any:
    """`function(*shared, numbers)`, added up over the numbers below `count`, by the workers of the cluster.

    shared: is put into the memory of each machine once. The function gives a tuple of dicts of arrays. What a
    worker that is lost was working on is done again elsewhere.
    """
    ray = _ray()
    task = ray.remote(lambda shared, numbers: function(*shared, numbers)).options(num_cpus=1, max_retries=-1)
    reference = ray.put(shared)
    shares = min(count, 2 * max(1, int(ray.cluster_resources().get("CPU", 1))))
    waiting = [task.remote(reference, range(share, count, shares)) for share in range(shares)]
    total = None
    with tqdm(total=shares, desc="pairs", leave=False) as bar:
        while waiting:
            (done,), waiting = ray.wait(waiting)
            tables = ray.get(done)
            if total is None:
                total = tuple({key: array.copy() for key, array in part.items()} for part in tables)
            else:
                for part, more in zip(total, tables, strict=True):
                    for key, array in part.items():
                        array += more[key]
            bar.update()
    return total


class _Worker:
    """What runs in a process of the cluster."""

    def __init__(self, function: bytes) -> None:
        self.function = pickle.loads(function)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"results": [pickle.dumps(self._of(pickle.loads(part))) for part in batch["part"]]}

    def _of(self, items: Sequence[Any]) -> tuple[list[Any], Exception | None]:
        """Results as far as they go and, of what went wrong, the exception itself: Ray would wrap it."""
        results: list[Any] = []
        try:
            for item in items:
                results.append(self.function(item))
        except Exception as error:
            return results, error
        return results, None


def cores() -> int:
    """How many cores of this machine are there for this process; a worker of the cluster has one."""
    if _WORKER in os.environ:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Rows:
    """An array that travels to a worker as the name of its .npy file, where it is mapped onto a whole one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        file = getattr(self.array, "filename", None)
        if file is not None:
            whole = np.load(file, mmap_mode="r")
            if whole.shape == self.array.shape and whole.dtype == self.array.dtype:
                return _mapped, (str(Path(file).resolve()),)
        return Rows, (np.asarray(self.array),)


def _mapped(file: str) -> Rows:
    return Rows(np.load(file, mmap_mode="r"))


def _ray(cluster: str = "") -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RuntimeError(
            f'cluster is "{cluster}", but Ray is not installed ({error}): install it with `{INSTALL}`, here '
            'and on every machine of the cluster, or set cluster to ""'
        ) from error
    return ray

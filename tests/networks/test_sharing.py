import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from torch import nn

from src import workers
from src.networks import finetuning, network, sharing
from tests.networks.small import four_people, small_network

ROOT = Path(__file__).parents[2]
SETTINGS = finetuning.Settings(epochs=3, batch_size=9, per_identity=2, seed=3, warmup=0.0, bfloat16=False)
# What `torchrun` is given: the whole of it is what README.md tells.
SCRIPT = """
import sys
from pathlib import Path
from src.networks import finetuning, sharing
from tests.networks.small import four_people, small_network
from tests.networks.test_sharing import SETTINGS

with sharing.group():
    finetuning.train(small_network(), *four_people(), SETTINGS, workspace=Path(sys.argv[1]))
"""


def history_of(folder: Path) -> pd.DataFrame:
    record = json.loads((folder / network.RECORD_FILE).read_text(encoding="utf-8"))
    return pd.DataFrame(record["history"]).drop(columns="seconds")


def test_one_process_alone_shares_nothing():
    assert sharing.part(10) == slice(0, 10)
    assert sharing.first() and not sharing.several()
    assert sharing.mean(0.5, 0.25, 3) == (0.5, 0.25)
    layers = nn.Sequential(nn.BatchNorm2d(2))
    assert sharing.shared(layers)(lambda a, b: a + b, 1, 2) == 3
    assert type(layers[0]) is nn.BatchNorm2d


def test_two_processes_give_the_curve_of_one(tmp_path):
    """9 photos a batch: 4 and 5; batch norms see all of them."""
    (tmp_path / "tune.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, str(tmp_path / "tune.py"), str(tmp_path / "two")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FACE_DEVICE": "cpu"},
        check=True,
    )
    alone = finetuning.train(small_network(), *four_people(), SETTINGS, workspace=tmp_path / "one")
    one, two = history_of(alone), history_of(tmp_path / "two" / "artefact")
    np.testing.assert_allclose(two.to_numpy(float), one.to_numpy(float), atol=1e-4)


# ---------------------------------------------------------------- on a cluster


def test_what_is_wrong_is_said_as_without_a_cluster(machines, tmp_path):
    crops, faces = four_people()
    alone = faces[faces["identity"] == "ann"].reset_index(drop=True)
    with pytest.raises(ValueError, match=r'photos of at least 2 people in "train", and there are 1'):
        finetuning.train(small_network(), crops[:8], alone, SETTINGS, workspace=tmp_path)


def test_training_goes_on_from_its_last_epoch_where_a_machine_is_lost(machines, monkeypatch, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=20)
    state, epochs, over = tmp_path / "two" / "state.safetensors", [0], threading.Event()

    def watch():
        while not over.wait(0.1):
            if state.is_file():
                with safe_open(state, "pt") as file:
                    epochs.append(len(json.loads(file.metadata()["note"])))
                if epochs[-1] >= 3 and machines.second is not None:
                    machines.lose()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        folder = finetuning.train(small_network(), *four_people(), settings, workspace=tmp_path / "two")
    finally:
        over.set()
        watching.join()
    assert machines.second is None
    assert max(epochs) > 3 and epochs == sorted(epochs), "it never began anew"
    monkeypatch.setattr(workers, "_joined", "")
    alone = finetuning.train(small_network(), *four_people(), settings, workspace=tmp_path / "one")
    assert list(history_of(folder)["epoch"]) == list(range(1, 21))
    np.testing.assert_allclose(history_of(folder)["loss"], history_of(alone)["loss"], rtol=0.02)

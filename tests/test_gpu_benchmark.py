"""The script for the first GPU at hand runs, small, on the CPU, with torch alone as on a training machine."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import gpu

ROOT = Path(__file__).parents[1]


def test_without_insightface_the_half_that_needs_torch_is_measured(tmp_path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['insightface', 'onnx', 'onnx2torch']))"
    run = f"from benchmarks import gpu; gpu.main(['--quick', '--out', {str(tmp_path)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", f"{blocked}; {run}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "gpu.csv")
    trained = table[table["how"].str.startswith("training")]
    assert (trained["photos/s"] > 0).all() and len(trained) == 6
    assert (table["least cosine to the CPU"].dropna() > 0.999).all()
    assert "not measured: insightface, onnx not installed" in table["how"].iloc[-1]


@pytest.mark.filterwarnings("ignore")
def test_what_onnx_runtime_is_asked_for_is_in_the_table(tmp_path):
    crops = gpu.photos(60)
    detection, recognition, released = gpu.onnx_runtime(crops, gpu.QUICK, tmp_path, "")
    assert "1 x 3 x 160 x 160" in detection["shapes"] and "4 x 3 x 112 x 112" in recognition["shapes"]
    assert detection["photos/s"] > 0 and recognition["photos/s"] > 0
    assert released["how"] == "after release"

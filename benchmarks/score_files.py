"""Do Bob and pyeer find the report's AUC and EER in the score files that we write?

    python -m venv OTHER
    OTHER/bin/pip install bob.measure bob.bio.base pyeer "scikit-learn<1.6" "setuptools<81"
    python -m benchmarks.score_files processed_dataset --python OTHER/bin/python

The folder is that of a finished run: its report, faces and embeddings. All models that embed every photo are
written, and read by the other environment, which has nothing of this project.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from src.evaluation import score_files, verification

# What the other environment runs: the tools' own readers and measures.
READERS = """
import json, sys
import numpy as np
two, four, five, genuine, impostor = sys.argv[1:]
import bob.measure
from bob.bio.base.score import load
from pyeer.eer_info import get_eer_stats
found = {}
readers = {2: bob.measure.load.split, 4: load.split_four_column, 5: load.split_five_column}
for (columns, read), file in zip(readers.items(), (two, four, five)):
    negatives, positives = read(file)
    auc = bob.measure.roc_auc_score(negatives, positives, npoints=10_000, min_far=-5)
    found[f"Bob, {columns} columns"] = [auc, bob.measure.eer(negatives, positives)]
stats = get_eer_stats(np.loadtxt(genuine), np.loadtxt(impostor))
found["pyeer"] = [float(stats.auc), float(stats.eer)]
print(json.dumps({name: [float(value) for value in values] for name, values in found.items()}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processed", type=Path)
    parser.add_argument(
        "--python", required=True, help="an interpreter with bob.measure, bob.bio.base and pyeer"
    )
    parser.add_argument("--models", nargs="+", default=["*"], help="whose embeddings, as file names: *tuned")
    given = parser.parse_args()
    faces = pd.read_parquet(given.processed / "faces.parquet")
    rows = []
    folder = given.processed / "embeddings"
    for file in sorted({file for model in given.models for file in folder.glob(f"{model}.npy")}):
        embeddings = np.load(file)
        if not np.isfinite(embeddings).all():
            continue  # failures to enrol have no score
        for name, test in verification.test_sets(faces).items():
            report = verification.report(verification.evaluate({file.stem: embeddings}, {name: test}))
            ours = report[report["quality"] == "all"].iloc[0]
            with tempfile.TemporaryDirectory() as place:
                files = [
                    path
                    for form in score_files.FORMATS
                    for path in score_files.write(embeddings, test, Path(place), file.stem, form)
                ]
                done = subprocess.run(
                    [given.python, "-c", READERS, *map(str, files)],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            for tool, (auc, eer) in json.loads(done.stdout.splitlines()[-1]).items():
                rows.append((file.stem, name, tool, auc, auc - ours["auc"], eer, eer - ours["eer"]))
    columns = ["model", "test", "tool", "auc", "auc less ours", "eer", "eer less ours"]
    table = pd.DataFrame(rows, columns=columns)
    print(table.to_string(index=False, float_format="{:.6f}".format))
    auc, eer = (table[f"{measure} less ours"].abs().max() for measure in ("auc", "eer"))
    print(f"largest difference: AUC {auc:.1e}, EER {eer:.1e}")


if __name__ == "__main__":
    main()

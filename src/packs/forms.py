"""A pack's recogniser in the forms that Immich, Frigate and InsightFace-REST load.

Each feeds a model in its own way, read in its source and repeated by the tests:

- Immich takes the first input, RGB in [-1, 1], and fixes the axis called "batch" at the sizes it feeds;
- Frigate takes the input called "data", in [-1, 1], one image at a time, and hands BGR as it has it;
- InsightFace-REST feeds RGB in [-1, 1]; for TensorRT, it takes what has an input called "input" for ArcFace.
"""

from pathlib import Path

import onnx

from src import artifacts
from src.limits import NotPossible
from src.packs import graphs

DIMENSION = 512  # numbers of an embedding, in Immich's database and in most that stand behind the others
NAMES = ("antelopev2", "buffalo_s", "buffalo_m", "buffalo_l")  # of models that Immich can be told to use
FORMS = ("immich", "frigate", "insightface-rest")


def write(form: str, recogniser_file: Path, folder: Path, name: str = "buffalo_l") -> Path:
    """Writes a pack's recogniser as one of FORMS below `folder`, where that program looks; returns the file.

    recogniser_file: ONNX, RGB [B, 3, 112, 112] in [-1, 1] -> [B, D]. folder: the program's folder of models
    (see the README). name: the model that Immich is set to, whose recogniser the file is to replace. Rows of
    less than DIMENSION numbers are padded with zeros, which changes no cosine.

    Raises ValueError for a form or a name that is not known, NotPossible where rows have more numbers than
    Immich's database takes, OSError where the disk is full.
    """
    if form not in FORMS:
        raise ValueError(f"There is no form {form!r}; give one of {', '.join(FORMS)}.")
    if form == "immich" and name not in NAMES:
        raise ValueError(f"Immich knows no model {name!r}; give the one it is set to: {', '.join(NAMES)}.")
    model = onnx.load(str(recogniser_file))
    numbers = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if form == "immich" and numbers > DIMENSION:
        raise NotPossible(
            f"Immich's database holds embeddings of {DIMENSION} numbers, and this model gives {numbers}: "
            "export a network without a map, such as the fine-tuned one"
        )
    graphs.padded(model, DIMENSION)
    if form == "frigate":
        graphs.from_bgr(graphs.renamed_input(model, "data"))
    places = {
        "immich": f"facial-recognition/{name}/recognition/model.onnx",
        "frigate": "facedet/arcface.onnx",
        "insightface-rest": "onnx/custom_rec_model/custom_rec_model.onnx",
    }
    file = Path(folder) / places[form]
    with artifacts.room_for(file.name, file.parent), artifacts.whole(file) as draft:
        onnx.save(model, str(draft))
    return file

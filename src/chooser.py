"""A photo to be chosen by hand, as a file or by its path, and who is on it."""

import html
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import ipywidgets
from PIL.Image import Image

from src import identify
from src.identify import Gallery, Tool


def choose(tool: Tool, known: Gallery) -> ipywidgets.VBox:
    """A button that takes a photo, a field for its path, and below them the answer. Needs a live notebook."""
    upload = ipywidgets.FileUpload(description="choose a photo", multiple=False)
    path = ipywidgets.Text(
        placeholder="or the path of a photo, and Enter",
        continuous_update=False,
        layout=ipywidgets.Layout(width="480px"),
    )
    words = ipywidgets.HTML()
    image = ipywidgets.Image(format="png")

    def uploaded(_: Any) -> None:
        for given in upload.value:
            with tempfile.TemporaryDirectory() as folder:
                photo = Path(folder) / Path(given["name"]).name
                photo.write_bytes(given["content"])
                words.value, image.value = answer(photo, tool, known)

    def typed(_: Any) -> None:
        if path.value.strip():
            words.value, image.value = answer(Path(path.value.strip()), tool, known)

    upload.observe(uploaded, names="value")
    path.observe(typed, names="value")
    return ipywidgets.VBox([ipywidgets.HBox([upload, path]), words, image])


def answer(photo: Path, tool: Tool, known: Gallery) -> tuple[str, bytes]:
    """Who is on a photo: as HTML, and as a PNG; or why it can't be told, and an empty picture."""
    try:
        found = identify.ask(photo, tool, known)
        drawn = identify.shown(photo, found)
    except (OSError, ValueError) as error:
        return html.escape(str(error), quote=False), b""
    said = identify.in_words(found, tool, known).replace("**", "")
    assert isinstance(drawn, Image)
    picture = BytesIO()
    drawn.save(picture, "PNG")
    return html.escape(said, quote=False).replace("\n", "<br>"), picture.getvalue()

"""A chosen photo, uploaded or named, gets the answer that `identify` gives."""

from datetime import datetime, timezone
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src import chooser, identify
from src.demo.mode import PACK
from src.packs import pack as packs
from tests.test_identify import portrait, save


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    tool = identify.Tool(packs.load(PACK), 0.7, "a test", 0)
    place = tmp_path_factory.mktemp("place")
    for seed in (1, 2):
        save(portrait(seed), place / "known" / f"Person {seed}" / "0.png")
    return tool, identify.gallery(place / "known", tool, place / "kept"), place


def test_an_uploaded_photo_is_answered(given):
    tool, known, place = given
    box: Any = chooser.choose(tool, known)
    (upload, path), (_, words, image) = box.children[0].children, box.children
    assert words.value == "" and image.value == b""
    file = save(portrait(2), place / "two.png")
    content = {"name": "../two.png", "type": "image/png", "size": 1, "content": file.read_bytes()}
    upload.value = ({**content, "last_modified": datetime.now(timezone.utc)},)
    assert words.value.startswith("- Person 2 (") and "<br>" in words.value
    assert Image.open(BytesIO(image.value)).size == (480, 480)
    path.value = str(place / "gone.png")
    assert words.value.startswith("there is no photo") and image.value == b""
    path.value = str(save(np.full((100, 120, 3), 128, np.uint8), place / "wall.png"))
    assert words.value == "No face was found in this photo: nobody can be told."


def test_names_from_files_are_shown_as_they_are_and_not_run(given):
    tool, known, place = given
    odd = known._replace(people=("<b>One</b>", "<b>Two</b>"))
    words, _ = chooser.answer(save(portrait(2), place / "two.png"), tool, odd)
    assert "&lt;b&gt;Two&lt;/b&gt;" in words and "<b>" not in words
    (place / "text.jpg").write_text("hello", encoding="utf-8")
    words, picture = chooser.answer(place / "text.jpg", tool, known)
    assert "can't be read as a photo" in words and picture == b""

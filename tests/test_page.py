"""The page: the verdict first, nothing fetched, no faces where none are wanted."""

import re
from urllib.parse import unquote

from nbformat import v4

from src import page


def cell(text, tags=(), output="", name="cell"):
    made = v4.new_code_cell(text, id=name, metadata={"tags": list(tags)})
    made.outputs = [v4.new_output("stream", text=output)] if output else []
    return made


def notebook():
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# Title", id="title"),
            v4.new_markdown_cell("## 1 · Images\nwords", id="images-title"),
            cell("show()", ["faces"], "one portrait", "faces"),
            cell("count()", (), "42 photos", "count"),
            v4.new_markdown_cell("## 9 · Verdict", id="verdict-title", metadata={"tags": ["verdict"]}),
            cell("answer()", ["verdict"], "Fine-tuning helped", "verdict"),
        ]
    )


def test_the_verdict_comes_first_and_the_contents_lead_to_every_stage():
    text = page.as_html(notebook(), "A & B")
    places = [text.index(part) for part in ("Fine-tuning helped", ">Contents<", "one portrait", "42 photos")]
    assert places == sorted(places)
    assert "<title>A &amp; B</title>" in text
    anchors = re.findall(r'<a href="#([^"]+)">\d', text)
    ids = re.findall(r'<h2[^>]*id="([^"]+)"', text)
    assert len(anchors) == 2 and {unquote(anchor) for anchor in anchors} <= {unquote(name) for name in ids}


def test_the_page_needs_no_network_and_hides_the_code():
    text = page.as_html(notebook(), "page")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text)
    assert "toggle('with-code')" in text and "count()" in re.sub(r"<[^>]+>", "", text)


def test_faces_can_be_left_out_and_the_notebook_stays_as_it_was():
    given = notebook()
    kept = page.without_faces(given)
    assert "one portrait" not in page.as_html(kept, "page") and "42 photos" in page.as_html(kept, "page")
    assert given.cells[2].outputs and [c.id for c in given.cells] == [c.id for c in kept.cells]

"""The executed notebook as one HTML page to hand on: the verdict first, the code behind a button."""

import copy
import html
import re
from urllib.parse import quote

from nbconvert import HTMLExporter
from nbformat import NotebookNode, v4

VERDICT, FACES = "verdict", "faces"  # tags of cells: what comes first, and what shows people
_HIDDEN = """
<style>
body:not(.with-code) .jp-CodeCell > .jp-Cell-inputWrapper { display: none; }
.jp-InputPrompt, .jp-OutputPrompt { display: none; }
#code { position: fixed; top: 12px; right: 16px; z-index: 9; padding: 6px 12px; cursor: pointer; }
@media print { #code { display: none; } }
main { max-width: 1180px; margin: 0 auto; }
</style>
<button id="code" onclick="document.body.classList.toggle('with-code')">code</button>
"""


def without_faces(notebook: NotebookNode) -> NotebookNode:
    """A copy in which cells with the tag "faces" have lost their outputs."""
    kept = copy.deepcopy(notebook)
    for cell in kept.cells:
        if cell.cell_type == "code" and FACES in cell.metadata.get("tags", []):
            cell.outputs = []
    return kept


def ordered(notebook: NotebookNode) -> NotebookNode:
    """A copy whose verdict stands below the title, then a list of contents, then the rest in its order."""
    kept = copy.deepcopy(notebook)
    first = [cell for cell in kept.cells if VERDICT in cell.metadata.get("tags", [])]
    rest = [cell for cell in kept.cells if VERDICT not in cell.metadata.get("tags", [])]
    entries = [
        f"{'  ' * (len(marks) - 2)}- [{text}](#{quote(text.replace(' ', '-'))})"
        for cell in first + rest
        if cell.cell_type == "markdown"
        for marks, text in re.findall(r"^(##+) (.+)$", cell.source, re.MULTILINE)
    ]
    contents = v4.new_markdown_cell("\n".join(("**Contents**", "", *entries)), id="contents")
    kept.cells = [*rest[:1], *first, contents, *rest[1:]]
    return kept


def as_html(notebook: NotebookNode, title: str) -> str:
    """The page: one file that needs no network. Code is hidden until its button is pressed."""
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    page, _ = exporter.from_notebook_node(ordered(notebook))
    page = re.sub(r"<script[^>]*\bsrc=[^>]*>\s*</script>", "", page)  # nothing is fetched
    page = re.sub(
        r"<title>.*?</title>", f"<title>{html.escape(title)}</title>", page, count=1, flags=re.DOTALL
    )
    head, body, tail = page.rpartition("</body>")
    return head + _HIDDEN + body + tail

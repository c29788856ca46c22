"""The notebook in Jupyter Lab, driven in a headless Chromium as a person would.

Skipped, saying so, where there is no Chromium with its driver (Debian: chromium-driver).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from src import __main__ as runner
from src.demo import album, mode

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no Chromium with chromedriver here (Debian: apt install chromium-driver)",
)
WAIT = 900  # seconds that a run of all cells may take on a busy machine

# What the page is asked, through JupyterLab's own application object.
_STATE = """
const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
if (!panel || !panel.content || !panel.content.model || !panel.context.isReady) return null;
const session = panel.context.sessionContext.session;
const kernel = session && session.kernel;
const cells = panel.content.model.toJSON().cells.filter(cell => cell.cell_type === 'code');
return JSON.stringify({status: kernel ? kernel.status : 'none', cells: cells.map(cell => ({
  id: cell.id, count: cell.execution_count,
  errors: cell.outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue),
  images: cell.outputs.filter(o => o.data && o.data['image/png']).length,
  text: cell.outputs.map(o => o.text || (o.data || {})['text/markdown'] || '').flat().join('')}))});
"""


class Lab:
    """One notebook, open in Jupyter Lab."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        driver.get(url)
        self.until(lambda state: state["status"] == "idle", 120)

    def state(self) -> dict[str, Any] | None:
        text = self.driver.execute_script(_STATE)
        return json.loads(text) if text else None

    def until(self, right: Any, seconds: float = WAIT) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.state()
            if state and right(state):
                return state
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {self.state()}")

    def do(self, command: str) -> None:
        """Starts a command of JupyterLab, without waiting for its end."""
        self.driver.execute_script("window.jupyterapp.commands.execute(arguments[0]); return null;", command)

    def run_all(self, seconds: float = WAIT) -> dict[str, Any]:
        self.do("notebook:clear-all-cell-outputs")
        self.until(lambda state: all(cell["count"] is None for cell in state["cells"]), 30)
        self.do("notebook:run-all-cells")
        return self.finished(seconds)

    def finished(self, seconds: float = WAIT) -> dict[str, Any]:
        def right(state: dict[str, Any]) -> bool:
            ran = all(cell["count"] is not None for cell in state["cells"])
            return state["status"] == "idle" and (ran or any(cell["errors"] for cell in state["cells"]))

        return self.until(right, seconds)

    def write(self, cell: str, old: str, new: str) -> None:
        """Types into a cell."""
        done = self.driver.execute_script(
            """
            const widgets = window.jupyterapp.shell.currentWidget.content.widgets;
            const model = widgets.find(w => w.model.id === arguments[0]).model.sharedModel;
            const text = model.getSource();
            model.setSource(text.replace(arguments[1], arguments[2]));
            return text.includes(arguments[1]);
            """,
            cell,
            old,
            new,
        )
        assert done, f"{old!r} is not in the cell {cell}"

    def show(self, cell: str, file: Path) -> None:
        """A picture of the screen with this cell at its top."""
        self.driver.execute_script(
            """
            const notebook = window.jupyterapp.shell.currentWidget.content;
            const at = notebook.widgets.findIndex(w => w.model.id === arguments[0]);
            notebook.activeCellIndex = at;
            notebook.scrollToItem(at, 'start');
            """,
            cell,
        )
        time.sleep(2)
        self.driver.save_screenshot(str(file))

    def restart(self) -> None:
        """A fresh kernel, without asking."""
        session = "window.jupyterapp.shell.currentWidget.context.sessionContext.session"
        self.driver.execute_script(f"{session}.kernel.restart(); return null;")
        time.sleep(2)
        self.until(lambda state: state["status"] == "idle", 120)


def errors(state: dict[str, Any]) -> list[str]:
    return [error for cell in state["cells"] for error in cell["errors"]]


def text(state: dict[str, Any]) -> str:
    return "".join(cell["text"] for cell in state["cells"])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The notebook with a small set of photos in its parameters, and the modules beside it."""
    root = tmp_path_factory.mktemp("lab")
    photos = album.make(root / "photos", people=8, high=4, low=5)
    (root / "src").symlink_to(runner.NOTEBOOK.parent / "src", target_is_directory=True)
    notebook = nbformat.read(runner.NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == "parameters")
    small = {"epochs": 6, "pack_epochs": 1, "batch_size": 16, "unseen_share": 0.0}
    words = {
        "dataset": str(photos),
        "processed": str(root / "out"),
        "pack": str(mode.PACK),
        "weights": "none",
    }
    lines = [f"{name} = {value!r}" for name, value in {**words, **small}.items()]
    cell.source += "\n" + "\n".join(lines)
    nbformat.write(notebook, root / runner.NOTEBOOK.name)
    return root


@pytest.fixture(scope="module")
def server(project) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--expose-app-in-browser"]
    options += ["--ServerApp.port_retries=0", "--IdentityProvider.token=test", "--LabApp.news_url="]
    command = [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={project}"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(project / "config")}
    with (project / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with socket.socket() as knock:
                    if knock.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/lab/tree/{runner.NOTEBOOK.name}?token=test&reset"
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def lab(server) -> Iterator[Lab]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for word in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1366,768",
    ):
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(60)
    try:
        yield Lab(driver, server)
    finally:
        driver.quit()


def test_the_notebook_runs_is_interrupted_resumes_and_reruns_in_lab(lab, project, request):
    shots = Path(os.environ.get("FACE_SCREENSHOTS", project))
    lab.show("parameters", shots / "first.png")

    # Interrupted in the middle of training, it resumes; nothing ends in more than a sentence.
    lab.do("notebook:run-all-cells")
    checkpoints = project / "out" / "checkpoints"
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and not list(checkpoints.glob("*ResNet-50*/**/*.safetensors")):
        assert not errors(lab.state() or {"cells": []})
        time.sleep(0.2)
    lab.do("notebook:interrupt-kernel")
    stopped = lab.until(lambda state: errors(state) or all(cell["count"] for cell in state["cells"]))
    assert all("KeyboardInterrupt" in error for error in errors(stopped))
    state = lab.run_all()
    assert not errors(state)
    assert sum(cell["images"] for cell in state["cells"]) >= 12
    assert "Recommended" in text(state)
    for cell in ("learning", "scores", "verdict", "headline"):
        lab.show({"learning": "resnet"}.get(cell, cell), shots / f"{cell}.png")

    # A parameter changed: only what follows is computed; then a fresh kernel: nothing is.
    lab.write("parameters", "target_far = 0.01", "target_far = 0.05")
    state = lab.run_all()
    assert not errors(state) and "computed thresholds.csv" in text(state)
    assert "computed ResNet-50" not in text(state) and "computed clean" not in text(state)
    lab.restart()
    start = time.monotonic()
    state = lab.run_all()
    assert not errors(state) and "computed" not in text(state) and "inputs unchanged" in text(state)
    assert time.monotonic() - start < 240

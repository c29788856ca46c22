"""Run the notebook from a shell: `python -m src epochs=5 dataset=path/to/images`; use what it has made.

`python -m src identify photo.jpg` says who is on a photo, `python -m src convert immich` writes the model for
another program. The executed notebook and its HTML land in the `processed` folder; the verdict is printed
at the end.
"""

import ast
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from papermill.exceptions import PapermillExecutionError

from src import identify, page, repeats, take_home
from src.artifacts import room_for
from src.evaluation import answer

WIDGET = "application/vnd.jupyter.widget-view+json"
NOTEBOOK = Path(__file__).parents[1] / "Face_Recognition_Project.ipynb"
COMMANDS = {"identify": identify.main, "convert": take_home.main}


def parse(arguments: list[str]) -> dict[str, Any]:
    """Notebook parameters from `name=value` words, each with the type of its default in the notebook.

    Raises ValueError, naming the word, for an unknown name or a value of the wrong type.
    """
    defaults = {
        name: ast.literal_eval(entry["default"])
        for name, entry in papermill.inspect_notebook(str(NOTEBOOK)).items()
    }
    parameters: dict[str, Any] = {}
    for word in arguments:
        name, equals, text = word.partition("=")
        if not equals or name not in defaults:
            raise ValueError(f"{word!r} is not name=value with a name among: {', '.join(defaults)}.")
        parameters[name] = _value(name, text, defaults[name])
    return {**defaults, **parameters}


def _value(name: str, text: str, default: str | bool | float) -> str | bool | float:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}={text} is neither True nor False.")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError:
        raise ValueError(
            f"{name}={text} is not a {type(default).__name__}: give a value like {default}."
        ) from None


def repetitions(words: list[str]) -> tuple[int, list[str]]:
    """How often the notebook is to run, of `repeats=3` among the words, and the other words.

    Raises ValueError where that is no number from 1 on.
    """
    given = [word for word in words if word.startswith("repeats=")]
    if not given:
        return 1, words
    times = given[-1].partition("=")[2]
    if not times.isdecimal() or int(times) < 1:
        raise ValueError(f"{given[-1]}: give how many seeds the notebook is to run with, such as repeats=3.")
    return int(times), [word for word in words if word not in given]


def from_here(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with paths made absolute, as the notebook runs in the project's folder, not in this one.

    A name, such as that of a pack, becomes a path only where there is something of that name here.
    """
    paths = {"processed": Path(parameters["processed"]).expanduser()}
    for name in ("dataset", "pack", "weights", "photo"):
        path = Path(parameters[name]).expanduser()
        if path.exists() and parameters[name] not in ("", "imagenet", "none"):
            paths[name] = path
    return {**parameters, **{name: str(path.absolute()) for name, path in paths.items()}}


def run(parameters: dict[str, Any]) -> Path:
    """Executes the notebook with `parameters`; returns the executed copy, with an HTML page beside it.

    Both are written even if a stage fails; then RuntimeError carries the one sentence that stage ended with.
    """
    folder = Path(parameters["processed"])
    with room_for("The executed notebook", folder):
        folder.mkdir(parents=True, exist_ok=True)
    executed = folder / NOTEBOOK.name
    failure = None
    try:
        papermill.execute_notebook(NOTEBOOK, executed, parameters, kernel_name="python3", cwd=NOTEBOOK.parent)
    except PapermillExecutionError as error:
        failure = f"{error.ename}: {error.evalue}"
    notebook = nbformat.read(executed, as_version=4)
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
    for cell in notebook.cells:  # progress bars say nothing once the work is done
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    if not parameters.get("faces_in_report", True):
        notebook = page.without_faces(notebook)
    nbformat.write(notebook, executed)
    text = page.as_html(notebook, NOTEBOOK.stem.replace("_", " "))
    executed.with_suffix(".html").write_text(text, encoding="utf-8")
    if failure:
        raise RuntimeError(f"{failure}\nThe notebook as far as it came: {executed}")
    return executed


def main() -> int:
    try:
        if command := COMMANDS.get("".join(sys.argv[1:2])):
            command(sys.argv[2:])
            return 0
        times, words = repetitions(sys.argv[1:])
        parameters = from_here(parse(words))
        said = ""
        if times == 1:
            run(parameters)
        else:
            said = repeats.run(run, parameters, times)
    except (ValueError, RuntimeError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted. What was finished is kept: the same command goes on from there.", file=sys.stderr
        )
        return 130
    executed = Path(parameters["processed"]) / NOTEBOOK.name
    text = (executed.parent / answer.FILE).read_text(encoding="utf-8")
    print(f"\n{answer.for_terminal(text)}\n{said}\n")
    print(f"Report   {executed.parent / 'report.csv'}\nFigures  {executed.parent / 'figures'}")
    print(f"Notebook {executed}\nPage     {executed.with_suffix('.html')}")
    if (pack := executed.parent / "pack").is_dir():
        print(f"Pack     {pack}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The notebooks run from the first cell to the last, and show figures."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def execute(name: str, folder: Path) -> NotebookNode:
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def texts(notebook: NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("data", {}).get("text/plain", "") for output in outputs)


def figures(notebook: NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_a_folder_is_segmented_and_displayed(tmp_path: Path) -> None:
    done = execute("label_a_folder", tmp_path)
    assert figures(done) == 6
    assert "(4, {'ok': 4})" in texts(done)
    assert "Segmentation(128 x 128 pixels" in texts(done)


@pytest.mark.slow
def test_a_custom_loop_trains_on_the_shards(tmp_path: Path) -> None:
    done = execute("train_on_shards", tmp_path)
    assert figures(done) == 1
    first, last = (float(part) for part in texts(done).partition("loss ")[2].partition("'")[0].split(" -> "))
    assert last < first / 2


def test_notebooks_have_no_outputs() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path

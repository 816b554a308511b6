"""The notebook holds no outputs, and runs from its first cell to its last on a tiny project."""

import json

import pytest

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "notebooks/default.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.matrix
@pytest.mark.story
def test_the_notebook_runs_to_its_end(project, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    # The environment is the one that runs this test.
    (project / "Makefile").write_text("setup:\n\t@true\n", encoding="utf-8")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("lora.r=8", "lora.r=2").replace("r8", "r2").replace("tokens 64", "tokens 4")
    ran = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(project)}}).execute()
    printed = [json.dumps(cell.get("outputs", []), ensure_ascii=False) for cell in ran.cells]
    assert "rouge_l" in printed[5]
    assert "report.html" in printed[6]
    assert "rror" not in printed[3] + printed[10]
    assert "HEAD" in printed[10]

"""Every lesson with an explorer, as its reader has it: run all cells in JupyterLab, then move a control by keyboard.

What an explorer must say after the move is worked out here, by other means than its own.
"""

import math
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser tests need playwright: pip install playwright")

from lab import Explorer, browser_page, chromium, run_all, server

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium; Debian and Ubuntu: apt install chromium"),
]


def loss_explorer(explorer: Explorer) -> None:
    explorer.expect("prediction 0.1192, target 1.00")
    explorer.press("logit", "ArrowRight", "ArrowRight")  # from -2 to -1
    p = 1 / (1 + math.exp(1))
    explorer.expect(f"prediction {p:.4f}, target 1.00")
    assert f"{(1 - p) ** 2:.4f}" in explorer.words() and f"{-math.log(p):.4f}" in explorer.words()
    explorer.press("logit", "Home")  # to -100: MSE has no gradient left, cross-entropy has all of it
    explorer.expect("100.0000")
    assert "-1.00e+00" in explorer.words() and "-0.00e+00" in explorer.words()


LESSONS = {"03_losses": [loss_explorer]}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on copies of the lessons, so that nothing is saved over them."""
    root = tmp_path_factory.mktemp("notebooks")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, root)
    with server(root, tmp_path_factory.mktemp("scratch")) as port:
        yield port


@pytest.mark.parametrize("lesson", LESSONS)
def test_explorers_in_their_lesson(lab, lesson):
    with browser_page() as page:
        run_all(page, lab, f"{lesson}.ipynb")
        errors = page.locator(".jp-RenderedText[data-mime-type$='.error'], .jp-RenderedText[data-mime-type$='.stderr']")
        assert errors.all_inner_texts() == []
        for check in LESSONS[lesson]:
            explorer = Explorer(page, check.__name__)
            before = explorer.picture()
            check(explorer)
            assert explorer.picture() != before
            assert explorer.place.locator("[role=alert]").count() == 0
        assert [text for text in page.complaints if "favicon" not in text] == []

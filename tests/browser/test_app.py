"""`make app`: a page with the prompt studio and no code, which only those who have the token see."""

import re
import shlex
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser tests need playwright: pip install playwright")
pytest.importorskip("voila")

from lab import TOKEN, Explorer, browser_page, chromium, server

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium; Debian and Ubuntu: apt install chromium"),
]


def command() -> list[str]:
    """What `make app` runs after `python -m`, but with a token that is known and without opening a browser."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    options = re.search(r"^VOILA := (.*)", makefile, flags=re.M)[1]
    (line,) = re.findall(r"\$\(PY\) -m (voila .*)", makefile)
    words = shlex.split(line.replace("$(VOILA)", options))
    assert "--Voila.ip=127.0.0.1" in words and "--Voila.auto_token=True" in words
    return [word for word in words if "auto_token" not in word] + ["--no-browser", f"--Voila.token={TOKEN}"]


def test_the_app_draws_what_is_typed_and_lets_nobody_in_without_the_token(tmp_path):
    with server(ROOT, tmp_path, *command()) as port, browser_page() as page:
        refused = urllib.request.urlopen(f"http://127.0.0.1:{port}/")
        assert "/login" in refused.geturl()  # asked for the token
        page.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
        explorer = Explorer(page, "prompt_studio")
        explorer.expect("color orange ✓ 4 of 4")
        assert page.locator(".jp-CodeMirrorEditor:visible, .jp-InputArea-editor:visible").count() == 0
        assert "prompt_studio" not in page.locator("body").inner_text()
        explorer.press("prompt", "Control+A", *"a large green star at the center on gray", "Enter")
        explorer.expect("color green ✓ 4 of 4, shape star ✓ 4 of 4")
        assert explorer.place.locator("[role=alert]").count() == 0
        fonts = "net::ERR"  # icons that Voila's own template asks a server for; without a network there are none
        assert [text for text in page.complaints if "favicon" not in text and fonts not in text] == []

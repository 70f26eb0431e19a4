"""JupyterLab on this machine alone, behind a token, and a page of Chromium that looks at it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

TOKEN = "words-to-pixels"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
QUIET = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is on the page, seen or not
}
ALL_RUN = """() => { const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
  .filter(cell => cell.querySelector('.jp-InputArea-editor').innerText.trim())
  .map(cell => cell.querySelector('.jp-InputArea-prompt').textContent.trim());
  return document.querySelector(".jp-RenderedText[data-mime-type$='.error']") !== null ||
    (prompts.length > 0 && prompts.every(text => /^\\[\\d+\\]:$/.test(text))); }"""  # an error ends the run
MINUTES_FOR_A_LESSON = 8  # on a machine that is busy with other things


def chromium() -> str | None:
    """Where the browser is, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def server(root: Path, scratch: Path, *command: str) -> Iterator[int]:
    """A Jupyter server, JupyterLab unless another command is given, on a folder; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in QUIET.items():
        path = scratch / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    folders = {f"JUPYTER_{kind}_DIR": str(scratch / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "ws")}
    folders["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    command = command or (
        "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}", "--ServerApp.port_retries=0",
    )  # fmt: skip
    with (scratch / "server.log").open("w") as log:
        pipes = {"stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(
            [sys.executable, "-m", *command, f"--port={port}"], cwd=root, env=os.environ | folders, **pipes
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/", process, scratch / "server.log")
        yield port
    finally:
        for _ in range(2):  # the first one asks, the second is the answer
            process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Until someone answers there; whoever answers with an error has answered."""
    for _ in range(480):
        try:
            urllib.request.urlopen(address, timeout=2).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.25)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def browser_page(width: int = 1100, height: int = 1200) -> Iterator[Any]:
    """A page of headless Chromium; `page.complaints` collects what its console says is an error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(120_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        yield page
        browser.close()


def run_all(page: Any, port: int, name: str) -> None:
    """Open a notebook of the server's folder and run all its cells."""
    page.goto(f"http://127.0.0.1:{port}/doc/tree/{name}?token={TOKEN}&reset")
    page.locator(".jp-Notebook").wait_for()
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()  # else the command is lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RUN, timeout=MINUTES_FOR_A_LESSON * 60_000)


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook with these code cells."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    cells = [new_code_cell(cell) for cell in cells]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


class Explorer:
    """An explorer on the page, moved as a reader without a mouse does.

    Args:
        page: on which the lesson has run.
        name: of the function in `course_lib.widgets`.
    """

    def __init__(self, page: Any, name: str):
        self.page, self.place = page, page.locator(f".course-{name.replace('_', '-')}").first
        self.place.wait_for()
        self.place.scroll_into_view_if_needed()

    def control(self, label: str) -> Any:
        """The row of a labelled control, or a button by what stands on it."""
        return self.place.locator(".widget-inline-hbox", has=self.page.locator(f".widget-label:text-is('{label}')"))

    def press(self, label: str, *keys: str) -> None:
        """Put the focus on a labelled control and press keys."""
        handle = self.control(label).locator(".noUi-handle, select, input, textarea").first
        handle.focus()
        for key in keys:
            handle.press(key)

    def push(self, text: str) -> None:
        """A button, by keyboard."""
        button = self.place.get_by_role("button", name=text, exact=True)
        button.focus()
        button.press("Enter")

    def words(self) -> str:
        """What stands below the picture."""
        return self.place.locator("[role=status]").first.inner_text()

    def picture(self) -> str:
        """The picture, as the page holds it."""
        return self.place.locator("img").first.get_attribute("src")

    def expect(self, text: str | re.Pattern, seconds: float = 60) -> None:
        """Wait until the words below the picture hold this text, or match this pattern."""
        status = self.place.locator("[role=status]", has_text=text).first
        status.wait_for(timeout=seconds * 1000)

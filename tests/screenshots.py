"""`make screenshots`: each explorer as it opens, in JupyterLab, as docs/widgets/NAME.png.

    python tests/screenshots.py                     all
    python tests/screenshots.py loss-explorer ...   these

The lessons show these pictures where no kernel runs.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "browser"))

from lab import Explorer, browser_page, run_all, server, write_notebook  # noqa: E402

from course_lib.widgets import __all__ as EXPLORERS  # noqa: E402
from course_lib.widgets.base import PICTURES  # noqa: E402

MOST_BYTES = 150_000  # one that is larger keeps 256 colours


def wait_until_quiet(page: Any, explorer: Explorer, seconds: int = 60) -> None:
    """Until an explorer that works on in the background says the same for three seconds; one that never does is cut."""
    before, quiet = "", 0
    for _ in range(seconds):
        page.wait_for_timeout(1000)
        now = explorer.words()
        before, quiet = now, quiet + 1 if now == before else 0
        if quiet == 3:
            return


def main() -> int:
    """Photograph what was asked for; 1 if one shows an error."""
    chosen = [name.replace("-", "_") for name in sys.argv[1:]] or list(EXPLORERS)
    PICTURES.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        root, scratch = Path(folder, "root"), Path(folder, "scratch")
        root.mkdir()
        scratch.mkdir()
        for name in chosen:
            write_notebook(root / f"{name}.ipynb", f"from course_lib.widgets import {name}\n\n{name}()")
        with server(root, scratch) as port, browser_page(1000, 1400) as page:
            for name in chosen:
                run_all(page, port, f"{name}.ipynb")
                explorer = Explorer(page, name)
                explorer.place.locator("img").first.wait_for()
                wait_until_quiet(page, explorer)
                path = PICTURES / f"{name.replace('_', '-')}.png"
                explorer.place.screenshot(path=path)
                if path.stat().st_size > MOST_BYTES:
                    with Image.open(path) as picture:
                        few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=5)
                    few.save(path, optimize=True)
                if alarm := explorer.place.locator("[role=alert]").all_inner_texts():
                    failed.append(name)
                    print(f"{name}: {alarm}", file=sys.stderr)
                print(path, flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

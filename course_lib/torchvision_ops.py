"""A cure for one broken pair of packages: torch without CUDA beside a torchvision that was built for CUDA.

pip can install that pair on Linux. Then `import torchvision` stops with "operator torchvision::nms does not exist",
and `transformers` stops with it. Call `ensure_torchvision_ops()` before either is imported. No chapter builds this
module; every chapter may use it.
"""

import importlib.util
from pathlib import Path

import torch

# The two operators that torchvision names while it is being imported; nothing in the course calls them.
_SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_kept_alive: list[torch.library.Library] = []  # torch forgets the operators as soon as their library is collected


def ensure_torchvision_ops() -> bool:
    """Make `import torchvision` possible where its compiled operators cannot be loaded.

    Nothing is done when torch has CUDA, when torchvision is absent or when its own operators load.

    Returns:
        True if this call declared stand-ins; then everything works but `torchvision.ops.nms` and `torchvision.io`.
    """
    if torch.version.cuda is not None or _has_operators() or _load_operators():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept_alive.append(library)
    return True


def _has_operators() -> bool:
    return hasattr(torch.ops.torchvision, "nms")


def _load_operators() -> bool:
    """True if there is nothing to cure: torchvision is absent, or its compiled operators load as it would load them."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return True
    for library in Path(package.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False

"""Words to Pixels: a text-to-image GAN, built chapter by chapter.

Chapter N of the course builds module N of this package, and a module imports only modules of earlier chapters,
so the contents page of the course is the contents page of the library. Nothing heavy is imported until it is used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_lib.text_to_image import TextToImage

__all__ = ["TextToImage", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "TextToImage":  # lazily, so that `import course_lib` does not wait for torch
        from course_lib.text_to_image import TextToImage

        return TextToImage
    raise AttributeError(f"module 'course_lib' has no attribute {name!r}")

"""The interface that the data sets of the course share. Built in chapter 02."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from course_lib.data.captions import LANGUAGES


class CaptionedPictures(Dataset):
    """A data set that draws or keeps many pictures at once: `dataset[i]` is (image, caption).

    A subclass has `language`, `seed`, `__len__`, `images(indices)` and `caption(index)`.
    """

    def same_picture(self) -> Sequence[int]:
        """For each index the first one that shows the same picture; here each shows its own."""
        return range(len(self))

    def distinct(self) -> list[int]:
        """One index for each picture, the first that shows it."""
        return sorted(set(self.same_picture()))

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        index = range(len(self))[index]  # negative indices, IndexError past the end
        return self.images([index])[0], self.caption(index)

    def language_of(self, index: int) -> str:
        """The language of one caption; with "both" they take turns."""
        return self.language if self.language != "both" else LANGUAGES[(index + self.seed) % 2]

    def twins(self) -> "CaptionedPictures | None":
        """A data set of the same length whose captions have the same words and do not fit; None if there is none."""
        return None

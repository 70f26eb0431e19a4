# %% [markdown]
# # 00 · Start here
#
# **You will build** nothing yet: you type a sentence and a network draws it. Then you look at what it can and cannot do, at
# the way through the course, and at your machine.
#
# **You need** no theory, and of Python only what you can read below.
#
# **Time**: 20 minutes; the computer needs less than half a minute.
#
# Click into the first grey cell and press **Shift + Enter**: it runs, and the next cell is chosen. Go on like that, from top
# to bottom.

# %% tags=["nbval-check-output"]
import torch

from course_lib import TextToImage
from course_lib.lesson import compare, pictures, setup, table

device = setup()
model = TextToImage.from_pretrained("shapes-32", device)
print("The model is loaded; its pictures are", model.image_size, "pixels wide and high.")

# %% [markdown]
# ## 1 A sentence goes in, pictures come out

# %% tags=["nbval-check-output"]
sentence = "a large orange heart at the center on navy"
images = model.sample(sentence, n_samples=4)
pictures(images, title=sentence, alt="Four pictures of an orange heart in the middle of a dark blue ground.")

# %% [markdown]
# Four pictures, drawn in a fraction of a second, and no two of them quite alike: look at the tilt of the heart and at the
# ground. None of them was stored. A network of 0.8 million numbers makes each one from the sentence and from noise, and all those
# numbers were learned, in 19 minutes on one processor core.
#
# Now it is your turn. Change the words between the quotes and run the cell again, as often as you like. Chinese works too.

# %% tags=["nbval-check-output"]
yours = "一个很小的蓝色星形，在右上角，灰色背景"  # a very small blue star, at the top right, gray background
pictures(model.sample(yours, n_samples=4), title="Yours", alt=f"Four pictures for the sentence: {yours}")

# %% [markdown]
# You should see small blue stars at the top right. Which words does the model know? It was trained on pictures of
# coloured shapes, in sentences that tell five things about them.

# %% tags=["nbval-check-output"]
from math import prod

from course_lib.data.captions import SINGLE, WORDS

table([{"what": name, "values": ", ".join(values)} for name, values in SINGLE.items()])
print("combinations:", prod(len(values) for values in SINGLE.values()))
print("words for a ring:", WORDS["en"]["ring"] + WORDS["zh"]["ring"])

# %% [markdown]
# Most values have more than one word, in both languages: "hoop" is a ring. Lesson 02 has the whole grammar.
#
# **Predict.** Below, the same star is asked for in five ways: as a sentence, in other words, as loose words, and twice in
# Chinese, all with the same noise. How different will the five pictures be?

# %% tags=["nbval-check-output"]
ways = [
    "a large cyan star at the top left on gray",
    "upper left, on gray: one big turquoise star",
    "star, cyan, gray, large, top left",
    "灰色背景上，左上角有一个大的青色星形",
    "青绿色，星星，左上方，大，灰色",
]

# %% tags=["nbval-check-output"]
upper = torch.cat([model.sample(way, n_samples=1, seed=0) for way in ways])
lower = torch.cat([model.sample(ways[0], n_samples=1, seed=seed) for seed in range(1, 6)])
pictures(
    torch.cat([upper, lower]),
    [f"way {i}" for i in range(1, 6)] + [f"way 1, noise {i}" for i in range(1, 6)],
    "Five ways to say it, and five noises",
    columns=5,
    alt="Ten cyan stars at the top left on grey. The five of the upper row can hardly be told apart; those "
    "of the lower row differ a little in place, tilt and ground.",
)

# %% [markdown]
# Hardly at all. What is *said* decides what is drawn, not how it is said; and the noise decides what is not said: the exact
# place, the tilt, the shade. The **seed** is the number that the noise is made from: the same seed gives the same pictures
# on every run, so that you can show yours to others.
#
# ### How often is it right?
#
# The star above is a test. One in ten of the 1,920 combinations was *held out*: cyan stars were trained on, and stars at the
# top left on gray, but never a large cyan star at the top left on gray.
#
# **Predict.** We ask for 1,000 pictures of held-out combinations. In how many of them will size, colour, shape, place and
# ground *all* be right?

# %%
from course_lib.data import CaptionedShapes
from course_lib.evaluation import load_judge

exam = CaptionedShapes("heldout", image_size=32, length=1000)
sentences = [exam.caption(i) for i in range(1000)]
drawn = model.sample(sentences, n_samples=1)
judge = load_judge(32)  # a network that reads the five things off a picture
right = judge.read(drawn) == judge.labels([exam.attributes(i) for i in range(1000)])  # (1000, 5) yes or no
row = {name: f"{share:.1%}" for name, share in zip(SINGLE, right.float().mean(0).tolist(), strict=True)}
table([row | {"all five": f"{right.all(1).float().mean():.1%}"}])

# %%
wrong = (~right.all(1)).nonzero()[:6, 0].tolist()
alt = f"The first {len(wrong)} pictures that the judge took for something else than the sentence says."
pictures(drawn[wrong], [sentences[i] for i in wrong], "What the judge called wrong", alt=alt)

# %% [markdown]
# About 996 of 1,000. What it never saw, it puts together out of parts that it did see: that is what makes such a network
# more than a store of pictures. Most of the mistakes are in the shape, and some are hard to call for us, too. (Lesson 15
# asks how far such a judge can be trusted.)
#
# ### Where it ends
#
# **Predict.** Six sentences that try its limits. What will it draw for "not red", for an elephant, for a square circle?

# %% tags=["nbval-check-output"]
strange = [
    "a small circle at the center on cream, but not red",
    "a small red elephant at the center on cream",
    "a large red square circle at the center on navy",
    "a large red green circle at the center on cream",
    "a small red star on gray",
    "hello",
]
table(
    [{"sentence": text, "words never read": ", ".join(model.unknown_words(text)) or "-"} for text in strange]
)

# %% tags=["nbval-check-output"]
pictures(
    model.sample(strange, n_samples=1, seed=3),
    strange,
    "Beyond the grammar",
    columns=3,
    alt="A red circle for 'not red'; a red circle for the elephant; a square with round corners; a brownish "
    "green circle; two stars, one of them faint; and a smudge for 'hello'.",
)

# %% [markdown]
# A red circle: "not" was in no caption, so it means nothing here. The elephant is drawn as a circle, too, and the square
# circle lies between the two. Red and green at once give a colour in between. Where the place is left unsaid, it often draws
# a pale star at one place and a fuller one at another, as if it could not decide. And for "hello" it still draws
# *something*: it cannot say that it does not know.
#
# Large models, too, draw what their data taught them. Here you can see all of the data, and train the model again yourself;
# that is what this course is for.
#
# All of this in one place is the **prompt studio**: type a sentence, press Enter, and the judge marks every picture.
# **Predict**, then ask for "a large red green circle at the center on cream": which of the five marks will fail?

# %% tags=["explorer"]
from course_lib.widgets import prompt_studio

prompt_studio()

# %% [markdown]
# Colour and shape fail in all four: between red and green lies nothing that the judge would call red or a circle. Size, place
# and ground are right. Then try a "rocket": `shapes-32` warns you, and names a model that has read the word.
#
# ## 2 What happened inside
#
# ```mermaid
# flowchart LR
#   s(["sentence"]) --> t["tokenizer<br>07"] --> e["text encoder<br>07, 08"] --> g["generator<br>11"] --> p(["picture"])
#   n(["noise"]) --> g
#   p -.-> d["discriminator<br>10, 11"]
#   e -.-> d
# ```
#
# The numbers are those of the lessons that build the part. The dotted lines are for training: there the
# discriminator learns to tell real pictures from generated ones, and the generator learns to deceive it. Two networks that
# train against each other like that are a **GAN**, a generative adversarial network.
#
# First the sentence is cut into pieces that the tokenizer knows, and each gets a number.

# %% tags=["nbval-check-output"]
for text in (ways[0], ways[3]):
    print(model.tokenizer.pieces(text))
    print(model.tokenizer.encode(text))

# %% [markdown]
# Most words are one piece, others two or three; what is rare, such as the Chinese comma, is spelled in bytes. Then the text encoder turns all of them into 96 numbers, which tell
# the generator what was meant. Sentences that mean the same should get similar numbers.
#
# **Predict.** Similarity runs from -1 to 1; 1 is "the same". What do the Chinese sentence and the English one get, and what
# a sentence in which one word is changed?

# %% tags=["nbval-check-output"]
from torch.nn.functional import cosine_similarity

texts = [
    ways[0],
    ways[2],
    ways[3],
    ways[0].replace("left", "right"),
    "a small red circle at the center on cream",
]
numbers = model.encode_text(texts)  # (5, 96)
similar = cosine_similarity(numbers[:1], numbers)  # of the first with each: (5,)
table([{"sentence": text, "similarity": f"{x:.2f}"} for text, x in zip(texts, similar.tolist(), strict=True)])

# %% [markdown]
# The Chinese sentence gets 0.98, but "right" for "left" only 0.69: the encoder goes by the meaning and not by the letters.
# Nobody wrote it a dictionary; lesson 08 shows how it learns that from pictures.
#
# Last, the generator takes these 96 numbers and 64 numbers of noise, and makes 3 x 32 x 32 out of them: red, green and blue
# for each pixel.

# %% tags=["nbval-check-output"]
for name in ("text_encoder", "generator", "discriminator"):
    count = sum(p.numel() for p in getattr(model, name).parameters())
    print(f"{name:<14}{count:>8,} numbers learned")
print("into the generator:", tuple(numbers[0].shape), "and", (model.generator.config.z_size,))
print("out of it:", tuple(images[0].shape))

# %% [markdown]
# That is 1.8 million numbers in all, a file of 7 megabytes. Imagen, of which more below, has some thousand times as many.
#
# ## 3 The map
#
# The course is a house. A lesson furnishes a room, and each room stands on those below: lesson 03 builds
# `course_lib/losses.py`, and everything above trains with it. In every lesson the room you are in is yellow.
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
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c00 lit
# ```
#
# | | lesson | you build, and see |
# |---|---|---|
# | 01 | Pictures as tensors | pictures as numbers; why a picture turns into confetti |
# | 02 | Words and pictures | three data sets with captions, one of them your own folder; is it fit for training? |
# | 03 | Losses | how wrong is a network, in one number? |
# | 04 | Optimisers | walking downhill: gradient descent, momentum, Adam |
# | 05 | Convolutions | the layers that see and draw |
# | 06 | Image encoder | a network that describes pictures, trained without any labels |
# | 07 | Text encoder | tokens and attention; a small GPT |
# | 08 | Text meets image | sentences and pictures in one space |
# | 09 | A first generator | a variational autoencoder, and why its pictures are blurred |
# | 10 | The adversarial game | a GAN, and a museum of its failures |
# | 11 | Listening to text | a GAN that obeys the sentence |
# | 12 | Training | the model of this page, from random numbers on |
# | 13 | Training at scale | GPUs, several processes, what a run costs |
# | 14 | Sampling | better pictures from the same model |
# | 15 | Judging pictures | measuring instead of gazing |
# | 16 | What Imagen really is | diffusion: noise, taken away step by step |
# | 17 | Errata | errors of a popular article, each refuted by running it; responsibility |
#
# Read them in this order: each needs those before it.
#
# ### What is true about Imagen
#
# Imagen (Saharia and others 2022) is a model of Google Research: a large text encoder, T5, and a chain of diffusion models.
# It is no GAN, and neither its weights nor its code were released.
#
# A popular article describes it as a GAN. This course builds the system of that article and makes it work; lesson 16 builds a
# small Imagen as it really is, and lesson 17 collects the article's errors.
#
# ## 4 Your machine
#
# The next cell is `course doctor`, which you can also type in a terminal. MISSING must be put right, as the remedy says;
# a note may stay.

# %%
from course_lib.doctor import CHECKS, examine

rows = []
for name, check in CHECKS.items():
    found = examine(check)
    state = "fine" if not found.remedy else ("MISSING" if found.needed else "note")
    rows.append({"check": name, "state": state, "found": found.found, "remedy": found.remedy})
table(rows)

# %% [markdown]
# (On the page that you were given, this table is about the machine on which the page was made. Run the cell to see yours.)
#
# All lessons run on a plain laptop; a GPU is not needed. If you have one, set the variable `COURSE_DEVICE` to `cuda` before
# you start JupyterLab, and the lessons compute there:

# %%
print("This notebook computes on:", device)

# %% [markdown]
# ## 5 How the lessons work
#
# **First by hand, then proved.** The course builds its own losses, layers and optimisers, and shows that each equals PyTorch's.
# You will see many tables like the next one: ours, theirs, and whether they are equal.
#
# **Predict, run, compare.** Before a result stands a question such as the one below. Answer it, on paper or aloud, *before* you
# run the cell: a guess that turned out wrong is remembered best. The answer follows under the cell, or behind a small
# triangle.
#
# **Predict.** What is the mean of 0.5, -1, 0 and 1?
#
# <details><summary>Answer</summary>
#
# Their sum is 0.5, so the mean is 0.5 / 4 = 0.125.
#
# </details>

# %% tags=["nbval-check-output"]
total = 0.0
for number in [0.5, -1.0, 0.0, 1.0]:
    total += number
compare({"mean of four": (total / 4, torch.tensor([0.5, -1.0, 0.0, 1.0]).mean())})

# %% [markdown]
# "Exact" means equal to the last digit, "close" equal up to rounding; anything else stops the lesson.
#
# **Nothing is hidden.** Where a lesson shows a function of the library, it is the library's own, word for word, and a test
# sees to it. `course_lib/` is meant to be read.
#
# **When something goes wrong**, you get a sentence:

# %% tags=["nbval-check-output"]
from course_lib.errors import CourseError

for text, number in [(" ", 4), ("a star", 0)]:
    try:
        model.sample(text, n_samples=number)
    except CourseError as error:
        print(error)

# %% [markdown]
# | what you see | what to do |
# |---|---|
# | "... is not known yet" | a cell above was not run, or the kernel was started anew: *Run > Run All Above Selected Cell* |
# | a cell shows `[*]` and nothing happens | it is still running; or press the black square, *Interrupt*, and run it again |
# | all is muddled | *Kernel > Restart Kernel and Run All Cells* |
# | you changed a lesson and want it back | `git checkout notebooks/00_start_here.ipynb`, or unpack the course again |
#
# ### Exercises and checks
#
# Reading is half of learning. To most lessons belongs a notebook of exercises, of the same number and name, in the folder
# `exercises/`, once your copy of the course has it. Each exercise says how hard it is (1 to 5) and how long it takes, gives you a
# function to fill in and three hints behind triangles, and ends in a **check**. A check runs your function on small cases
# and says in words what is wrong, without giving the solution away. A toy example:


# %% tags=["nbval-check-output"]
def check_mean(answer):
    if answer([2.0, 2.0, 2.0]) == 6:
        return "not yet: you added the numbers up; divide by how many there are"
    if (result := answer([1.0, 2.0, 6.0])) != 3:
        return f"not yet: the mean of 1, 2 and 6 is 3, and your function gives {result:g}"
    return "right: tried on two lists"


def my_mean(numbers):
    return sum(numbers)


print("my_mean:", check_mean(my_mean))
print("corrected:", check_mean(lambda numbers: sum(numbers) / len(numbers)))

# %% [markdown]
# Mend `my_mean` yourself and run the cell again. It does not matter *how* you compute it; a check asks whether the answer is
# right.
#
# ## What changed in the library
#
# Nothing. You used `TextToImage`, which lesson 14 builds, and checks of the command `course`. In a terminal, in the folder of
# the course, there are three more things to try:
#
# ```
# .venv/bin/course generate "a small pink moon at the bottom left on cream" --n_samples 8
# .venv/bin/course demo
# .venv/bin/course train --preset shapes-32
# ```
#
# The first writes PNG files into `samples/`. The second trains a small model before your eyes, in two and a half minutes,
# and scores it. The third makes the model of this page again. (On Windows, write `.venv\Scripts\course`.)
#
# ## Three questions
#
# 1. You and a friend type the same sentence with `seed=7`. Do you get the same pictures?
#
# <details><summary>Answer</summary>
#
# Yes, with the same model: the seed makes the noise, and sentence and noise make the picture. (On machines that round
# differently the last digits can differ, which nobody sees.)
#
# </details>
#
# 2. The model draws held-out combinations right. What would you have to do to find out whether it merely remembers its
#    training pictures?
#
# <details><summary>Answer</summary>
#
# For a combination that was never trained on there is nothing to remember, so those pictures prove it. For the others, look
# for the nearest training picture and compare; lesson 17 does.
#
# </details>
#
# 3. "Not red" gave red. Would a larger network help?
#
# <details><summary>Answer</summary>
#
# No: "not" is in none of the captions, so there is nothing to learn it from. Data with such captions would help, and then
# perhaps a network that can make use of them.
#
# </details>
#
# ## Papers
#
# - Ian Goodfellow and others (2014), *Generative Adversarial Networks*: the game of two networks.
#   [arXiv:1406.2661](https://arxiv.org/abs/1406.2661)
# - Scott Reed and others (2016), *Generative Adversarial Text to Image Synthesis*: the first GANs that drew what a sentence
#   says. [arXiv:1605.05396](https://arxiv.org/abs/1605.05396)
# - Chitwan Saharia and others (2022), *Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding*:
#   Imagen. [arXiv:2205.11487](https://arxiv.org/abs/2205.11487)
#
# You need to have read none of them. Next: lesson 01 takes pictures apart into numbers.

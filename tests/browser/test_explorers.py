"""Every lesson with an explorer, as its reader has it: run all cells in JupyterLab, then move a control by keyboard.

What an explorer must say after the move is worked out here, by other means than its own.
"""

import csv
import hashlib
import math
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser tests need playwright: pip install playwright")

import torch
from lab import Explorer, browser_page, chromium, run_all, server

from course_lib.alignment import load_alignment
from course_lib.batches import step_random
from course_lib.checkpoint import checkpoints_folder
from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.denoising import dynamic_threshold
from course_lib.diffusion import DiffusionTextToImage, draw_pictures
from course_lib.evaluation import load_judge
from course_lib.gan import AdversarialStep, MLPDiscriminator, MLPGenerator, ring_of_gaussians
from course_lib.text_encoder import embed_captions
from course_lib.text_to_image import TextToImage
from course_lib.tokenizer import Tokenizer
from course_lib.vae import VAE
from course_lib.widgets.similarity_matrix import pictures_of, scene

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
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


def tokenizer_playground(explorer: Explorer) -> None:
    tokenizer = Tokenizer.load(checkpoints_folder() / "gpt-captions" / "tokenizer.json")
    text = "a large red circle at the top left on gray"
    explorer.press("merges", "Home")
    explorer.expect(f"{len(text)} pieces: " + " · ".join(text.replace(" ", "_")))
    explorer.press("merges", "End")
    pieces = [piece.replace(" ", "_") for piece in tokenizer.pieces(text)]
    explorer.expect(f"{len(pieces)} pieces: " + " · ".join(pieces))
    assert "<end> at _large" in explorer.words()  # head 2 of layer 1, as the lesson tells
    explorer.press("sentence", "Control+A", *"ring")  # typed letter by letter
    explorer.expect("pieces: " + " · ".join(tokenizer.pieces("ring")))


def conditioning_lab(explorer: Explorer) -> None:
    explorer.expect("color follows in 24")
    explorer.press("attribute", "End")  # JupyterLab keeps the arrows for itself
    explorer.expect("a large red heart at the center on gray")
    explorer.press("new value", "End")
    model, judge = TextToImage.from_pretrained("shapes-32"), load_judge(32)
    navy, cream = (f"a large red heart at the center on {ground}" for ground in ("navy", "cream"))
    one, other = (judge.read(model.sample(sentence, 24)) for sentence in (navy, cream))
    same = dict(zip(SINGLE, (one == other).sum(0).tolist(), strict=True))
    follows = (other[:, 4] == SINGLE["background"].index("cream")).sum().item()
    told = [f"{name} stays in {count}" for name, count in same.items() if name != "background"]
    explorer.expect(cream)
    explorer.expect(f"Of 24 pairs: {', '.join(told)}, background follows in {follows}.")
    assert follows > 20


def prompt_studio(explorer: Explorer) -> None:
    explorer.expect("4 pictures by shapes-32 in")
    prompt, scene = "a tiny azure hoop, top right, on ivory", ("small", "blue", "ring", "top right", "cream")
    explorer.press("prompt", "Control+A", *prompt, "Enter")
    model, judge = TextToImage.from_pretrained("shapes-32"), load_judge(32)
    images = torch.cat([model.sample(prompt, 1, seed=seed) for seed in range(4)])
    wanted = torch.tensor([values.index(value) for values, value in zip(SINGLE.values(), scene, strict=True)])
    counts = dict(zip(SINGLE, zip(scene, (judge.read(images) == wanted).sum(0).tolist(), strict=True), strict=True))
    told = [f"{name} {value} {'✓' if n == 4 else '✗'} {n} of 4" for name, (value, n) in counts.items()]
    explorer.expect(", ".join(told))
    assert counts["color"] == ("blue", 4)
    explorer.push("Other noise")
    explorer.expect("seeds 4 to 7")
    explorer.press("prompt", "Control+A", *"rocket", "Enter")
    explorer.expect('shapes-32 has never read "rocket"')


def similarity_matrix(explorer: Explorer) -> None:
    explorer.expect("picture 1 finds caption 1, 2 finds caption 2")
    boxes = {"pictures of": "a small green heart\na large yellow star", "captions": "huge golden star\n很小的绿色爱心"}
    for label, text in boxes.items():
        explorer.press(label, "Control+A", "Delete")
        explorer.page.keyboard.insert_text(text)
    explorer.expect("picture 1 finds caption 2, 2 finds caption 1")  # the heart the Chinese one, the star the other
    images = pictures_of([scene(line) for line in boxes["pictures of"].splitlines()])
    explorer.press("model", "End")  # JupyterLab keeps the arrows and the letters for itself
    model, tokenizer = load_alignment("align-shapes-32")
    texts = embed_captions(model.text_encoder, tokenizer, boxes["captions"].splitlines())
    seen = model.image_encoder(torch.nn.functional.avg_pool2d(images, 2))
    star, heart = torch.nn.functional.cosine_similarity(texts, seen.flip(0)).tolist()
    explorer.expect(f"1 huge golden star2{star:.2f}")  # caption, picture, cosine, without the gaps of the table
    assert f"2 很小的绿色爱心\t1\t{heart:.2f}" in explorer.words()
    explorer.press("example", "End")
    explorer.expect("5 a brake disc")


def optimizer_race(explorer: Explorer) -> None:
    def descent(rate: float, steps: int) -> float:  # from (-2, 1), where the curvatures are 1 and 25
        return math.hypot(2 * (1 - rate) ** steps, (1 - 25 * rate) ** steps)

    explorer.expect(f"{descent(0.07, 40):.4f}")
    explorer.press("steps", "ArrowRight", "ArrowRight")
    explorer.expect("After 42 steps the nearest to a minimum is Adam")
    assert f"gradient descent\t{descent(0.07, 42):.4f}" in explorer.words()
    explorer.press("learning rate", "ArrowRight")  # from 0.07 to 0.1: every step makes y 1.5 times as large
    gone = next(step for step in range(100) if 1.5**step >= 100)
    explorer.expect(f"left it for good at step {gone}")
    assert "gradient descent\toff the map" in explorer.words() and "momentum\toff" not in explorer.words()


def latent_walk(explorer: Explorer) -> None:
    vae, every = VAE.from_pretrained("vae-shapes-32"), CaptionedShapes("all", 32, length=1920)
    star = vae.encode(CaptionedShapes("heldout", 32, length=1920).images([3]))[0]
    codes = vae.encode(every.images(range(1920)))[0]
    variances, axes = torch.linalg.eigh(torch.cov(codes.T))  # the smallest first
    first = axes[:, -1] * axes[axes[:, -1].abs().argmax(), -1].sign() * variances[-1].sqrt()
    for key, steps in (("Home", -2), ("End", 2)):
        explorer.push("back to the picture")
        explorer.expect("VAE now: small, green, circle, top left, cream.")
        explorer.press("direction 1", key)
        sure = [logits.softmax(1)[0] for logits in load_judge(32)(vae.decode(star + steps * first))]
        read = [v[p.argmax()] for v, p in zip(SINGLE.values(), sure, strict=True) if p.max() >= 0.9]
        explorer.expect(f"VAE now: {', '.join(read)}.")
        assert {-2: "navy", 2: "cream"}[steps] in read


def convolution_stepper(explorer: Explorer) -> None:
    picture = [[0, 0, 0, 2, 2, 2]] * 4 + [[1] * 6] * 2
    explorer.expect("Window 13 of 25, for row 3, column 3 of the output: 0·(-1) + 2·1 + 0·(-1) + 2·1 = 4.")
    explorer.press("step", "ArrowRight")
    explorer.expect("Window 14 of 25, for row 3, column 4 of the output: 2·(-1) + 2·1 + 2·(-1) + 2·1 = 0.")
    explorer.press("kernel", "Control+A", *"1 2; 3 4", "Enter")
    corner = picture[2][3] + 2 * picture[2][4] + 3 * picture[3][3] + 4 * picture[3][4]
    explorer.expect(f"= {corner}.")
    explorer.press("stride", "ArrowRight", "ArrowRight")
    sums = [
        [sum((2 * a + b + 1) * picture[i + a][j + b] for a in (0, 1) for b in (0, 1)) for j in (0, 3)] for i in (0, 3)
    ]
    explorer.expect("row by row: " + "; ".join(" ".join(map(str, row)) for row in sums))
    assert "All steps together are equal to conv2d" in explorer.words()


def gan_arena(explorer: Explorer) -> None:
    explorer.expect("Round 160: ")
    explorer.push("Reset")
    explorer.expect("Round 0: nothing played yet")
    explorer.push("Step")
    torch.manual_seed(0)
    players = MLPGenerator(initialise=False), MLPDiscriminator(initialise=False)
    game = AdversarialStep(*players, learning_rates=(2e-3, 4e-3), r1_weight=0.01)
    told = game(ring_of_gaussians(128, torch.Generator().manual_seed(0)))
    explorer.expect(f"Round 1: loss of D {told['loss_d']:.3f}, of G {told['loss_g']:.3f}")
    explorer.push("Start")
    explorer.expect(re.compile(r"Round ([6-9]\d|\d{3,}): "))  # a quick machine may pass 60 unseen
    explorer.push("Pause")
    explorer.page.wait_for_timeout(8000)  # rounds that are being played come to their end
    before = explorer.words()
    explorer.page.wait_for_timeout(1500)
    assert explorer.words() == before
    explorer.press("museum", "End")  # one common loss
    explorer.expect("Round 0: nothing played yet")
    explorer.push("Start")
    torch.manual_seed(0)
    players = MLPGenerator(initialise=False), MLPDiscriminator(initialise=False)
    game, random = AdversarialStep(*players, learning_rates=(2e-3, 4e-3), joint=True), torch.Generator().manual_seed(0)
    explorer.expect(re.compile(r"Round ([6-9]\d|\d{3,}): "))
    explorer.push("Pause")
    explorer.page.wait_for_timeout(8000)
    rounds = int(re.search(r"Round (\d+): ", explorer.words())[1])  # how far it came depends on the machine
    for _ in range(rounds):
        told = game(ring_of_gaussians(128, random))
    assert f"Round {rounds}: loss of D {told['loss_d']:.3f}, of G {told['loss_g']:.3f}" in explorer.words()


def dataset_browser(explorer: Explorer) -> None:
    held_out = [int(hashlib.sha256(f"{i:04}.png".encode()).hexdigest()[:8], 16) < 0.1 * 2**32 for i in range(1200)]
    untitled, whole = held_out[480:600].count(False), held_out.count(False) - held_out[240:480].count(False)
    explorer.expect(f"Flags of the {whole} that the audit looked at", seconds=120)
    explorer.press("search", *"untitled")
    explorer.expect(f'{untitled} of {whole} captions contain "untitled"')
    explorer.press("search", "Control+A", "Delete")
    explorer.press("data set", "Home")  # the shapes: drawn here from the same seed
    shapes = CaptionedShapes("train", 64, length=600, captions="varied")
    explorer.expect("Flags of the 600 that the audit looked at", seconds=120)
    explorer.press("search", *"azure")
    azure = [i for i in range(600) if "azure" in shapes.caption(i)]
    explorer.expect(f'Page 1 of {math.ceil(len(azure) / 12)}. {len(azure)} of 600 captions contain "azure"')
    assert f"{azure[0] + 1}: {shapes.caption(azure[0])}" in explorer.place.locator("img").first.get_attribute("alt")


def training_dashboard(explorer: Explorer) -> None:
    def stopped_at() -> int:
        explorer.push("Stop")
        explorer.expect(" of 320, stopped", seconds=120)
        return int(re.search(r"Step (\d+) of 320, stopped", explorer.words())[1])

    explorer.expect("Step 0 of 320; Start trains in the folder runs/dashboard.")
    explorer.push("Start")
    explorer.expect("drawn right at step 20", seconds=300)
    number = stopped_at()
    assert 20 <= number < 320
    explorer.page.wait_for_timeout(2000)
    assert f"Step {number} of 320, stopped" in explorer.words()
    explorer.push("Start")  # it goes on from there, not from the beginning
    explorer.expect(f"drawn right at step {(number // 20 + 1) * 20}", seconds=300)
    explorer.push("Pause")
    assert stopped_at() > number


def latent_map(explorer: Explorer) -> None:
    data = CaptionedShapes("heldout", 32, length=300)
    vectors = data.images(range(300)).flatten(1)
    explorer.expect(f"Picture 7: {data.caption(6)}. Nearest by encoder, trained on views: ")
    explorer.press("features", *"pixels")
    explorer.press("picture", "ArrowRight", "ArrowRight")  # to 9
    order = torch.cosine_similarity(vectors[8:9], vectors).argsort(descending=True).tolist()
    nearest = [i for i in order if i != 8][:5]
    explorer.expect(f"Picture 9: {data.caption(8)}. Nearest by pixels: {', '.join(str(i + 1) for i in nearest)}.")
    colors = [data.attributes(i)["color"] for i in (8, *nearest)]
    assert f"color\t{colors[1:].count(colors[0])} of 5" in explorer.words()


def denoising_film(explorer: Explorer) -> None:
    prompt = "a large yellow star at the top left on navy"
    star = "large", "yellow", "star", "top left", "navy"
    model, judge = DiffusionTextToImage.from_pretrained("shapes-32-diffusion"), load_judge(32)
    wanted = torch.tensor([values.index(value) for values, value in zip(SINGLE.values(), star, strict=True)])

    def told(guidance: float) -> str:  # the answers are what `draw_pictures` hands to its threshold
        answers = []
        listen = lambda clean: answers.append(dynamic_threshold(clean)) or answers[-1]  # noqa: E731
        draw_pictures(model.base, *model.encode_text([prompt]), [step_random(0, 0)], 20, guidance, listen)
        right = (judge.read(torch.cat(answers)) == wanted).all(1).sum()
        return f"It sees all that the prompt names in {right} of the 20 answers"

    explorer.expect("Step 7 of 20, time 700: noise is 79.7% of the variance")
    assert told(2.0) in explorer.words()
    explorer.press("step", "ArrowRight", "ArrowRight")
    explorer.expect("Step 9 of 20, time 600: noise is")
    kept = math.cos((0.6 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert f"the picture {kept:.1%}" in explorer.words()
    explorer.press("guidance", "End")  # to 10: another film, of the same step
    explorer.expect(told(10.0))
    assert "Step 9 of 20" in explorer.words() and "background navy" not in explorer.words()


def rating_booth(explorer: Explorer) -> None:
    explorer.press("rater", "Control+A", *"Babbage", "Enter")  # who has not rated yet, whoever else has
    explorer.expect("Number 1 of 24")
    assert explorer.place.get_by_text("shapes-32").count() == 0  # blind
    box = explorer.place.get_by_label("show results")
    if not any((ROOT / "samples" / "ratings").glob("*.csv")):
        box.focus()
        box.press("Space")
        with (ROOT / "data" / "ratings" / "simulated.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        explorer.expect(f"simulated marks, which nobody gave. {len(rows)} marks: Krippendorff's alpha of 6 raters")
        for name in "ABC":
            scores = [int(row["score"]) for row in rows if row["system"] == name]
            assert f"{name}\t{sum(scores) / len(scores):.3g}" in explorer.words()
        box.press("Space")
        explorer.expect("Number 1 of 24")
    explorer.press("task", "End")
    explorer.expect("Which shows it better?")


LESSONS = {
    "00_start_here": [prompt_studio],
    "02_words_and_pictures": [dataset_browser],
    "03_losses": [loss_explorer],
    "04_optimizers": [optimizer_race],
    "05_convolutions": [convolution_stepper],
    "06_image_encoder": [latent_map],
    "07_text_encoder": [tokenizer_playground],
    "08_text_meets_image": [similarity_matrix],
    "09_first_generator_vae": [latent_walk],
    "10_the_adversarial_game": [gan_arena],
    "11_listening_to_text": [conditioning_lab],
    "14_sampling": [prompt_studio],
    "15_judging_pictures": [rating_booth],
    "12_training_text_to_image": [training_dashboard],
    "16_what_imagen_really_is": [denoising_film],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on copies of the lessons, so that nothing is saved over them; some of them read ../data."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    (root / "data").symlink_to(NOTEBOOKS.parent / "data")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, root / "notebooks")
    with server(root, tmp_path_factory.mktemp("scratch")) as port:
        yield port


@pytest.mark.parametrize("lesson", LESSONS)
def test_explorers_in_their_lesson(lab, lesson):
    with browser_page() as page:
        run_all(page, lab, f"notebooks/{lesson}.ipynb")
        errors = page.locator(".jp-RenderedText[data-mime-type$='.error'], .jp-RenderedText[data-mime-type$='.stderr']")
        assert errors.all_inner_texts() == []
        for check in LESSONS[lesson]:
            explorer = Explorer(page, check.__name__)
            before = explorer.picture()
            check(explorer)
            assert explorer.picture() != before
            assert explorer.place.locator("[role=alert]").count() == 0
        assert [text for text in page.complaints if "favicon" not in text] == []

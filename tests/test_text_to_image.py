"""The whole model behind one class: it draws what it is told, the same way every time, and loads only what it saved."""

import json
import shutil

import pytest
import torch
from tiny import tiny_model

from course_lib.checkpoint import CONFIG, TENSORS, find_checkpoint, load_checkpoint, save_checkpoint
from course_lib.data.captions import SINGLE
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge, pictures_like
from course_lib.text_gan import Discriminator, DiscriminatorConfig
from course_lib.text_to_image import MAX_BYTES, TextToImage

PROMPTS = ["a small red circle at the center on gray", "a large blue ring", "灰色背景上，中间有一个小的红色圆形"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def saved(model, tmp_path):
    return model.save_pretrained(tmp_path / "tiny")


@pytest.fixture
def heard(model):
    """What the generator is given: pairs of noise and condition, appended at every call."""
    inputs = []
    handle = model.generator.register_forward_pre_hook(lambda _, given: inputs.append(given[:2]))
    yield inputs
    handle.remove()


def logits(model, z, condition):
    with torch.no_grad():
        return model.discriminator(model.generator(z, condition), condition)


# ---- drawing


def test_pictures_come_text_by_text(model, heard):
    pictures = model.sample(PROMPTS, n_samples=2)
    assert pictures.shape == (6, 3, 32, 32) and pictures.dtype == torch.float32
    assert -1 <= pictures.min() < pictures.max() <= 1
    (z, condition) = heard[0]
    assert torch.equal(condition, model.encode_text(PROMPTS)[[0, 0, 1, 1, 2, 2]])
    assert len(z.unique(dim=0)) == 6, "every picture has noise of its own"
    assert torch.equal(pictures, model.generator(z, condition))


def test_one_prompt_may_be_a_plain_string(model):
    assert torch.equal(model.sample(PROMPTS[0], 2), model.sample(PROMPTS[:1], 2))


@pytest.mark.parametrize("steps", [0, 3])
def test_a_seed_gives_the_same_pictures_and_another_seed_others(model, steps):
    first, again, other = (model.sample(PROMPTS, 2, steps, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert (first - other).abs().flatten(1).mean(1).min() > 0.01


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("steps", [0, 3])
def test_pictures_do_not_depend_on_the_batch_size(model, steps, batch_size):
    expected = model.sample(PROMPTS, 3, steps, 2.0, batch_size=9)
    torch.testing.assert_close(model.sample(PROMPTS, 3, steps, 2.0, batch_size=batch_size), expected, atol=1e-4, rtol=0)


def test_nor_do_pictures_that_begin_with_a_picture(model):
    image = model.sample(PROMPTS[1], 1, seed=5)[0]
    alone, together = (model.sample(PROMPTS[:2], 2, image=image, batch_size=size) for size in (1, 4))
    assert (alone - together).abs().mean() < 1e-3  # sixty steps of Adam enlarge rounding errors


def test_guidance_multiplies_what_the_caption_adds_to_the_logit(model):
    condition, z = model.encode_text(PROMPTS[:1]).expand(256, -1), torch.randn(256, 8)
    empty = model.unconditional().expand_as(condition)
    added = {}
    for scale in (0.0, 1.0, 5.0):
        refined = model.refine(z, (condition, None), torch.zeros(10, 256, 8), scale)
        with torch.no_grad():
            features = model.discriminator.features(model.generator(refined, condition))
            gain = model.discriminator.match(features, condition) - model.discriminator.match(features, empty)
        added[scale] = gain.mean().item()
    assert added[0.0] < added[1.0] < added[5.0], added


def test_guidance_works_through_refinement_alone(model):
    plain, guided = (model.sample(PROMPTS[0], 2, guidance_scale=scale) for scale in (1, 5))
    assert torch.equal(plain, guided)
    refined, guided = (model.sample(PROMPTS[0], 2, steps_per_sample=3, guidance_scale=scale) for scale in (1, 5))
    assert not torch.equal(refined, guided) and not torch.equal(refined, plain)


def test_truncation_shrinks_the_noise_and_1_changes_nothing(model, heard):
    settings = {"n_samples": 2, "seed": 7}
    plain, same = (model.sample(PROMPTS, **settings, **more) for more in ({}, {"truncation": 1.0}))
    assert torch.equal(plain, same)
    half, none = (model.sample(PROMPTS, **settings, truncation=x) for x in (0.5, 0))
    (z, _), _, (halved, _), (zeros, _) = heard
    assert torch.equal(halved, z / 2) and not zeros.any()
    torch.testing.assert_close(half, model.sample(PROMPTS, **settings, truncation=0.5, batch_size=1), atol=1e-5, rtol=0)
    assert torch.equal(none[::2], none[1::2]) and not torch.equal(half[::2], half[1::2])


def test_refinement_begins_at_the_truncated_noise(model, monkeypatch):
    given = []
    monkeypatch.setattr(model, "refine", lambda z, caption, kicks, scale: given.append((z, kicks)) or z)
    for truncation in (1.0, 0.25):
        model.sample(PROMPTS[0], 2, steps_per_sample=1, truncation=truncation)
    (z, kicks), (less, same_kicks) = given
    assert torch.equal(less, z / 4) and torch.equal(kicks, same_kicks)


def test_truncation_and_a_picture_exclude_each_other(model):
    image = torch.zeros(3, 32, 32)
    with pytest.raises(CourseError, match="truncation=0.5 is for random noise, an image's is searched"):
        model.sample(PROMPTS[0], 1, image=image, truncation=0.5)
    assert model.sample(PROMPTS[0], 1, image=image, truncation=1).shape == (1, 3, 32, 32)


def test_every_picture_is_refined_by_chance_of_its_own(model, monkeypatch):
    given = []
    monkeypatch.setattr(model, "refine", lambda z, caption, kicks, scale: given.append((z, kicks)) or z)
    model.sample(PROMPTS[:2], 3, steps_per_sample=2, seed=1)
    ((z, kicks),) = given
    assert kicks.shape == (2, 6, 8)
    every = torch.cat([z, kicks.flatten(0, 1)])
    assert len(every.unique(dim=0)) == 18, "neither steps nor pictures share their chance, nor take it from the start"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("n_samples", 0),
        ("n_samples", 10_001),
        ("steps_per_sample", -1),
        ("steps_per_sample", 1001),
        ("guidance_scale", -0.5),
        ("guidance_scale", 101.0),
        ("guidance_scale", float("nan")),
        ("guidance_scale", float("inf")),
        ("batch_size", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("truncation", -0.1),
        ("truncation", 1.5),
        ("truncation", float("nan")),
    ],
)
def test_numbers_out_of_range_are_named(model, setting, value):
    with pytest.raises(CourseError, match=rf"{setting}={value} is out of range; use \d+ to \d+"):
        model.sample(PROMPTS, **{setting: value})


def test_more_pictures_than_memory_are_refused_before_any_is_drawn(model, heard):
    most = MAX_BYTES // (32 * 32 * 3 * 4)
    with pytest.raises(CourseError, match=f"n_samples=10000 for 100 prompts.*at most {most:,} pictures"):
        model.sample(PROMPTS[:1] * 100, n_samples=10_000)
    assert not heard


# ---- prompts


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "　", "\u200b\u200b"])
def test_a_prompt_without_a_visible_letter_is_empty(model, text):
    with pytest.raises(CourseError, match="is empty; say what to draw"):
        model.sample([PROMPTS[0], text])


def test_no_prompt_at_all_is_told(model):
    with pytest.raises(CourseError, match="is empty"):
        model.sample([])


def test_of_a_prompt_that_is_too_long_the_cut_part_is_shown(model):
    with pytest.raises(CourseError, match='131 tokens and the limit is 126: "zebra" would be cut; shorten'):
        model.sample("x" * 126 + "zebra")


def test_words_never_read_are_listed_once_in_order(model):
    assert model.unknown_words("A RED dragon, a red dragon beside 一条龙 and a circle") == [
        "dragon",
        "beside",
        "条",
        "龙",
        "and",
    ]
    assert model.unknown_words("a small red circle at the center on gray") == []


def test_a_model_without_a_vocabulary_warns_of_nothing(model):
    parts = model.generator, model.discriminator, model.text_encoder, model.tokenizer
    assert TextToImage(*parts).unknown_words("dragon") == []


# ---- refinement and search


def test_refinement_climbs_what_it_says_it_climbs(model):
    condition, z = model.encode_text(PROMPTS[:1]).expand(64, -1), torch.randn(64, 8)
    density = logits(model, z, condition) - z.square().sum(1) / 2
    for _ in range(3):  # without chance every step goes uphill
        z = model.refine(z, (condition, None), torch.zeros(1, 64, 8))
        before, density = density, logits(model, z, condition) - z.square().sum(1) / 2
        assert density.mean() > before.mean() + 0.1


def test_refined_pictures_convince_the_discriminator_more(model):
    condition, z = model.encode_text(PROMPTS[:1]).expand(256, -1), torch.randn(256, 8)
    refined = model.refine(z, (condition, None), torch.randn(20, 256, 8))
    assert logits(model, refined, condition).mean() > logits(model, z, condition).mean() + 3
    assert 0.7 < refined.std() < 1.5, "the noise stays near the noise that the generator knows"


def test_where_the_discriminator_has_no_opinion_the_noise_stays_normal(model, monkeypatch):
    monkeypatch.setattr(model.generator, "forward", lambda z, condition, tokens: z)
    monkeypatch.setattr(model.discriminator, "features", lambda images: images)
    monkeypatch.setattr(model.discriminator, "match", lambda features, text: 0 * features.sum(1))
    z = model.refine(torch.randn(4000, 8), (torch.zeros(4000, 16), None), torch.randn(200, 4000, 8))
    assert abs(z.mean().item()) < 0.03 and z.std().item() == pytest.approx(1, abs=0.03)


@pytest.fixture
def quiet(monkeypatch):
    """The tiny model's discriminator shouts; here only the pixels shall count."""
    monkeypatch.setattr("course_lib.text_to_image.SEARCH_PRIOR", 1e-5)


def test_search_finds_noise_that_draws_the_given_picture(model, quiet):
    condition = model.encode_text(PROMPTS[:1]).expand(4, -1)
    with torch.no_grad():
        image = model.generator(torch.randn(1, 8), condition[:1])[0]
        random = (model.generator(torch.randn(500, 8), condition[:1].expand(500, -1)) - image).square()
        found = (model.generator(model.search(image, torch.randn(4, 8), (condition, None)), condition) - image).square()
    assert found.flatten(1).mean(1).max() < 0.1 * random.flatten(1).mean(1).min()


def test_search_begins_with_the_best_of_many_starts(model, monkeypatch):
    monkeypatch.setattr("course_lib.text_to_image.SEARCH_STEPS", 0)
    condition = model.encode_text(PROMPTS[:1]).expand(8, -1)
    with torch.no_grad():
        image = model.generator(torch.randn(1, 8), condition[:1])[0]
        random = (model.generator(torch.randn(500, 8), condition[:1].expand(500, -1)) - image).square()
        found = (model.generator(model.search(image, torch.randn(8, 8), (condition, None)), condition) - image).square()
    assert found.flatten(1).mean(1).max() < random.flatten(1).mean(1).quantile(0.2)


def test_sampling_from_a_picture_stays_near_it(model, quiet):
    image = model.sample(PROMPTS[1], 1, seed=9)[0]
    distances = [(model.sample(PROMPTS[0], 8, image=start) - image).square().mean() for start in (image, None)]
    assert distances[0] < 0.3 * distances[1]


def test_a_picture_of_another_size_is_refused(model):
    with pytest.raises(CourseError, match=r"image has shape \(3, 16, 16\); this model wants \(3, 32, 32\)"):
        model.sample(PROMPTS[0], 1, image=torch.zeros(3, 16, 16))


def test_drawing_changes_no_weight_and_leaves_no_gradient(model):
    before = {name: x.clone() for name, x in model.state_dict().items()}
    pictures = model.sample(PROMPTS[0], 2, 2, image=torch.zeros(3, 32, 32))
    assert not pictures.requires_grad and all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


# ---- saving and loading


def test_a_saved_model_draws_the_same_pictures_bit_for_bit(model, saved):
    loaded = TextToImage.from_pretrained(saved)
    for settings in ({}, {"steps_per_sample": 3, "guidance_scale": 2.0}, {"image": torch.zeros(3, 32, 32)}):
        assert torch.equal(loaded.sample(PROMPTS, 2, **settings), model.sample(PROMPTS, 2, **settings))
    assert loaded.vocabulary == model.vocabulary and loaded.training_facts == model.training_facts
    assert loaded.image_size == 32 and not loaded.training


def test_a_name_is_looked_up_among_the_checkpoints(model, saved, monkeypatch):
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(saved.parent))
    assert torch.equal(TextToImage.from_pretrained("tiny").sample(PROMPTS, 1), model.sample(PROMPTS, 1))
    with pytest.raises(CourseError, match='no checkpoint "tinny".*did you mean "tiny"'):
        TextToImage.from_pretrained("tinny")


def test_checkpoint_files_can_be_read_by_people(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert json.loads((saved / CONFIG).read_text(encoding="utf-8"))["kind"] == "text-to-image"


@pytest.mark.parametrize("name", ["judge-32", "gpt-captions"])
def test_checkpoints_of_other_kinds_are_refused(name):
    with pytest.raises(CourseError, match='not a text-to-image one; use one such as "shapes-32"'):
        TextToImage.from_pretrained(name)


@pytest.mark.parametrize("file", [TENSORS, CONFIG, "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_damaged_checkpoints_are_refused(saved, file, damage):
    path, data = saved / file, (saved / file).read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "foreign": b"[1, 2, 3]"}[damage])
    with pytest.raises(CourseError, match=file.replace(".", r"\.")):
        TextToImage.from_pretrained(saved)


@pytest.mark.parametrize(
    ("part", "key", "value", "told"),
    [
        ("generator", "width", 8, r"another architecture.*generator\.start\.weight \(320, 16\) instead of \(640, 16\)"),
        ("generator", "width", 10**9, "width=1000000000 is"),
        ("generator", "width", "4", "width='4' is not of type int"),
        ("generator", "depth", 4, 'unknown key "depth"'),
        ("generator", "image_size", 64, r"discriminator has \(image_size, text_size\)=\(32, 16\), not \(64, 16\)"),
        ("generator", "text_size", 32, r"generator has \(image_size, text_size\)=\(32, 32\), not \(32, 16\)"),
        ("discriminator", "hidden", 10**9, "hidden=1000000000 is"),
        ("text_encoder", "width", 10**9, "width=1000000000 is"),
        ("text_encoder", "vocab_size", 260, "of another tokenizer.json"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(saved, part, key, value, told):
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    config[part][key] = value
    (saved / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CourseError, match=told):
        TextToImage.from_pretrained(saved)


@pytest.mark.parametrize(("key", "value"), [("vocabulary", 5), ("training", []), ("generator", None), ("kind", ["x"])])
def test_configurations_with_wrong_types_are_refused(saved, key, value):
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    (saved / CONFIG).write_text(json.dumps({**config, key: value}), encoding="utf-8")
    with pytest.raises(CourseError):
        TextToImage.from_pretrained(saved)


def test_a_tokenizer_of_another_model_is_refused(saved):
    shutil.copy(find_checkpoint("gpt-captions") / "tokenizer.json", saved)
    with pytest.raises(CourseError, match="of another tokenizer.json"):
        TextToImage.from_pretrained(saved)


def test_weights_that_are_no_numbers_are_refused(saved):
    tensors, config = load_checkpoint(saved)
    tensors["generator.to_rgb.weight"][0, 0] = float("nan")
    save_checkpoint(saved, tensors, config, {"tokenizer.json": (saved / "tokenizer.json").read_text(encoding="utf-8")})
    with pytest.raises(CourseError, match="not finite"):
        TextToImage.from_pretrained(saved)


def test_parts_of_different_models_are_refused(model):
    stranger = Discriminator(DiscriminatorConfig(32, text_size=24, width=4, hidden=8))
    with pytest.raises(CourseError, match=r"discriminator has .*\(32, 24\), not \(32, 16\); use parts of one model"):
        TextToImage(model.generator, stranger, model.text_encoder, model.tokenizer)


def test_the_shipped_model_draws_in_both_languages():
    model, judge = TextToImage.from_pretrained("shapes-32"), load_judge(32)
    seen = judge.read(
        model.sample(["a large red circle at the center on navy", "藏青色背景上，中间有一个大的红色圆形"], 4)
    )
    scene = {"size": "large", "color": "red", "shape": "circle", "position": "center", "background": "navy"}
    assert (seen == judge.labels([scene])).float().mean() > 0.9


def test_in_painting_keeps_what_the_mask_leaves():
    model = tiny_model()
    image = model.sample(PROMPTS[0], 1, seed=9)[0]
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:, :16] = True
    painted = model.sample(PROMPTS[1], 2, image=image, mask=mask)
    assert torch.equal(painted[:, :, :, 16:], image[:, :, 16:].expand(2, -1, -1, -1))
    assert not torch.equal(painted[0, :, :, :16], image[:, :, :16])


@pytest.mark.parametrize("image, mask", [(None, torch.ones(32, 32)), (torch.zeros(3, 32, 32), torch.ones(16, 16))])
def test_a_mask_without_its_image_is_refused(image, mask):
    with pytest.raises(CourseError, match="mask"):
        tiny_model().sample(PROMPTS[0], image=image, mask=mask.bool())


def test_a_generator_that_reads_tokens_draws_and_is_loaded_again(tmp_path):
    model = tiny_model(conditioning="cross-attention")
    pictures = model.sample(PROMPTS[:2], 2, steps_per_sample=1)
    loaded = TextToImage.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.sample(PROMPTS[:2], 2, steps_per_sample=1), pictures)
    assert loaded.sample(PROMPTS[0], 1, image=pictures[0]).shape == (1, 3, 32, 32)


def test_the_shipped_models_pictures_grow_alike_and_stay_right_under_truncation():
    model, judge = TextToImage.from_pretrained("shapes-32"), load_judge(32)
    scene = {"size": "large", "color": "red", "shape": "circle", "position": "center", "background": "navy"}
    drawn = [model.sample("a large red circle at the center on navy", 32, truncation=x) for x in (1, 0.5, 0)]
    spread = [pictures.std(0).mean().item() for pictures in drawn]
    assert spread[0] > 1.3 * spread[1] > 1.3 * spread[2]
    assert all((judge.read(pictures) == judge.labels([scene])).float().mean() > 0.95 for pictures in drawn)


def test_the_shipped_model_takes_from_a_picture_what_the_prompt_leaves_open():
    model, judge = TextToImage.from_pretrained("shapes-32"), load_judge(32)
    for background in SINGLE["background"]:
        scene = {"size": "large", "color": "blue", "shape": "circle", "position": "center", "background": background}
        drawn = model.sample("a yellow star", 8, image=pictures_like(scene, 32, seed=1)[0])
        seen = judge.read(drawn)  # (8, A)
        wanted = judge.labels([{**scene, "color": "yellow", "shape": "star"}])
        right = (seen == wanted).float().mean(0)  # of size, color, shape, position, background
        assert right[1] == 1 and right[2] > 0.8 and right[4] == 1, (background, right)

"""The adversarial loop learns what it is taught, and only that; and goes on exactly where it stopped."""

import json
import math
from dataclasses import replace

import pytest
import torch

from course_lib.batches import Batch, EmbeddedPictures, moved, repeated, step_random
from course_lib.data import CaptionedShapes
from course_lib.data.captions import SINGLE
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.gan import GAN_LOSSES
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.images import to_uint8
from course_lib.listeners import Checkpoints, MetricsLog, SampleGrids
from course_lib.long_recipes import new_trainer
from course_lib.losses import discriminator_loss, r1_penalty
from course_lib.metrics import attribute_accuracy
from course_lib.presets import get_preset, override
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.training import AdversarialTrainer, Drawn, TrainConfig, learning_rate_at, matching_aware_loss, train

TEXT_SIZE = 32


def embed(scenes: list[dict[str, str]]) -> torch.Tensor:
    """A stand-in for the text encoder: a fixed random vector for each value, added up."""
    random = torch.Generator().manual_seed(5)
    table = {value: torch.randn(TEXT_SIZE, generator=random) for values in SINGLE.values() for value in values}
    return torch.stack([sum(table[v] for v in scene.values()) for scene in scenes]) / len(SINGLE) ** 0.5


def make_data(length: int = 2000, image_size: int = 32, shuffled: bool = False) -> EmbeddedPictures:
    pictures = CaptionedShapes(image_size=image_size, length=length, grammar="small")
    texts = embed([pictures.attributes(i) for i in range(length)])
    if shuffled:
        texts = texts[torch.randperm(length, generator=torch.Generator().manual_seed(1))]
    return EmbeddedPictures(to_uint8(pictures.images(range(length))), texts, torch.zeros(TEXT_SIZE))


def make_trainer(image_size: int = 32, width: int = 24, **settings) -> AdversarialTrainer:
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(image_size, 16, TEXT_SIZE, 32, width))
    discriminator = Discriminator(DiscriminatorConfig(image_size, TEXT_SIZE, width, 64))
    return AdversarialTrainer(generator, discriminator, TrainConfig(**settings))


def batch_of(data: EmbeddedPictures, config: TrainConfig, random: torch.Generator) -> Batch:
    return data.batch(config.batch_size, config.text_dropout, config.text_noise, random)


def small_trainer(**settings) -> AdversarialTrainer:
    return make_trainer(16, 4, **{"steps": 12, "batch_size": 8, **settings})


def weights(trainer: AdversarialTrainer) -> dict[str, torch.Tensor]:
    return {f"{n}/{k}": x.clone() for n, part in trainer.parts().items() for k, x in part.state_dict().items()}


def assert_same_weights(one: AdversarialTrainer, other: AdversarialTrainer) -> None:
    for (name, a), b in zip(weights(one).items(), weights(other).values(), strict=True):
        assert torch.equal(a, b), name


def learned(shuffled: bool) -> dict[str, float]:
    """Accuracy on combinations it never saw, after a short training."""
    trainer = make_trainer(steps=260, batch_size=32, average_decay=0.95)
    train(trainer, make_data(shuffled=shuffled), progress=None)
    exam = CaptionedShapes("heldout", 32, length=200, grammar="small")
    scenes = [exam.attributes(i) for i in range(200)]
    z = torch.randn(200, 16, generator=step_random(0, 0))
    with torch.no_grad():
        images = trainer.average.model(z, embed(scenes))
    return attribute_accuracy(load_judge(32), images, scenes)


@pytest.mark.slow
def test_a_small_gan_learns_to_follow_captions_of_unseen_combinations():
    marks = learned(shuffled=False)
    assert marks["position"] > 0.8 and marks["color"] > 0.6, marks


@pytest.mark.slow
def test_with_shuffled_captions_it_cannot():
    marks = learned(shuffled=True)
    assert marks["position"] < 0.4 and marks["color"] < 0.35, marks  # chance is 0.20 and 0.17


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    data = make_data(64, 16)
    one, same, other = small_trainer(), small_trainer(), small_trainer(seed=1)
    for trainer in (one, same, other):
        train(trainer, data, progress=None)
    assert_same_weights(one, same)
    assert not torch.equal(one.generator.start.weight, other.generator.start.weight)


def test_a_resumed_run_ends_in_the_same_weights_bit_for_bit(tmp_path):
    data = make_data(64, 16)
    whole = small_trainer()
    train(whole, data, progress=None)
    first = small_trainer()
    train(first, data, [Checkpoints(tmp_path / "last", 5)], stop=lambda: first.steps_done == 7, progress=None)
    second = small_trainer(seed=0)
    second.load(tmp_path / "last")
    assert second.steps_done == 5
    train(second, data, progress=None)
    assert_same_weights(whole, second)


def test_metrics_have_each_step_once_after_a_resume(tmp_path):
    data, path = make_data(64, 16), tmp_path / "metrics.jsonl"
    first = small_trainer()
    listeners = [MetricsLog(path), Checkpoints(tmp_path / "last", 5)]
    train(first, data, listeners, stop=lambda: first.steps_done == 8, progress=None)
    second = small_trainer()
    second.load(tmp_path / "last")
    train(second, data, [MetricsLog(path, second.steps_done)], progress=None)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert all({"loss_d", "loss_g", "learning_rate"} <= row.keys() for row in rows)


def test_one_generator_pass_serves_both_players():
    trainer, passes = small_trainer(), []
    trainer.generator.register_forward_hook(lambda *_: passes.append(1))
    trainer.step(make_data(64, 16))
    assert len(passes) == 1


def test_each_player_changes_only_itself():
    trainer, data = small_trainer(), make_data(64, 16)
    batch = batch_of(data, trainer.config, step_random(0, 0))
    drawn = trainer.draw(batch, step_random(0, 1))
    before = weights(trainer)
    trainer.discriminator_step(batch, drawn, step_random(0, 2))
    changed = {n.split("/")[0] for n, x in weights(trainer).items() if not torch.equal(x, before[n])}
    assert changed == {"discriminator", "discriminator_optimizer"}
    before = weights(trainer)
    trainer.generator_step(batch, drawn, step_random(0, 2))
    changed = {n.split("/")[0] for n, x in weights(trainer).items() if not torch.equal(x, before[n])}
    assert changed == {"generator", "generator_optimizer"}
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_each_caption_is_drawn_twice_from_different_noise():
    trainer, data = small_trainer(), make_data(64, 16)
    drawn = trainer.draw(batch_of(data, trainer.config, step_random(0, 0)), step_random(0, 1))
    assert torch.equal(drawn.texts[:4], drawn.texts[4:]) and not torch.equal(drawn.z[:4], drawn.z[4:])
    assert drawn.images.shape == (8, 3, 16, 16)


def batch_settings(**settings) -> TrainConfig:
    return TrainConfig(**{"batch_size": 8, "text_dropout": 0.0, "text_noise": 0.0, **settings})


def test_batches_mark_which_captions_are_wrong():
    data = make_data(64, 16)
    data.texts[:] = data.texts[0]  # one caption for all: none of the shifted ones is wrong
    assert not batch_of(data, batch_settings(text_noise=0.2), step_random(0, 0)).wrong.any()
    data = make_data(64, 16)
    assert batch_of(data, batch_settings(), step_random(0, 0)).wrong.all()
    dropped = batch_of(data, batch_settings(text_dropout=1.0), step_random(0, 0))
    assert torch.equal(dropped.texts, torch.zeros(8, TEXT_SIZE)) and not dropped.wrong.any()
    some = batch_of(data, batch_settings(batch_size=64, text_dropout=0.5), step_random(0, 0))
    empty = (some.wrong_texts == 0).all(1)
    assert empty.any() and not some.wrong[empty].any() and some.images.abs().max() <= 1


def test_text_noise_blurs_the_embeddings_and_nothing_else():
    data = make_data(64, 16)
    plain, noisy = (batch_of(data, batch_settings(batch_size=64, text_noise=n), step_random(0, 0)) for n in (0.0, 0.3))
    assert torch.equal(plain.images, noisy.images) and torch.equal(plain.wrong, noisy.wrong)
    assert (noisy.texts - plain.texts).std().item() == pytest.approx(0.3, rel=0.1)


def test_matching_aware_loss_is_what_punishes_a_wrong_caption():
    data, results = make_data(256, 16), {}
    for matching_aware in (True, False):
        trainer = make_trainer(16, 8, steps=60, batch_size=32, matching_aware=matching_aware)
        for step in range(60):
            batch = batch_of(data, trainer.config, step_random(0, step))
            blank = Drawn(torch.zeros_like(batch.images), batch.texts, batch.texts)  # fakes anyone can tell
            trainer.discriminator_step(batch, blank, step_random(0, 2))
            trainer.steps_done += 1
        batch = batch_of(data, batch_settings(batch_size=200), step_random(9, 0))
        with torch.no_grad():
            right, wrong = (trainer.discriminator(batch.images, t) for t in (batch.texts, batch.wrong_texts))
        results[matching_aware] = (right - wrong).mean().item()
    assert results[True] > 1 and results[False] < 0.3, results


def test_mse_term_pulls_towards_the_real_picture():
    data, far = make_data(64, 16), {}
    for weight in (1e-9, 100.0):
        trainer = small_trainer(steps=30, mse_weight=weight)
        train(trainer, data, progress=None)
        batch = batch_of(data, trainer.config, step_random(0, 0))
        drawn = trainer.draw(batch, step_random(0, 1))
        mse = (drawn.images - repeated(batch.images, 2)).square().mean().item()
        losses = trainer.generator_step(batch, drawn, step_random(0, 2))
        assert losses["mse"].item() == pytest.approx(mse, rel=1e-4)
        far[weight] = mse
    assert far[100.0] < 0.8 * far[1e-9], far


def test_moved_pictures_are_the_same_ones_a_few_pixels_away():
    images = torch.rand(6, 3, 8, 8, requires_grad=True)
    assert moved(images, 0, step_random(0, 0)) is images
    shifts = torch.randint(-2, 3, (2, 6, 1), generator=step_random(0, 0))  # as `moved` draws them
    result = moved(images, 2, step_random(0, 0))
    for picture, other, down, right in zip(images, result, *shifts[:, :, 0].tolist(), strict=True):
        padded = torch.nn.functional.pad(picture[None], (2, 2, 2, 2), mode="replicate")[0]
        assert torch.equal(other, padded[:, 2 + down : 10 + down, 2 + right : 10 + right])
    result.sum().backward()
    assert images.grad.sum().item() == pytest.approx(result.numel())  # every pixel seen is one of the picture's


def test_without_mode_seeking_every_caption_of_the_batch_is_drawn_once():
    trainer = small_trainer(mode_seeking_weight=0.0)
    batch = batch_of(make_data(64, 16), trainer.config, step_random(0, 0))
    assert torch.equal(trainer.draw(batch, step_random(0, 1)).texts, batch.texts)


def test_mode_seeking_makes_different_noise_draw_different_pictures():
    data, spread = make_data(64, 16), {}
    for weight in (0.0, 0.1):
        trainer = small_trainer(steps=40, mode_seeking_weight=weight)
        train(trainer, data, progress=None)
        drawn = trainer.draw(batch_of(data, trainer.config, step_random(0, 0)), step_random(0, 1)).images
        spread[weight] = (drawn[:4] - drawn[4:]).abs().mean().item()
    assert spread[0.1] > 1.5 * spread[0.0], spread


def test_a_twin_is_the_wrong_caption_half_of_the_time():
    data = make_data(64, 16)
    data.twins = data.texts + 10
    data.twins[:32] = data.texts[:32]  # these have none
    batch = data.batch(64, 0.0, 0.0, step_random(0, 0))
    hard = (batch.wrong_texts - batch.texts - 10).abs().amax(1) < 1e-4
    assert 8 < hard.sum() <= 32 and batch.wrong[hard].all()
    easy = torch.equal(batch.wrong_texts[~hard], batch.texts.roll(1, 0)[~hard])
    assert easy
    dropped = data.batch(64, 1.0, 0.0, step_random(0, 0))
    assert not dropped.wrong.any()


def test_any_loss_takes_wrong_captions_as_fakes():
    real, fake, wrong = torch.tensor([[2.0, -1.0, 0.5], [-2.0, 0.0, 0.0], [3.0, -3.0, 9.0]])
    mask = torch.tensor([True, True, False])
    with_fakes = (0 + 2 + 0.5) / 3 + (0 + 1 + 1) / 3  # relu(1 - real) + relu(1 + fake)
    with_wrong = (0 + 2) / 2 + (4 + 0) / 2
    assert matching_aware_loss("hinge", real, fake, wrong, mask) == pytest.approx((with_fakes + with_wrong) / 2)
    assert matching_aware_loss("hinge", real, fake, None, mask) == pytest.approx(with_fakes)
    assert matching_aware_loss("hinge", real, fake, wrong, ~torch.ones(3, dtype=bool)) == pytest.approx(with_fakes)
    plain = discriminator_loss(real, fake, wrong, mask)
    assert matching_aware_loss("non-saturating", real, fake, wrong, mask) == plain


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_every_loss_trains_and_changes_the_weights_in_its_own_way(loss):
    trainer, other = small_trainer(loss=loss), small_trainer(loss="hinge" if loss != "hinge" else "saturating")
    for one in (trainer, other):
        assert all(math.isfinite(x) for x in one.step(make_data(64, 16)).values())
    assert not torch.equal(trainer.generator.start.weight, other.generator.start.weight)


def test_r2_holds_the_slope_on_fakes_down():
    data, slope = make_data(64, 16), {}
    for weight in (0.0, 20.0):
        trainer = small_trainer(steps=30, r1_every=1, r2_weight=weight)
        train(trainer, data, progress=None)
        batch = batch_of(data, trainer.config, step_random(0, 0))
        fake = trainer.draw(batch, step_random(0, 1)).images.detach().requires_grad_(True)
        slope[weight] = r1_penalty(trainer.discriminator(fake, batch.texts), fake).item()
    assert slope[20.0] < 0.5 * slope[0.0], slope


def test_r2_works_without_r1():
    trainers = [small_trainer(r1_weight=0.0, r2_weight=weight, r1_every=1) for weight in (0.0, 5.0)]
    for trainer in trainers:
        trainer.step(make_data(64, 16))
    weights_of_d = [trainer.discriminator.hidden.weight for trainer in trainers]
    assert not torch.equal(*weights_of_d)


def test_the_contrastive_loss_wants_an_image_encoder_and_is_weighted():
    with pytest.raises(CourseError, match="contrastive_weight=0.5 needs an image_encoder"):
        small_trainer(contrastive_weight=0.5)
    eye = ImageEncoder(ImageEncoderConfig(16, 4, TEXT_SIZE)).eval().requires_grad_(False)
    found, data = {}, make_data(64, 16)
    for weight in (1e-9, 5.0):
        players = small_trainer()
        config = replace(players.config, contrastive_weight=weight, steps=40)
        trainer = AdversarialTrainer(players.generator, players.discriminator, config, eye)
        seen = []
        train(trainer, data, [lambda _, losses, seen=seen: seen.append(losses["contrastive"])], progress=None)
        found[weight] = sum(seen[-5:]) / 5
    assert found[5.0] < found[1e-9], found


@pytest.mark.parametrize("name, told", [("shapes-32", None), ("emoji-32", "sees 64 x 64"), ("cub-64", "MiniLM|minilm")])
def test_a_run_with_the_contrastive_loss_takes_the_image_encoder_of_its_text_encoder(name, told):
    preset = override(get_preset(name), {"contrastive_weight": 0.3, "batch_size": 4})
    if told:
        with pytest.raises(CourseError, match=f"contrastive_weight=0.3 needs an image encoder.*({told})"):
            new_trainer(preset, torch.device("cpu"))
        return
    trainer, texts = new_trainer(preset, torch.device("cpu")), torch.randn(8, preset.generator.text_size)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    assert trainer.step(EmbeddedPictures(images, texts, texts[0]))["contrastive"] > 0


def test_learning_rate_is_constant_and_then_falls():
    config = TrainConfig(learning_rate=1e-3, constant=0.5)
    rates = [learning_rate_at(config, p) for p in (0, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-5])


def test_a_loss_that_is_not_finite_ends_the_run_with_words():
    trainer = small_trainer()
    trainer.generator.start.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step"):
        train(trainer, make_data(64, 16), progress=None)


def test_one_update_with_an_infinite_gradient_is_left_out_and_the_run_goes_on():
    trainer, data = small_trainer(steps=4), make_data(64, 16)
    weight, calls = trainer.discriminator.hidden.weight, []

    def spoil(gradient):
        calls.append(gradient)
        return gradient * float("inf") if len(calls) == 2 else gradient

    weight.register_hook(spoil)
    trainer.step(data)
    before = {name: x.clone() for name, x in trainer.discriminator.state_dict().items()}
    average = trainer.average.model.start.weight.clone()
    trainer.step(data)  # the discriminator's update is the one that is spoiled
    assert all(x.equal(before[name]) for name, x in trainer.discriminator.state_dict().items())
    assert trainer.average.model.start.weight.equal(average) and len(trainer.skipped) == 1
    assert "the gradient of discriminator.hidden.weight (loss " in trainer.skipped[0]
    trainer.step(data)
    assert trainer.skipped == [] and not trainer.discriminator.hidden.weight.equal(before["hidden.weight"])


def test_a_run_in_which_every_update_fails_stops_and_says_where():
    trainer, data = small_trainer(steps=100), make_data(64, 16)
    trainer.generator.to_rgb.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 20: 21 updates in a row .* generator.to_rgb.weight .* was not"):
        train(trainer, data, progress=None)


def test_time_limit_ends_the_run(tmp_path):
    trainer = small_trainer(steps=10**6)
    train(trainer, make_data(64, 16), seconds=0.3, progress=None)
    assert 0 < trainer.steps_done < 10**5
    assert trainer.generator_optimizer.lr < trainer.config.learning_rate


def test_sample_grids_are_drawn_from_the_same_noise(tmp_path):
    trainer = small_trainer(steps=4)
    grids = SampleGrids(tmp_path, make_data(64, 16).texts[:8], every=2)
    before = grids.draw(trainer)
    assert torch.equal(before, grids.draw(trainer))
    train(trainer, make_data(64, 16), [grids], progress=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002.png", "step-000004.png"]
    assert not torch.equal(before, grids.draw(trainer))


def test_states_of_other_runs_are_refused(tmp_path):
    small_trainer().save(tmp_path / "small")
    with pytest.raises(CourseError, match="another architecture"):
        make_trainer(16, 8).load(tmp_path / "small")
    with pytest.raises(CourseError):
        small_trainer().load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"text_dropout": 2.0},
        {"batch_size": 7},
        {"batch_size": 10**8},
        {"seed": -1},
        {"mse_weight": -1.0},
    ],
)
def test_impossible_settings_are_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(CourseError, match=f"{name}={value}"):
        TrainConfig(**wrong)


def test_generators_that_read_tokens_are_given_them():
    torch.manual_seed(0)
    data = make_data(64, 16)
    tokens = torch.randn(64, 5, TEXT_SIZE).half()
    data = EmbeddedPictures(data.images, data.texts, data.empty, tokens, torch.zeros(5, TEXT_SIZE).half())
    generator = Generator(GeneratorConfig(16, 16, TEXT_SIZE, 8, 4, conditioning="cross-attention"))
    discriminator = Discriminator(DiscriminatorConfig(16, TEXT_SIZE, 4, 16))
    trainer = AdversarialTrainer(generator, discriminator, TrainConfig(steps=2, batch_size=8, text_dropout=0.0))
    before = generator.attention.key_value.weight.clone()
    train(trainer, data, progress=None)
    assert not torch.equal(before, generator.attention.key_value.weight)


@pytest.mark.parametrize("damage", [{"steps_done": -5}, {"steps_done": 10**30}, {"steps_done": None}, {"seconds": "x"}])
def test_damaged_states_are_refused(tmp_path, damage):
    trainer = small_trainer()
    trainer.save(tmp_path / "state")
    config = json.loads((tmp_path / "state" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "state" / "config.json").write_text(json.dumps({**config, **damage}), encoding="utf-8")
    with pytest.raises(CourseError, match="damaged"):
        trainer.load(tmp_path / "state")

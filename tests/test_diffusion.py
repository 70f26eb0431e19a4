"""Diffusion: the arithmetic against exact answers, the network's ears, and a small model that learns to listen."""

import json
import math

import pytest
import torch
from torch.autograd import grad
from torch.nn.functional import group_norm as torch_group_norm

from course_lib import layers
from course_lib.batches import step_random
from course_lib.checkpoint import load_checkpoint, save_checkpoint
from course_lib.denoising import (
    ALPHA_BAR,
    CLEAN_FROM,
    TARGETS,
    TIMES,
    add_noise,
    clean_from_epsilon,
    clean_from_velocity,
    cosine_schedule,
    ddim_sample,
    ddim_step,
    ddpm_sample,
    dynamic_threshold,
    epsilon_from_clean,
    guide,
    sampling_times,
    static_threshold,
    velocity,
)
from course_lib.diffusion import DiffusionTextToImage, diffusion_loss, draw_pictures, predict
from course_lib.errors import CourseError
from course_lib.fit import fit
from course_lib.optim import Adam
from course_lib.text_encoder import TextEncoder, TextEncoderConfig
from course_lib.tokenizer import Tokenizer
from course_lib.unet import DiffusionConfig, UNet, silu, time_embedding

TEXT_SIZE = 16


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- group normalisation (layers.py)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("shape, groups", [((2, 8, 5, 3), 4), ((3, 6), 3), ((2, 4, 7), 1), ((2, 4, 3, 3), 4)])
def test_group_norm_is_torchs(shape, groups, scale):
    input = (random(*shape) * scale).requires_grad_()
    weight, bias = (random(shape[1], seed=seed).requires_grad_() for seed in (1, 2))
    for extra in ([], [weight, bias]):
        ours, theirs = (f(input, groups, *extra) for f in (layers.group_norm, torch_group_norm))
        torch.testing.assert_close(ours, theirs)
        wanted, direction = [input, *extra], random(*shape, seed=3)
        for a, b in zip(grad(ours, wanted, direction), grad(theirs, wanted, direction), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 / scale)


@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_layer_stands_in_for_torchs(affine):
    theirs = torch.nn.GroupNorm(4, 8, affine=affine)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    for backend in ("ours", "torch"):
        ours = layers.GroupNorm(4, 8, affine=affine, backend=backend)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        torch.testing.assert_close(ours(x), theirs(x))
    if affine:
        assert layers.init_dcgan_(ours).weight.std() > 0.001


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="num_groups=3"):
        layers.GroupNorm(3, 8)
    with pytest.raises(ValueError, match="num_groups=3"):
        layers.group_norm(torch.zeros(1, 8), 3)


# ---- schedule and forward process


def test_cosine_schedule_is_the_papers():
    schedule = cosine_schedule(1000)
    assert schedule.shape == (1001,) and schedule[0] == 1 and (schedule.diff() < 0).all()
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1000)]
    torch.testing.assert_close(schedule[:1000], torch.tensor(f, dtype=torch.float64) / f[0])
    betas = 1 - schedule[1:] / schedule[:-1]
    assert betas.max() == pytest.approx(0.999) and 0 < schedule[-1] < 1e-8  # the last step is the one that is clipped
    assert betas.argmax() == 999 and schedule[500] == pytest.approx(0.4938, abs=1e-4)


def test_adding_noise_at_once_is_adding_it_step_by_step():
    schedule = cosine_schedule(20)
    clean, noisy = torch.full((200_000,), 0.7), torch.full((200_000,), 0.7)
    for now, before in zip(schedule[1:13], schedule[:12], strict=True):
        noisy = (now / before).sqrt().float() * noisy + (1 - now / before).sqrt().float() * torch.randn(200_000)
    at_once = add_noise(clean, torch.randn(200_000), schedule[12:13])
    for sample in (noisy, at_once):
        assert sample.mean().item() == pytest.approx(0.7 * schedule[12].item() ** 0.5, abs=0.01)
        assert sample.var().item() == pytest.approx(1 - schedule[12].item(), abs=0.01)


def test_each_picture_has_its_own_amount_of_noise():
    clean, noise = torch.ones(3, 3, 2, 2), torch.full((3, 3, 2, 2), 10.0)
    noisy = add_noise(clean, noise, torch.tensor([1.0, 0.64, 0.0]))
    assert [x.unique().item() for x in noisy] == pytest.approx([1.0, 0.8 + 6.0, 10.0])


def test_epsilon_and_velocity_tell_the_same():
    clean, noise, alpha_bar = random(4, 3, 2, 2), random(4, 3, 2, 2, seed=1), torch.tensor([0.999, 0.7, 0.2, 1e-6])
    noisy, v = add_noise(clean, noise, alpha_bar), velocity(clean, noise, alpha_bar)
    torch.testing.assert_close(clean_from_velocity(noisy, v, alpha_bar), clean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(clean_from_epsilon(noisy, noise, alpha_bar.double()), clean, rtol=1e-6, atol=1e-3)
    from_v = clean_from_velocity(noisy, v, alpha_bar)
    torch.testing.assert_close(epsilon_from_clean(noisy, from_v, alpha_bar), noise, rtol=1e-3, atol=1e-3)


def test_velocity_is_the_derivative_by_the_angle():
    clean, noise = random(1, 5), random(1, 5, seed=1)
    angle = torch.tensor([0.4], dtype=torch.float64)
    ahead, behind = (add_noise(clean, noise, (angle + step).cos() ** 2) for step in (1e-5, -1e-5))
    torch.testing.assert_close(velocity(clean, noise, angle.cos() ** 2), (ahead - behind) / 2e-5)


# ---- samplers

MEAN, STD = 0.3, 0.25  # of data that is one Gaussian: its best denoiser is known exactly


def gaussian_denoiser(schedule):
    def denoise(noisy, time):
        a = schedule[time].item()
        return MEAN + a**0.5 * STD**2 / (a * STD**2 + 1 - a) * (noisy - a**0.5 * MEAN)

    return denoise


def test_ddim_takes_each_noise_where_the_exact_flow_takes_it():
    noise = random(1000, 1)
    drawn = ddim_sample(gaussian_denoiser(ALPHA_BAR), noise, sampling_times(TIMES), ALPHA_BAR)
    torch.testing.assert_close(drawn, MEAN + STD * noise, rtol=0, atol=5e-3)
    coarse = ddim_sample(gaussian_denoiser(ALPHA_BAR), noise, sampling_times(5), ALPHA_BAR)
    assert 0.01 < (coarse - drawn).abs().max() < 0.5  # few steps cost exactness


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, "ddpm"])
def test_samplers_find_the_data_again(eta):
    schedule, noise, source = cosine_schedule(200), random(20_000, 1), torch.Generator().manual_seed(1)

    def draw():
        return torch.randn(noise.shape, generator=source, dtype=noise.dtype)

    settings = (gaussian_denoiser(schedule), noise, sampling_times(200, 200), schedule, draw)
    drawn = ddpm_sample(*settings) if eta == "ddpm" else ddim_sample(*settings, eta)
    assert drawn.mean() == pytest.approx(MEAN, abs=0.01) and drawn.std() == pytest.approx(STD, abs=0.01)


@pytest.mark.parametrize("steps", [TIMES, 7])
def test_ddim_with_eta_1_is_ddpm(steps):
    def draws():
        source = torch.Generator().manual_seed(1)
        return lambda: torch.randn(2, 3, 4, 4, generator=source, dtype=torch.float64)

    def denoise(noisy, time):  # any function will do
        return torch.tanh(noisy + time / TIMES)

    settings = (denoise, random(2, 3, 4, 4), sampling_times(steps), ALPHA_BAR)
    ddpm = ddpm_sample(*settings, draws())
    torch.testing.assert_close(ddim_sample(*settings, draws(), eta=1.0), ddpm, rtol=1e-9, atol=1e-9)
    assert (ddim_sample(*settings, draws(), eta=0.0) - ddpm).abs().max() > 0.01


def test_ddim_by_hand():
    noisy, clean = torch.tensor([[1.0]]), torch.tensor([[0.5]])
    # epsilon = (1 - 0.6 * 0.5) / 0.8 = 0.875; earlier = 0.8 * 0.5 + 0.6 * 0.875
    assert ddim_step(noisy, clean, 0.36, 0.64, None, 0.0).item() == pytest.approx(0.925)
    assert ddim_step(noisy, clean, 0.36, 1.0, None, 0.0).item() == pytest.approx(0.5)


def test_sampling_times_fall_from_noise_to_picture():
    assert sampling_times(4) == [1000, 750, 500, 250, 0] and sampling_times(1) == [1000, 0]
    assert sampling_times(TIMES) == list(range(TIMES, -1, -1))
    assert sampling_times(3) == [1000, 667, 333, 0] and len(set(sampling_times(700, 700))) == 701


# ---- guidance and thresholds


def test_guidance_is_the_same_in_noise_velocity_and_picture():
    clean, noise, alpha_bar = random(2, 2, 5), random(2, 2, 5, seed=1), torch.tensor([0.3, 0.8])
    noisy = add_noise(clean[0], noise[0], alpha_bar)
    picture = guide(clean[0], clean[1], 3.0)
    for kind in ("epsilon", "v"):
        told = []
        for guess in clean:
            epsilon = epsilon_from_clean(noisy, guess, alpha_bar)
            told.append(TARGETS[kind](guess, epsilon, alpha_bar))
        torch.testing.assert_close(CLEAN_FROM[kind](noisy, guide(*told, 3.0), alpha_bar), picture, rtol=1e-5, atol=1e-5)
    assert guide(clean[0], clean[1], 0.0).equal(clean[1])
    torch.testing.assert_close(guide(clean[0], clean[1], 1.0), clean[0])


def test_thresholds_by_hand():
    glaring = torch.tensor([[-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 3.0], [0.1] * 9 + [-1.5]])
    assert static_threshold(glaring)[0].tolist() == [-1, -1, -1, 0, 0.5, 1, 1, 1, 1, 1]
    # 8 of 10 are at most 2: divided by 2, and the two larger ones cut. The second has 8 of 10 within 1: it is only cut
    dynamic = dynamic_threshold(glaring, 0.8)
    assert dynamic[0].tolist() == [-1, -1, -0.5, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert dynamic[1].tolist() == pytest.approx([0.1] * 9 + [-1])
    assert dynamic_threshold(glaring, 1.0)[0, 1] == -0.5
    assert dynamic_threshold(5 * torch.randn(2, 3, 8, 8)).abs().max() <= 1


# ---- the network


def make_unet(**settings) -> UNet:
    torch.manual_seed(0)
    unet = UNet(DiffusionConfig(**{"image_size": 16, "text_size": TEXT_SIZE, "width": 8, "heads": 2, **settings}))
    for parameter in unet.parameters():  # the layers that start at zero would hide what comes before them
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return unet.eval()


def inputs(unet: UNet, count: int = 2):
    size = unet.config.image_size
    noisy = torch.randn(count, 3, size, size)
    time, tokens = torch.randint(1, TIMES, (count,)), torch.randn(count, 5, TEXT_SIZE)
    mask = torch.arange(5) < torch.tensor([3, 5])[:count, None]
    low = (torch.randn(count, 3, size // 2, size // 2), torch.tensor([0, 500])[:count])
    return [noisy, time, tokens, mask, *(low if unet.config.super_resolution else ())]


@pytest.mark.parametrize("image_size, channels", [(16, (8,)), (32, (8, 16)), (64, (8, 16, 16))])
@pytest.mark.parametrize("super_resolution", [False, True])
def test_unet_answers_in_the_pictures_shape(image_size, channels, super_resolution):
    unet = make_unet(image_size=image_size, super_resolution=super_resolution)
    assert unet.config.channels == channels
    given = inputs(unet)
    output = unet(*given)
    assert output.shape == given[0].shape and output.isfinite().all()
    for one in range(2):  # no picture sees another one
        torch.testing.assert_close(
            unet(*(x[one : one + 1] for x in given)), output[one : one + 1], rtol=1e-4, atol=1e-5
        )


def test_a_new_unet_predicts_nothing():
    unet = UNet(DiffusionConfig(16, TEXT_SIZE, 8, 2))
    assert unet(*inputs(unet)).abs().max() == 0


@pytest.mark.parametrize("super_resolution", [False, True])
def test_every_part_of_the_unet_takes_part(super_resolution):
    unet = make_unet(image_size=32, super_resolution=super_resolution)
    unet(*inputs(unet)).square().sum().backward()
    assert [name for name, x in unet.named_parameters() if x.grad is None or not x.grad.abs().max() > 0] == []


def test_unet_hears_the_time_each_word_and_the_small_picture():
    unet = make_unet(super_resolution=True)
    given = inputs(unet)
    before = unet(*given)
    for place in range(len(given)):
        changed = list(given)
        if place == 2:
            changed[2] = given[2].clone()
            changed[2][1, 0] += 1.0  # a word that is not the last one: heard through attention only
        else:
            changed[place] = ~given[place] if place == 3 else given[place] * 0.5 + 1
        assert (unet(*changed) - before)[1].abs().max() > 1e-6, f"argument {place} is not heard"


def test_padding_and_withheld_captions_are_not_heard():
    unet = make_unet()
    noisy, time, tokens, mask = inputs(unet)
    other = tokens.masked_fill(~mask[..., None], 7.0)
    torch.testing.assert_close(unet(noisy, time, other, mask), unet(noisy, time, tokens, mask))
    nothing = torch.zeros_like(mask)
    silent = unet(noisy, time, tokens, nothing)
    assert silent.isfinite().all()
    torch.testing.assert_close(unet(noisy, time, tokens + 1, nothing), silent)


def test_small_pictures_are_for_super_resolution_only():
    with pytest.raises(ValueError, match="low is missing"):
        make_unet(super_resolution=True)(*inputs(make_unet()))
    with pytest.raises(ValueError, match="low is given"):
        make_unet()(*inputs(make_unet(super_resolution=True)))
    with pytest.raises(ValueError, match=r"\(B, 3, 32, 32\)"):
        make_unet(image_size=32)(*inputs(make_unet()))


def test_times_are_told_apart():
    table = time_embedding(torch.arange(TIMES + 1), 32)
    assert table.shape == (TIMES + 1, 32) and table[0].tolist() == [0.0] * 16 + [1.0] * 16
    assert torch.pdist(table).min() > 0.1
    torch.testing.assert_close(silu(table), torch.nn.functional.silu(table))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"image_size": 48}, "image_size=48"),
        ({"text_size": 0}, "text_size=0"),
        ({"width": 12}, "width=12"),
        ({"width": 10_000}, "width=10000"),
        ({"heads": 5}, "heads=5"),
        ({"heads": 0}, "heads=0"),
        ({"prediction": "epsilom"}, 'did you mean "epsilon"'),
    ],
)
def test_bad_sizes_are_refused(settings, message):
    with pytest.raises(CourseError, match=message):
        DiffusionConfig(**settings)


# ---- the loss


class Oracle(torch.nn.Module):
    """Knows that every picture is `clean`, and answers what it is asked for."""

    def __init__(self, clean: torch.Tensor, **settings):
        super().__init__()
        self.clean, self.config, self.seen = clean, DiffusionConfig(16, TEXT_SIZE, **settings), []

    def forward(self, noisy, time, tokens, mask, *low):
        self.seen.append((time, mask, *low))
        alpha_bar = ALPHA_BAR[time]
        noise = epsilon_from_clean(noisy, self.clean, alpha_bar)
        return TARGETS[self.config.prediction](self.clean, noise, alpha_bar)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_who_knows_the_picture_has_no_loss(prediction):
    images = torch.rand(1, 3, 16, 16).double().expand(64, -1, -1, -1)
    tokens, mask = torch.zeros(64, 5, TEXT_SIZE), torch.ones(64, 5, dtype=torch.bool)
    oracle = Oracle(images, prediction=prediction)
    assert diffusion_loss(oracle, images, tokens, mask, step_random(0, 0)) < 1e-12
    assert diffusion_loss(Oracle(images + 0.1, prediction=prediction), images, tokens, mask, step_random(0, 0)) > 1e-3


def test_loss_meets_all_times_and_withholds_captions():
    images = torch.rand(5000, 3, 16, 16)
    tokens, mask = torch.zeros(5000, 1, 1), torch.ones(5000, 1, dtype=torch.bool)
    oracle = Oracle(images, super_resolution=True)
    diffusion_loss(oracle, images, tokens, mask, step_random(0, 0), text_dropout=0.3)
    time, heard, low, low_time = oracle.seen[0]
    assert time.min() >= 1 and time.max() <= TIMES and time.float().mean() == pytest.approx(500, abs=15)
    assert heard.float().mean() == pytest.approx(0.7, abs=0.03)
    assert low_time.min() == 0 and low_time.max() == 500
    clearest = low_time < 10
    error = (low - layers.average_pool2d(images, 2)).flatten(1).std(1)
    assert error[clearest].max() < 0.1 and error[low_time > 400].min() > 0.4


def test_loss_repeats_with_its_source_of_chance():
    unet = make_unet()
    images, tokens, mask = torch.rand(4, 3, 16, 16), torch.randn(4, 5, TEXT_SIZE), torch.ones(4, 5, dtype=torch.bool)
    losses = [diffusion_loss(unet, images, tokens, mask, step_random(0, step)).item() for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


# ---- the whole model

CAPTIONS = ["a red picture", "a blue picture"]
COLORS = torch.tensor([[0.9, -0.8, -0.8], [-0.8, -0.8, 0.9]])


def make_model(upscale: bool = False) -> DiffusionTextToImage:
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(CAPTIONS, 300)
    encoder = TextEncoder(TextEncoderConfig(tokenizer.vocab_size, 16, TEXT_SIZE, 2, 1))
    upscaler = make_unet(image_size=32, super_resolution=True) if upscale else None
    return DiffusionTextToImage(
        make_unet(), upscaler, encoder, tokenizer, ["a", "red", "blue", "picture"], {"steps": 3}
    )


@pytest.fixture(scope="module")
def model() -> DiffusionTextToImage:
    return make_model()


def sample(model: DiffusionTextToImage, texts=CAPTIONS, **settings) -> torch.Tensor:
    return model.sample(texts, **{"n_samples": 2, "steps_per_sample": 3, **settings})


@pytest.mark.parametrize("upscale, size", [(False, 16), (True, 32)])
def test_pictures_come_in_order_by_seed_whatever_the_batch_size(upscale, size):
    model = make_model(upscale)
    pictures = sample(model)
    assert model.image_size == size and pictures.shape == (4, 3, size, size) and pictures.abs().max() <= 1
    assert sample(model).equal(pictures)
    torch.testing.assert_close(sample(model, batch_size=3), pictures, rtol=0, atol=1e-3)
    torch.testing.assert_close(sample(model, CAPTIONS[0]), pictures[:2], rtol=0, atol=1e-3)
    assert (sample(model, seed=1) - pictures).abs().max() > 0.1
    assert (pictures[0] - pictures[1]).abs().max() > 0.1


def test_guidance_of_1_is_the_plain_prediction(model):
    given = inputs(model.base)
    noisy, time, tokens, mask = given
    plain, without = model.base(*given), model.base(noisy, time, tokens, torch.zeros_like(mask))
    assert predict(model.base, given, 1).equal(plain)
    torch.testing.assert_close(predict(model.base, given, 0), without, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict(model.base, given, 3), without + 3 * (plain - without), rtol=1e-4, atol=1e-5)
    assert mask.any()  # the caller's mask is left as it was
    torch.testing.assert_close(
        sample(model, guidance_scale=1.000001), sample(model, guidance_scale=1), atol=1e-3, rtol=0
    )


def test_a_given_picture_is_begun_from(model):
    image = torch.full((3, 16, 16), 0.5)
    assert (sample(model, image=image) - sample(model)).abs().max() > 0.05
    assert sample(make_model(upscale=True), image=torch.zeros(3, 32, 32)).shape == (4, 3, 32, 32)
    clean = draw_pictures(Oracle(image[None]), *model.encode_text(CAPTIONS), [step_random(0, 0)] * 2, 4, image=image)
    torch.testing.assert_close(clean, image.expand(2, -1, -1, -1))


def test_tokens_are_embedded_as_the_encoder_reads_them(model):
    tokens, mask = model.encode_text(["red", *CAPTIONS])
    ids, expected = model.tokenizer.encode_batch(["red"], 16)
    length = ids.shape[1]
    torch.testing.assert_close(tokens[:1, :length], model.text_encoder(ids, expected)[0])
    assert len(tokens) == 3 and mask[0].sum() == length and not tokens.requires_grad


@pytest.mark.parametrize("upscale", [False, True])
def test_a_saved_model_draws_the_same(tmp_path, upscale):
    model = make_model(upscale)
    model.save_pretrained(tmp_path / "saved", "# card")
    again = DiffusionTextToImage.from_pretrained(tmp_path / "saved")
    assert sample(again).equal(sample(model))
    assert again.vocabulary == model.vocabulary and again.training_facts == {"steps": 3}
    assert again.unknown_words("a green picture") == ["green"]
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["kind"] == "diffusion"


def test_other_checkpoints_are_refused(tmp_path):
    make_model().save_pretrained(tmp_path / "saved")
    tensors, config = load_checkpoint(tmp_path / "saved")
    tokenizer = {"tokenizer.json": (tmp_path / "saved" / "tokenizer.json").read_text()}
    wrong_base = {**config["base"], "width": 16}
    for changes, message in [
        ({"kind": "judge"}, "judge checkpoint"),
        ({"base": None}, "base"),
        ({"base": wrong_base}, "another architecture"),
        ({"base": {**config["base"], "super_resolution": True}}, "super_resolution=False"),
        ({"upscaler": config["base"]}, "does not fit"),
        ({"base": {**config["base"], "text_size": 32}}, "text_size=16"),
    ]:
        save_checkpoint(tmp_path / "wrong", tensors, {**config, **changes}, tokenizer)
        with pytest.raises(CourseError, match=message):
            DiffusionTextToImage.from_pretrained(tmp_path / "wrong")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"texts": ["red", " "]}, "empty"),
        ({"texts": "red " * 50}, "cut"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"steps_per_sample": 0}, "steps_per_sample=0"),
        ({"steps_per_sample": 1001}, "steps_per_sample=1001"),
        ({"guidance_scale": -1}, "guidance_scale=-1"),
        ({"guidance_scale": math.nan}, "guidance_scale=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"image": torch.zeros(3, 8, 8)}, "image has shape"),
    ],
)
def test_bad_requests_are_refused(model, settings, message):
    with pytest.raises(CourseError, match=message):
        sample(model, **settings)


# ---- learning


def train(unet: UNet, images, tokens, mask, steps: int = 200) -> list[float]:
    def batch(step):
        source = step_random(0, step)
        rows = torch.randint(len(images), (16,), generator=source)
        return images[rows], tokens[rows], mask[rows], source

    return fit(unet, batch, diffusion_loss, Adam(unet.parameters(), 3e-3), steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_small_model_learns_to_listen(prediction):
    model = make_model()
    model.base = make_unet(prediction=prediction, width=16)
    tokens, mask = model.encode_text(CAPTIONS)
    losses = train(model.base, COLORS[:, :, None, None].expand(-1, -1, 16, 16), tokens, mask)
    assert sum(losses[-20:]) < 0.4 * sum(losses[:20])
    pictures = sample(model.eval(), n_samples=4, steps_per_sample=10, guidance_scale=2.0).unflatten(0, (2, 4))
    distances = (pictures.mean((3, 4))[:, :, None] - COLORS).norm(dim=-1)  # (2, 4, 2): to each caption's colour
    assert distances.argmin(2).tolist() == [[0] * 4, [1] * 4]
    assert distances.min(2).values.max() < 0.6


def test_super_resolution_learns_to_look_at_the_small_picture():
    unet = make_unet(super_resolution=True, width=16)
    images = COLORS[:, :, None, None].expand(-1, -1, 16, 16)
    tokens, mask = torch.zeros(2, 1, TEXT_SIZE), torch.zeros(2, 1, dtype=torch.bool)  # no captions at all
    losses = train(unet, images, tokens, mask)
    assert sum(losses[-20:]) < 0.4 * sum(losses[:20])
    low = COLORS[:, :, None, None].expand(-1, -1, 8, 8)
    drawn = draw_pictures(unet, tokens, mask, [step_random(0, i) for i in range(2)], 10, low=low)
    assert (drawn.mean((2, 3)) - COLORS).abs().max() < 0.3

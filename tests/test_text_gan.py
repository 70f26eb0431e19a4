"""The two players: shapes, conditioning, initialisation."""

import pytest
import torch

from course_lib.errors import CourseError
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, grow_


def players(image_size: int = 32) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    return (
        Generator(GeneratorConfig(image_size, z_size=8, text_size=12, condition_size=6, width=8)),
        Discriminator(DiscriminatorConfig(image_size, text_size=12, width=8, hidden=16)),
    )


@pytest.mark.parametrize("image_size", [16, 32, 64, 128])
def test_pictures_and_logits_have_their_shapes(image_size):
    generator, discriminator = players(image_size)
    z, text = torch.randn(3, 8), torch.randn(3, 12)
    images = generator(z, text)
    assert images.shape == (3, 3, image_size, image_size) and images.abs().max() <= 1
    assert discriminator(images, text).shape == (3,)
    assert generator.config.channels[-1] == 8 and len(generator.config.channels) == len(generator.ups) + 1


def test_generator_works_in_channels_last_all_the_way():
    generator = players()[0].to(memory_format=torch.channels_last)
    formats = []
    for up in generator.ups:
        up.register_forward_hook(lambda _, inputs, output: formats.append(output))
    generator(torch.randn(2, 8), torch.randn(2, 12))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in formats) and len(formats) == 3


def test_text_reaches_every_block_of_the_generator():
    generator, _ = players()
    for norm in generator.norms:  # conditional normalisation starts as plain; give it a voice
        torch.nn.init.normal_(norm.modulation.weight, std=0.1)
    text = torch.randn(2, 12, requires_grad=True)
    for block in range(4):
        gradient = torch.autograd.grad(
            generator(torch.randn(2, 8), text).square().sum(), generator.norms[block].modulation.weight
        )[0]
        from_text = gradient[:, 8:]  # the columns after the noise
        assert from_text.abs().max() > 0


def test_discriminator_scores_one_picture_with_two_captions_from_one_pass():
    _, discriminator = players()
    images, right, wrong = torch.randn(4, 3, 32, 32), torch.randn(4, 12), torch.randn(4, 12)
    features = discriminator.features(images)
    torch.testing.assert_close(discriminator.match(features, right), discriminator(images, right))
    assert not torch.allclose(discriminator.match(features, wrong), discriminator(images, right))


def test_logit_is_linear_in_the_text_as_projection_says():
    _, discriminator = players()
    images, a, b = torch.randn(4, 3, 32, 32), torch.randn(4, 12), torch.randn(4, 12)
    base = discriminator(images, torch.zeros(4, 12))
    sum_of_parts = discriminator(images, a) + discriminator(images, b) - base
    torch.testing.assert_close(discriminator(images, a + b), sum_of_parts, atol=1e-4, rtol=1e-4)


def test_initialisation_is_applied_to_every_weight():
    """A course whose initialisation is defined but never called would pass every other test."""
    torch.manual_seed(0)
    generator, discriminator = Generator(GeneratorConfig()), Discriminator(DiscriminatorConfig())
    for layer in (*generator.ups, generator.start, generator.to_rgb, generator.read_text):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    x = torch.randn(64, 3, 32, 32)
    for down in discriminator.downs:  # He initialisation keeps the scale from layer to layer
        x = torch.where((y := down(x)) > 0, y, 0.2 * y)
        assert 0.5 < x.square().mean().item() < 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: GeneratorConfig(image_size=48),
        lambda: GeneratorConfig(width=10**9),
        lambda: GeneratorConfig(z_size=0),
        lambda: DiscriminatorConfig(hidden=10**9),
    ],
)
def test_impossible_sizes_are_refused_before_any_memory_is_taken(make):
    with pytest.raises(CourseError, match="=(48|1000000000|0) is"):
        make()


@pytest.mark.parametrize("conditioning", ["concatenation", "normalisation", "cross-attention"])
def test_every_conditioning_of_the_generator_hears_the_caption(conditioning):
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(32, 8, 12, 6, 8, conditioning)).eval()
    z, texts, tokens = torch.randn(2, 8), torch.randn(2, 12), torch.randn(2, 5, 12)
    base = generator(z, texts, tokens)
    assert base.shape == (2, 3, 32, 32)
    assert not torch.allclose(generator(z, texts.flip(0), tokens), base)
    heard_by_blocks = [norm for norm in generator.norms if hasattr(norm, "modulation")]
    assert len(heard_by_blocks) == (0 if conditioning == "concatenation" else 4)
    reads_tokens = not torch.equal(generator(z, texts, tokens.flip(0)), base)
    assert reads_tokens == (conditioning == "cross-attention") == generator.reads_tokens


def test_cross_attention_ignores_padding():
    generator = Generator(GeneratorConfig(32, 8, 12, 6, 8, "cross-attention")).eval()
    z, text, tokens = torch.randn(2, 8), torch.randn(2, 12), torch.randn(2, 5, 12)
    padded = torch.cat([tokens, torch.zeros(2, 3, 12)], dim=1)
    torch.testing.assert_close(generator(z, text, tokens), generator(z, text, padded))


def test_discriminator_by_concatenation_reads_both_and_not_linearly():
    torch.manual_seed(0)
    discriminator = Discriminator(DiscriminatorConfig(32, 12, 8, 16, "concatenation"))
    images, a, b = torch.randn(4, 3, 32, 32), torch.randn(4, 12), torch.randn(4, 12)
    logits = discriminator(images, a)
    assert logits.shape == (4,)
    assert not torch.allclose(discriminator(images, b), logits)
    assert not torch.allclose(discriminator(images.flip(0), a), logits)
    base = discriminator(images, torch.zeros(4, 12))
    assert not torch.allclose(discriminator(images, a + b), logits + discriminator(images, b) - base, atol=1e-3)


@pytest.mark.parametrize("config", [GeneratorConfig, DiscriminatorConfig])
def test_unknown_conditioning_names_the_nearest(config):
    with pytest.raises(CourseError, match='conditioning="projektion"|conditioning="normalization".*normalisation'):
        config(conditioning="normalization" if config is GeneratorConfig else "projektion")


def test_grown_players_begin_with_what_the_smaller_ones_know():
    sizes = {"z_size": 8, "text_size": 12, "condition_size": 6, "width": 8}
    torch.manual_seed(1)
    large = Generator(GeneratorConfig(64, **sizes, grown=True)), players(64)[1]
    small = players(32)
    for new, old in zip(large, small, strict=True):
        grow_(new, old)
    generator, known = large[0], small[0]
    assert generator.config.channels == (*known.config.channels, 4)
    z, text = torch.randn(3, 8), torch.randn(3, 12)
    for one in (generator, known):
        one.eval()
    seen = []  # what enters the third up-sampling, at 16 x 16
    for one in (generator, known):
        one.ups[2].register_forward_hook(lambda _, inputs, output: seen.append(output))
        one(z, text)
    torch.testing.assert_close(*seen)
    discriminator, judge = large[1], small[1]
    for ours, theirs in zip(discriminator.downs[2:], judge.downs[1:], strict=True):
        assert ours.weight.equal(theirs.weight) and ours.bias.equal(theirs.bias)
    assert discriminator.read_text.weight.equal(judge.read_text.weight)

"""Words that know pictures: the loss by hand, equal captions are no negatives, retrieval by hand, and it learns."""

import math

import pytest
import torch

from course_lib.alignment import AlignmentModel, load_alignment, retrieval, unit
from course_lib.checkpoint import find_checkpoint, load_checkpoint, load_weights
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.fit import fit
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.optim import Adam
from course_lib.text_encoder import TextEncoder, TextEncoderConfig, embed_captions, load_text_encoder
from course_lib.tokenizer import Tokenizer


def small_model(width: int = 16) -> AlignmentModel:
    torch.manual_seed(0)
    text = TextEncoder(TextEncoderConfig(vocab_size=40, context_length=8, width=width, heads=2, layers=1))
    return AlignmentModel(text, ImageEncoder(ImageEncoderConfig(16, 8, width)))


def batch(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, ids and a mask without padding."""
    ids = torch.tensor(ids)
    return torch.rand(len(ids), 3, 16, 16) * 2 - 1, ids, torch.ones_like(ids, dtype=torch.bool)


def by_hand(model: AlignmentModel, images: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> float:
    """CLIP's loss number by number; a caption that reads like one's own is not counted among the others."""
    pictures, texts = model.image_encoder(images), model.text_encoder(ids, mask)[1]
    scale, n, total = model.log_scale.exp().item(), len(ids), 0.0
    cosine = [[(p @ t / (p.norm() * t.norm())).item() for t in texts] for p in pictures]
    for i in range(n):
        counted = [j for j in range(n) if j == i or ids[i].tolist() != ids[j].tolist()]
        total += math.log(sum(math.exp(scale * cosine[i][j]) for j in counted)) - scale * cosine[i][i]
        total += math.log(sum(math.exp(scale * cosine[j][i]) for j in counted)) - scale * cosine[i][i]
    return total / (2 * n)


@pytest.mark.parametrize("ids", [[[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [1, 2], [1, 5]]])
def test_loss_by_hand(ids):
    model, rows = small_model(), batch(ids)
    assert model(*rows).item() == pytest.approx(by_hand(model, *rows), rel=1e-4)


def test_equal_captions_do_not_push_each_other_away():
    model, rows = small_model(), batch([[1, 2]] * 4)
    assert model(*rows).item() == pytest.approx(0, abs=1e-6)  # nobody is wrong: nothing to learn
    model(*rows).backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in model.parameters())


def test_loss_moves_both_encoders_and_the_temperature():
    model, rows = small_model(), batch([[1, 2], [3, 4], [5, 6], [7, 8]])
    model(*rows).backward()
    assert model.log_scale.exp().item() == pytest.approx(10) and model.log_scale.grad.abs() > 0
    for part in (model.text_encoder, model.image_encoder):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_scale_is_held_below_a_hundred():
    model, rows = small_model(), batch([[1, 2], [3, 4], [5, 6]])
    losses = []
    for log_scale in (math.log(100), 50.0):
        model.log_scale.data.fill_(log_scale)
        losses.append(model(*rows))
    torch.testing.assert_close(*losses)


def test_embedding_spaces_must_have_one_size():
    with pytest.raises(ValueError, match="16.*12"):
        AlignmentModel(small_model().text_encoder, ImageEncoder(ImageEncoderConfig(16, 8, 12)))


def test_unit_vectors():
    vectors = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(vectors, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_retrieval_by_hand():
    # cosines with the captions at 0, 90, 180 and 270 degrees
    captions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    angles = torch.tensor([10.0, 60.0, 80.0, 130.0]).deg2rad()  # own caption is nearest, nearest, third, last
    pictures = 5 * torch.stack([angles.cos(), angles.sin()], dim=1)  # length does not count
    assert [retrieval(pictures, captions, k) for k in (1, 2, 3, 4)] == [0.5, 0.5, 0.75, 1.0]


def test_retrieval_of_what_has_nothing_to_do_with_each_other_is_chance():
    pictures, captions = torch.randn(2, 1000, 32)
    for k in (1, 5, 10):
        assert retrieval(pictures, captions, k) == pytest.approx(k / 1000, abs=0.01)
        assert retrieval(pictures, pictures, k) == 1


def test_a_small_model_learns_which_caption_belongs_to_which_picture():
    shapes = CaptionedShapes(image_size=16, length=48)
    images, captions = shapes.images(range(48)), [shapes.caption(i) for i in range(48)]
    tokenizer = Tokenizer.train(captions, 300)
    torch.manual_seed(0)
    text = TextEncoder(TextEncoderConfig(vocab_size=300, context_length=32, width=16, heads=2, layers=1))
    model = AlignmentModel(text, ImageEncoder(ImageEncoderConfig(16, 8, 16)))
    ids, mask = tokenizer.encode_batch(captions, 32)

    def found() -> float:
        with torch.no_grad():
            return retrieval(model.image_encoder(images), model.text_encoder(ids, mask)[1])

    assert found() < 0.2
    fit(model, lambda step: (images, ids, mask), AlignmentModel.forward, Adam(model.parameters(), lr=5e-3), 60)
    assert found() > 0.9


def test_the_shipped_model_finds_captions_that_it_was_not_trained_on():
    """R@1 >= 90 % among 100 distinct captions of combinations held out."""
    folder = find_checkpoint("align-shapes-32")
    tensors, config = load_checkpoint(folder)
    encoder, tokenizer = load_text_encoder("align-shapes-32")
    image_encoder = ImageEncoder(ImageEncoderConfig(**config["image_encoder"]))
    load_weights(AlignmentModel(encoder, image_encoder), tensors, folder)
    exam = CaptionedShapes("heldout", 32, seed=0, length=100)
    captions = [exam.caption(i) for i in range(100)]
    assert len(set(captions)) == 100
    with torch.no_grad():
        pictures = image_encoder.eval()(exam.images(range(100)))
    texts = embed_captions(encoder.eval(), tokenizer, captions)
    assert retrieval(pictures, texts) >= 0.9
    assert retrieval(pictures, texts, 1) <= retrieval(pictures, texts, 5) <= retrieval(pictures, texts, 10) <= 1


def test_the_shipped_model_tells_which_caption_fits():
    model, tokenizer = load_alignment("align-shapes-32")
    pictures = CaptionedShapes("heldout", 64, length=20)
    cosines = model.similarity(pictures.images(range(20)), [pictures.caption(i) for i in range(20)], tokenizer)
    assert cosines.shape == (20, 20) and cosines.abs().max() <= 1.001
    assert (cosines.argmax(1) == torch.arange(20)).all()


def test_a_checkpoint_without_pictures_is_no_alignment():
    with pytest.raises(CourseError):
        load_alignment("gpt-captions")

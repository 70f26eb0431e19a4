"""The text encoder is GPT-2 to the fifth decimal; padding and later words change nothing."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.errors import CourseError
from course_lib.text_encoder import (
    CONV1D,
    TextEncoder,
    TextEncoderConfig,
    attention,
    causal_mask,
    embed_captions,
    embed_tokens,
    from_gpt2_state_dict,
    next_token_loss,
    to_gpt2_state_dict,
)
from course_lib.tokenizer import Tokenizer
from course_lib.torchvision_ops import ensure_torchvision_ops

CONFIG = TextEncoderConfig(vocab_size=300, context_length=20, width=32, heads=4, layers=3)
TOKENIZER = Tokenizer([])


def make_encoder(backend="torch", config=CONFIG, scale=5.0):
    """An encoder whose weights are large enough that every part matters."""
    torch.manual_seed(0)
    encoder = TextEncoder(config, backend)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(scale)
    return encoder


def make_batch(lengths=(9, 4, 1, 7)):
    torch.manual_seed(1)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(0, CONFIG.vocab_size, mask.shape), mask


@pytest.fixture(scope="module")
def gpt2():
    ensure_torchvision_ops()
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    settings = dict(vocab_size=300, n_positions=20, n_embd=32, n_head=4, n_layer=3)
    model = transformers.GPT2Model(transformers.GPT2Config(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases too: transformers starts them at 0
    return model


# --- attention


def attention_inputs(dtype=torch.float64):
    torch.manual_seed(3)
    query = torch.randn(3, 2, 5, 4, dtype=dtype, requires_grad=True)
    key, value = (torch.randn(3, 2, 5, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    real = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    return (query, key, value), causal_mask(real)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_torch_in_value_and_gradient(masked):
    inputs, mask = attention_inputs()
    mask = mask if masked else None
    ours, theirs = attention(*inputs, mask), F.scaled_dot_product_attention(*inputs, mask)
    assert torch.allclose(ours, theirs, atol=1e-12)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-12)


def test_attention_gradcheck():
    inputs, mask = attention_inputs()
    assert torch.autograd.gradcheck(lambda query, key, value: attention(query, key, value, mask), inputs)


def test_attention_survives_huge_scores():
    (query, key, value), mask = attention_inputs(torch.float32)
    for scale in (1e3, 1e15):
        ours = attention(scale * query, key, value, mask)
        assert torch.isfinite(ours).all()
        assert torch.allclose(ours, F.scaled_dot_product_attention(scale * query, key, value, mask), atol=1e-5)


def test_attention_by_hand():
    # one query, two keys: scores 0 and ln 3, so weights 1/4 and 3/4
    query, key = torch.tensor([[[[1.0]]]]), torch.tensor([[[[0.0], [math.log(3)]]]])
    value = torch.tensor([[[[8.0], [4.0]]]])
    assert attention(query, key, value).item() == pytest.approx(8 / 4 + 4 * 3 / 4)


def test_causal_mask_by_hand():
    mask = causal_mask(torch.tensor([[True, True, False], [False, True, True]]))
    assert mask.int().tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]], [[[1, 0, 0], [0, 1, 0], [0, 1, 1]]]]


# --- against transformers.GPT2Model


def hidden_states_agree(encoder, gpt2):
    ids, mask = make_batch()
    with torch.no_grad():
        ours, pooled = encoder(ids, mask)
        theirs = gpt2(ids, attention_mask=mask.long()).last_hidden_state
    assert theirs.std() > 0.5
    assert torch.allclose(ours[mask], theirs[mask], atol=1e-5)
    assert torch.allclose(pooled, theirs[torch.arange(4), mask.sum(1) - 1], atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "ours"])
def test_gpt2_weights_into_ours(gpt2, backend):
    encoder = make_encoder(backend)
    from_gpt2_state_dict(encoder, gpt2.state_dict())
    hidden_states_agree(encoder, gpt2)


def test_our_weights_into_gpt2(gpt2):
    encoder, twin = make_encoder(), copy.deepcopy(gpt2)
    twin.load_state_dict(to_gpt2_state_dict(encoder), strict=True)
    hidden_states_agree(encoder, twin)


def test_gradients_equal_gpt2(gpt2):
    encoder, twin = make_encoder(), copy.deepcopy(gpt2).train(False)
    from_gpt2_state_dict(encoder, gpt2.state_dict())
    ids, mask = make_batch()
    weight = torch.randn(*ids.shape, CONFIG.width) * mask[..., None]
    (encoder(ids, mask)[0] * weight).sum().backward()
    (twin(ids, attention_mask=mask.long()).last_hidden_state * weight).sum().backward()
    for name, parameter in twin.named_parameters():
        ours = encoder.get_parameter(name).grad
        ours = ours.T if name.endswith(CONV1D) else ours
        assert torch.allclose(ours, parameter.grad, atol=1e-4), name


def test_exchange_copies_and_round_trips():
    encoder = make_encoder()
    state = to_gpt2_state_dict(encoder)
    twin = TextEncoder(CONFIG)
    from_gpt2_state_dict(twin, {f"transformer.{name}": x for name, x in state.items()} | {
        "lm_head.weight": state["wte.weight"],
        "transformer.h.0.attn.bias": torch.ones(1, 1, 20, 20),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    })  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True))
    for x in state.values():
        x.zero_()
    assert encoder.wte.weight.abs().min() >= 0 and encoder.wte.weight.std() > 0.01


def test_weights_of_another_size_are_refused(gpt2):
    other = TextEncoder(TextEncoderConfig(vocab_size=300, context_length=20, width=64, heads=4, layers=3))
    with pytest.raises(CourseError, match="another architecture"):
        from_gpt2_state_dict(other, gpt2.state_dict(), "gpt2")


# --- padding, causality, pooling


def test_backends_agree():
    ids, mask = make_batch()
    for a, b in zip(make_encoder("torch")(ids, mask), make_encoder("ours")(ids, mask), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match="flash"):
        TextEncoder(CONFIG, "flash")


@pytest.mark.parametrize("backend", ["torch", "ours"])
def test_padding_never_changes_a_result(backend):
    encoder, (ids, mask) = make_encoder(backend), make_batch()
    tokens, pooled = encoder(ids, mask)
    assert (tokens[~mask] == 0).all() and torch.isfinite(tokens).all()
    for row in range(len(ids)):  # each text alone, without padding
        alone, alone_pooled = encoder(ids[row : row + 1, mask[row]], mask[row : row + 1, mask[row]])
        assert torch.allclose(tokens[row, mask[row]], alone[0], atol=1e-5)
        assert torch.allclose(pooled[row], alone_pooled[0], atol=1e-5)
    scrambled = torch.where(mask, ids, torch.randint_like(ids, CONFIG.vocab_size))
    assert torch.allclose(encoder(scrambled, mask)[0], tokens, atol=1e-6)
    left = (F.pad(x, (3, 0)) for x in (ids, mask))  # padding before the text
    padded, padded_pooled = encoder(*left)
    assert torch.allclose(padded[:, 3:], tokens, atol=1e-5) and torch.allclose(padded_pooled, pooled, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "ours"])
def test_a_row_of_padding_only_is_zero_and_has_finite_gradients(backend):
    encoder, (ids, mask) = make_encoder(backend), make_batch()
    mask[2] = False
    tokens, pooled = encoder(ids, mask)
    assert (pooled[2] == 0).all()
    tokens.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize("backend", ["torch", "ours"])
def test_no_token_sees_a_later_one(backend):
    encoder, (ids, _) = make_encoder(backend), make_batch()
    mask = torch.ones_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % CONFIG.vocab_size
    before, after = encoder(ids, mask)[0], encoder(changed, mask)[0]
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert ((before - after)[:, 5:].abs().amax(-1) > 1e-3).all()


def test_order_and_every_earlier_token_matter_to_the_pooled_state():
    encoder = make_encoder()
    ids = torch.tensor([[1, 2, 3, 4]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    pooled = encoder(ids, mask)[1]
    for other in ([2, 1, 3, 4], [9, 2, 3, 4], [1, 2, 9, 4]):
        assert (encoder(torch.tensor([other]), mask)[1] - pooled).abs().max() > 1e-3


def test_shapes_and_their_errors():
    encoder, (ids, mask) = make_encoder(), make_batch()
    tokens, pooled = encoder(ids, mask)
    assert tokens.shape == (4, 9, 32) and pooled.shape == (4, 32)
    assert encoder.next_token_logits(tokens).shape == (4, 9, 300)
    too_long = torch.zeros(1, 21, dtype=torch.int64)
    for a, b in ((ids, mask[:, :-1]), (ids[0], mask[0]), (too_long, too_long == 0)):
        with pytest.raises(ValueError, match="mask"):
            encoder(a, b)


# --- next-token loss


def test_next_token_loss_equals_torch_in_value_and_gradient():
    encoder, (ids, mask) = make_encoder(), make_batch()
    tokens, _ = encoder(ids, mask)
    targets = torch.where(mask, ids, -100)[:, 1:]
    theirs = F.cross_entropy(encoder.next_token_logits(tokens)[:, :-1].flatten(0, 1), targets.flatten())
    ours = next_token_loss(encoder, ids, mask)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours, encoder.parameters()), torch.autograd.grad(theirs, encoder.parameters()), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_pretraining_learns_the_captions():
    tokenizer = Tokenizer.train(["a red circle", "a blue square"] * 2, 300)
    ids, mask = tokenizer.encode_batch(["a red circle", "a blue square"], 20)
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(tokenizer.vocab_size, 20, 32, 4, 1))
    start = next_token_loss(encoder, ids, mask).item()
    assert start == pytest.approx(math.log(tokenizer.vocab_size), rel=0.05)  # at first every token is as likely
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    for _ in range(45):
        optimizer.zero_grad()
        loss = next_token_loss(encoder, ids, mask)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3  # what is left is the one free choice, red or blue: ln 2 over 4 targets = 0.17


# --- initialisation and config


def test_initialisation_is_gpt2s():
    torch.manual_seed(5)
    encoder = TextEncoder(TextEncoderConfig(vocab_size=2000, width=128, heads=4, layers=4))
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            expected = 0.02 / math.sqrt(8) if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < 1e-3, name


def test_block_starts_near_the_identity():
    torch.manual_seed(6)
    encoder = TextEncoder(TextEncoderConfig(vocab_size=300, layers=8))
    x = torch.randn(2, 6, 128)
    mask = causal_mask(torch.ones(2, 6, dtype=torch.bool))
    y = x
    for block in encoder.h:
        y = block(y, mask)
    assert 0.9 < y.std() / x.std() < 1.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"vocab_size": 0},
        {"vocab_size": 10**9},
        {"width": 10**9},
        {"width": 4096, "layers": 48},
        {"width": -8},
        {"width": 30},
        {"heads": 0},
        {"layers": 1000},
        {"context_length": 1},
        {"width": 32.0},
        {"layers": True},
        {"width": "128"},
    ],
)
def test_impossible_configs_are_refused_in_words(wrong):
    with pytest.raises(CourseError, match=f"{list(wrong)[0]}="):
        TextEncoderConfig(**{"vocab_size": 300} | wrong)


# --- embedding captions once


class Counting(torch.nn.Module):
    """An encoder that notes the shapes of what it reads."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.config, self.shapes = encoder, encoder.config, []

    def forward(self, ids, mask):
        self.shapes.append(tuple(ids.shape))
        return self.encoder(ids, mask)


def test_embed_captions_reads_each_once_and_keeps_the_order():
    counting = Counting(make_encoder())
    captions = ["red circle", "b", "RED  circle", "a", "blue", "b", "红圆"]
    embedded = embed_captions(counting, TOKENIZER, captions, batch_size=2)
    assert embedded.shape == (7, 32) and embedded.dtype == torch.float32 and not embedded.requires_grad
    assert counting.shapes == [(2, 3), (2, 8), (1, 12)]  # a, b | blue, 红圆 | red circle, with two specials each
    for row, caption in zip(embedded, captions, strict=True):
        alone = counting.encoder(*TOKENIZER.encode_batch([caption], 20))[1][0]
        assert torch.allclose(row, alone, atol=1e-5)
    assert torch.equal(embedded[0], embedded[2]) and not torch.allclose(embedded[1], embedded[3], atol=1e-3)


def test_embed_nothing_and_too_much():
    assert embed_captions(make_encoder(), TOKENIZER, []).shape == (0, 32)
    with pytest.raises(CourseError, match="would be cut"):
        embed_captions(make_encoder(), TOKENIZER, ["a", "a" * 30])


def test_embed_tokens_ends_each_caption_with_zeros():
    torch.manual_seed(0)
    tokenizer = Tokenizer([])
    encoder = TextEncoder(TextEncoderConfig(tokenizer.vocab_size, 32, width=16, heads=2, layers=1)).eval()
    tokens = embed_tokens(encoder, tokenizer, ["a red star", "ring"], batch_size=1)
    assert tokens.shape == (2, 12, 16)  # start, ten letters, end
    assert tokens[0].any(-1).all() and tokens[1, :6].any(-1).all() and not tokens[1, 6:].any()
    pooled = embed_captions(encoder, tokenizer, ["a red star", "ring"])
    torch.testing.assert_close(torch.stack([tokens[0, 11], tokens[1, 5]]), pooled)

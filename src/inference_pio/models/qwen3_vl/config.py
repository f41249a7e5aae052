"""What a qwen3_vl checkpoint states, read strictly from config.json: one object for the text, one for the vision tower.

GGUF files of this architecture hold the text layers alone, and the vision tower in a second file; they are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from typing import Any

from inference_pio.config import BaseModelConfig, ConfigReader
from inference_pio.config.rope import RopeConfig, read_rope

_WRITER = {
    "transformers_version": "about the writer",
    "_name_or_path": "about the writer",
    "torch_dtype": "the weights say it themselves",
    "dtype": "the weights say it themselves",
    "initializer_range": "training",
}
_IGNORED = {
    **_WRITER,
    "architectures": "chose this plugin",
    "model_type": "chose this plugin",
    "auto_map": "code out of checkpoints is never run",
    "video_token_id": "videos are not read",
    "vision_start_token_id": "the chat template writes it",
    "vision_end_token_id": "the chat template writes it",
}
_IGNORED_TEXT = {
    **_WRITER,
    "attention_dropout": "training",
    "use_cache": "generation always uses the cache",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
}
_ROPE_KEYS = ("rope_parameters", "rope_scaling")
_AXES_KEYS = ("mrope_section", "mrope_interleaved")
_AXIAL = {"rope_type": "axial", "rope_theta": 10_000.0}


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower. The defaults are those of Qwen3-VL-2B.

    num_position_embeddings    learned positions of a square grid, which is stretched over each image's own
    deepstack_visual_indexes   layers, ascending, whose output is added behind the text's first layers, one each
    """

    depth: int = 24
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    out_hidden_size: int = 2048
    num_position_embeddings: int = 2304
    deepstack_visual_indexes: tuple[int, ...] = (5, 11, 17)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_values(self) -> int:
        """Numbers of one patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclass
class Qwen3VLConfig(BaseModelConfig):
    """A qwen3_vl; the fields of the standard are those of its text layers. The defaults are Qwen3-VL-2B.

    mrope_section  pairs of a head that turn by time, by height and by width
    """

    model_path: str = "Qwen/Qwen3-VL-2B-Instruct"
    torch_dtype: Any = "auto"
    hidden_size: int = 2048
    num_attention_heads: int = 16
    num_hidden_layers: int = 28
    max_position_embeddings: int = 262144
    intermediate_size: int = 6144
    vocab_size: int = 151936
    num_key_value_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = field(default_factory=partial(RopeConfig, theta=5_000_000.0))
    mrope_section: tuple[int, int, int] = (24, 20, 20)
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    image_token_id: int = 151655
    vision: VisionConfig = VisionConfig()

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str) -> Qwen3VLConfig:
        """From a parsed config.json."""
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_quantised(read)
            tied = read.flag("tie_word_embeddings", default=False)
            image_token_id = read.integer("image_token_id", low=0)
            stated, sections = _without_axes(read.mapping("text_config"))
            with ConfigReader(stated, path=f"{path}: text_config", ignored=_IGNORED_TEXT) as text:
                config = _read_text(text, cls, sections, tied)
            inner = f"{path}: vision_config"
            with ConfigReader(read.mapping("vision_config"), path=inner, ignored=_WRITER) as vision:
                config.vision = _read_vision(vision, config)
            if image_token_id >= config.vocab_size:
                read.refuse(
                    f"{image_token_id} is not in the vocabulary of {config.vocab_size}",
                    where="image_token_id",
                )
            config.image_token_id = image_token_id
        return config


def _read_text(
    read: ConfigReader, cls: type[Qwen3VLConfig], sections: Mapping[str, Any], tied: bool
) -> Qwen3VLConfig:
    _refuse_quantised(read)
    _expect(read, "model_type", "qwen3_vl_text")
    _expect(read, "hidden_act", "silu")
    if read.flag("tie_word_embeddings", default=tied) != tied:
        read.refuse(f"is {not tied}, and {tied} beside text_config", where="tie_word_embeddings")
    if not any("rope_theta" in read.mapping(key) for key in _ROPE_KEYS):
        read.number("rope_theta")
    positions = read.integer("max_position_embeddings")
    rope = read_rope(read, positions)
    heads, kv_heads = read.integer("num_attention_heads"), read.integer("num_key_value_heads")
    if heads % kv_heads:
        read.refuse(f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads")
    head_dim = read.integer("head_dim")
    if head_dim % 2:
        read.refuse(f"{head_dim} is odd; rotary positions turn pairs", where="head_dim")
    return cls(
        hidden_size=read.integer("hidden_size"),
        num_attention_heads=heads,
        num_hidden_layers=read.integer("num_hidden_layers", high=10_000),
        max_position_embeddings=_reach(rope, positions),
        intermediate_size=read.integer("intermediate_size"),
        vocab_size=read.integer("vocab_size"),
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
        rope=rope,
        mrope_section=_read_axes(sections, head_dim // 2, f"{read.path}: rope"),
        attention_bias=read.flag("attention_bias", default=False),
        tie_word_embeddings=tied,
        pad_token_id=_pad_token_id(read),
    )


def _read_vision(read: ConfigReader, text: Qwen3VLConfig) -> VisionConfig:
    if read.text("model_type", default="qwen3_vl") not in ("qwen3_vl", "qwen3_vl_vision"):
        read.refuse(f"{read.optional('model_type')!r} is not a qwen3_vl's", where="model_type")
    _expect(read, "hidden_act", "gelu_pytorch_tanh")
    if (rope := read.mapping("rope_parameters")) and dict(rope) != _AXIAL:
        read.refuse(f"{dict(rope)!r} is not the axial kind with theta 10000", where="rope_parameters")
    vision = VisionConfig(
        depth=read.integer("depth", high=10_000),
        hidden_size=read.integer("hidden_size"),
        intermediate_size=read.integer("intermediate_size"),
        num_heads=read.integer("num_heads"),
        in_channels=read.integer("in_channels", low=3, high=3),
        patch_size=read.integer("patch_size", high=1024),
        temporal_patch_size=read.integer("temporal_patch_size", high=64),
        spatial_merge_size=read.integer("spatial_merge_size", high=64),
        out_hidden_size=read.integer("out_hidden_size"),
        num_position_embeddings=read.integer("num_position_embeddings"),
        deepstack_visual_indexes=_read_deepstack(read, text.num_hidden_layers),
    )
    if vision.hidden_size % (4 * vision.num_heads):
        read.refuse(
            f"{vision.hidden_size} / {vision.num_heads} heads must be a multiple of 4: half of a head turns by height, "
            "half by width, in pairs",
            where="hidden_size",
        )
    if isqrt(vision.num_position_embeddings) ** 2 != vision.num_position_embeddings:
        read.refuse(f"{vision.num_position_embeddings} is no square", where="num_position_embeddings")
    if vision.out_hidden_size != text.hidden_size:
        read.refuse(
            f"{vision.out_hidden_size} is not the {text.hidden_size} of the text's hidden_size",
            where="out_hidden_size",
        )
    return vision


def _read_deepstack(read: ConfigReader, text_layers: int) -> tuple[int, ...]:
    where, depth = "deepstack_visual_indexes", read.integer("depth")
    stated = read.optional(where)
    if not isinstance(stated, list) or not all(_is_count(one, low=0) for one in stated):
        read.refuse(f"must be a list of layers, is {stated!r}", where=where)
    if stated != sorted(set(stated)) or any(not 0 <= one < depth for one in stated):
        read.refuse(f"{stated!r} are not layers below {depth}, ascending", where=where)
    if len(stated) >= text_layers:
        read.refuse(
            f"{len(stated)} sets of features are added behind as many layers, and the text has {text_layers}: one more "
            "has to follow",
            where=where,
        )
    return tuple(stated)


def _read_axes(stated: Mapping[str, Any], pairs: int, path: str) -> tuple[int, int, int]:
    """Pairs of a head per axis; they must be all there are, and reach no further than every third place goes."""
    with ConfigReader(stated, path=path, ignored={}) as read:
        if not read.flag("mrope_interleaved", default=True):
            read.refuse("must be true for this architecture", where="mrope_interleaved")
        where = "mrope_section"
        section = read.optional(where)
        section = [24, 20, 20] if section is None else section
        if not isinstance(section, list) or len(section) != 3 or not all(_is_count(one) for one in section):
            read.refuse(f"must be three numbers of pairs, is {section!r}", where=where)
        time, height, width = section
        if sum(section) != pairs or 3 * height - 2 >= pairs or 3 * width - 1 >= pairs:
            read.refuse(
                f"{section!r} does not share {pairs} pairs (half of head_dim) in turns of time, height and width",
                where=where,
            )
    return time, height, width


def _without_axes(text: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(text_config with a plain model's rotary settings, what these say of axes)."""
    plain, axes = dict(text), {}
    for key in _ROPE_KEYS:
        if isinstance(stated := text.get(key), Mapping):
            axes.update({name: value for name, value in stated.items() if name in _AXES_KEYS})
            plain[key] = {name: value for name, value in stated.items() if name not in _AXES_KEYS}
    return plain, axes


def _expect(read: ConfigReader, key: str, only: str) -> None:
    stated = read.text(key, default=only)
    if stated != only:
        read.refuse(f"{stated!r} is not supported, only {only}", where=key)


def _refuse_quantised(read: ConfigReader) -> None:
    if "quantization_config" in read:
        read.refuse(
            "quantised safetensors are not supported",
            where="quantization_config",
            hint="use the model's bfloat16 checkpoint; the option quantize makes blocks of it",
        )


def _reach(rope: RopeConfig, positions: int) -> int:
    """Positions that can be used: those stated, or those of training times yarn's factor where that is more."""
    if rope.rope_type == "default":
        return positions
    return max(positions, int(rope.factor * rope.original_max_position_embeddings))


def _is_count(value: object, low: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _pad_token_id(read: ConfigReader) -> int | None:
    value = read.optional("pad_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

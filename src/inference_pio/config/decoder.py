"""What the checkpoints of decoders say alike, in config.json and in GGUF metadata."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from inference_pio.config.base import BaseModelConfig
from inference_pio.config.reader import ConfigReader
from inference_pio.errors import ModelFileError

# Keys of any config.json that change nothing here, and why.
IGNORED = {
    "architectures": "chose this plugin",
    "model_type": "chose this plugin",
    "transformers_version": "about the writer",
    "_name_or_path": "about the writer",
    "torch_dtype": "the weights say it themselves",
    "dtype": "the weights say it themselves",
    "initializer_range": "training",
    "attention_dropout": "training",
    "use_cache": "generation always uses the cache",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
    "auto_map": "code out of checkpoints is never run",
}
# Where `refuse_windows` holds.
IGNORED_WINDOWS = {
    "sliding_window": "use_sliding_window must be false, and then no layer has a window",
    "max_window_layers": "use_sliding_window must be false, and then no layer has a window",
}
_SOFTMAX = 1  # of llama.cpp's expert_gating_func
_NOT_THE_ARCHITECTURES = ("general.", "tokenizer.", "GGUF.", "quantize.", "gguf.")


@dataclass
class DecoderConfig(BaseModelConfig):
    """A decoder's configuration, read from either kind of checkpoint; heads may share keys and values."""

    num_key_value_heads: int = 1
    head_dim: int = 2

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str) -> Self:
        """From a parsed config.json, or from GGUF metadata with "gguf.tensor_names" added.

        Raises:
            ModelFileError: a key is missing, of another type, out of range, unknown, or of another architecture.
        """
        config = cls.from_gguf(raw, path) if "general.architecture" in raw else cls.from_hf(raw, path)
        config.check(path)
        return config

    @classmethod
    @abstractmethod
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        """From a parsed config.json."""

    @classmethod
    @abstractmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        """From GGUF metadata."""

    def check(self, path: str) -> None:
        """What no single key says: sizes that do not fit each other.

        Raises:
            ModelFileError: naming one of them.
        """
        check_heads(path, self.num_attention_heads, self.num_key_value_heads, self.head_dim)


def sizes(read: ConfigReader) -> dict[str, Any]:
    """The configuration's fields that have the same name, the same meaning and no default in every config.json."""
    for key in ("text_config", "vision_config", "audio_config"):
        if key in read:
            read.refuse("a model of several parts, of which this architecture is at most one", where=key)
    names = ("num_attention_heads", "hidden_size", "intermediate_size", "vocab_size")
    return {
        **{name: read.integer(name) for name in names},
        "num_hidden_layers": read.integer("num_hidden_layers", high=10_000),
        "tie_word_embeddings": read.flag("tie_word_embeddings", default=False),
        "pad_token_id": read.token_id("pad_token_id"),
    }


def refuse_other_forms(
    read: ConfigReader, plugin: str, *, activation: str = "silu", key: str = "hidden_act", hint: str = ""
) -> None:
    """Another activation than the architecture's, and weights in another form than plain tensors."""
    if (found := read.text(key, default=activation)) != activation:
        read.refuse(f"{found!r} is not the {activation} of a {plugin}", where=key)
    if "quantization_config" in read:
        read.refuse(
            "quantised safetensors are not supported",
            where="quantization_config",
            hint=hint or "use a GGUF file",
        )


def refuse_windows(read: ConfigReader, layers: int, family: str) -> None:
    """Every layer must attend to everything, whichever key says so."""
    if read.flag("use_sliding_window", default=False):
        read.refuse(
            "attention within a window is not supported for this architecture",
            where="use_sliding_window",
            hint=f"{family} models are published with false",
        )
    kinds = read.optional("layer_types")
    if kinds is not None and kinds != ["full_attention"] * layers:
        read.refuse(f"must be {layers} times full_attention, is {kinds!r:.80}", where="layer_types")


def gguf_reader(raw: Mapping[str, Any], architecture: str, path: str) -> ConfigReader:
    """Over the keys of the architecture itself, without its name in front."""
    facts = {
        key.removeprefix(f"{architecture}."): value
        for key, value in raw.items()
        if not key.startswith(_NOT_THE_ARCHITECTURES)
    }
    return ConfigReader(facts, path=path, ignored={})


def gguf_sizes(
    read: ConfigReader, raw: Mapping[str, Any], head_dim: int | None = None, *, part_turns: bool = False
) -> dict[str, Any]:
    """The same fields as `sizes`, and those that GGUF files name alike for every architecture.

    Args:
        read: of `gguf_reader`.
        raw: all metadata, with "gguf.tensor_names" added.
        head_dim: of heads whose size the file does not state; the hidden size divided by the heads where None.
        part_turns: whether positions turn a part of a head, which the caller reads as rope.dimension_count.
    """
    common = gguf_common(read, raw)
    heads, hidden_size = common["num_attention_heads"], common["hidden_size"]
    head_dim = read.integer("attention.key_length", default=head_dim or hidden_size // heads)
    for key in (
        ("attention.value_length",) if part_turns else ("attention.value_length", "rope.dimension_count")
    ):
        if (found := read.integer(key, default=head_dim)) != head_dim:
            read.refuse(
                f"{found} is not the head size {head_dim}", where=f"{raw['general.architecture']}.{key}"
            )
    return {
        **common,
        "num_key_value_heads": read.integer("attention.head_count_kv", default=heads),
        "head_dim": head_dim,
    }


def gguf_common(read: ConfigReader, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Of the fields of `gguf_sizes` those that say nothing of keys and values."""
    pad = raw.get("tokenizer.ggml.padding_token_id")
    return {
        "hidden_size": read.integer("embedding_length"),
        "num_attention_heads": read.integer("attention.head_count"),
        "num_hidden_layers": read.integer("block_count", high=10_000),
        "intermediate_size": read.integer("feed_forward_length"),
        "vocab_size": read.integer("vocab_size", default=len(raw.get("tokenizer.ggml.tokens", ())) or None),
        "rms_norm_eps": read.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in raw["gguf.tensor_names"],
        "pad_token_id": pad if isinstance(pad, int) else None,
    }


def refuse_gguf_routers(read: ConfigReader, architecture: str) -> None:
    """Any router but a softmax whose weights are taken as they are, or divided by their sum."""
    if read.integer("expert_gating_func", default=_SOFTMAX) != _SOFTMAX:
        read.refuse("the router is a softmax (1)", where=f"{architecture}.expert_gating_func")
    if read.number("expert_weights_scale", default=1.0) != 1.0:
        read.refuse("the experts' weights are not scaled", where=f"{architecture}.expert_weights_scale")


def check_heads(path: str, heads: int, kv_heads: int, head_dim: int) -> None:
    """KV heads must be shared by as many heads each, and positions must find pairs to turn."""
    if heads % kv_heads:
        raise ModelFileError(
            path, f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads"
        )
    if head_dim % 2:
        raise ModelFileError(path, f"{head_dim} is odd; rotary positions turn pairs", where="head_dim")

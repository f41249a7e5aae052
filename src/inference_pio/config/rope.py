"""Rotary positions as checkpoints state them: the default kind, and YaRN for texts longer than in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference_pio.config.reader import ConfigReader


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions: "default" (Su et al. 2021), or "yarn" (Peng et al. 2023).

    factor                            how many times longer than in training a text may be
    original_max_position_embeddings  positions in training
    attention_factor                  multiplies cosines and sines; None: 0.1 · ln(factor) + 1
    beta_fast, beta_slow              turns over the training length above which a frequency stays as it is, and
                                      below which it is slowed by the whole factor
    """

    theta: float = 10_000.0
    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 32768
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def reach(self, positions: int) -> int:
        """Positions that can be used, where a model card's recipe for long texts adds yarn and leaves `positions` as
        they were: those of training and room for an answer.
        """
        if self.rope_type == "default":
            return positions
        return max(positions, int(self.factor * self.original_max_position_embeddings))


def stated_rope(read: ConfigReader) -> Mapping[str, Any]:
    """The settings in both spellings of config.json: `rope_parameters` (transformers 5), `rope_scaling` (before)."""
    if "rope_parameters" in read and "rope_scaling" in read:
        read.refuse("rope_parameters say it as well; keep one of the two", where="rope_scaling")
    stated = read.mapping("rope_parameters") or read.mapping("rope_scaling")
    read.optional("rope_scaling")
    return stated


def rope_reader(read: ConfigReader, stated: Mapping[str, Any]) -> ConfigReader:
    """Over the settings of rotary positions, as strict as `read` itself."""
    return ConfigReader(stated, path=f"{read.path}: rope", ignored={"type": "the old name of rope_type"})


def rope_kind(rope: ConfigReader, stated: Mapping[str, Any], *known: str) -> str:
    """The kind, one of those known to the architecture."""
    kind = rope.text("rope_type", default=stated.get("type", "default"))
    if kind not in known:
        rope.refuse(f"{kind!r} is not supported; there are {' and '.join(known)}", where="rope_type")
    return kind


def read_rope(read: ConfigReader, positions: int) -> RopeConfig:
    """Both spellings of config.json: `rope_parameters` (transformers 5), and `rope_theta` with `rope_scaling` (before).

    Args:
        positions: those of training, where the settings do not say them.

    Raises:
        ModelFileError: another kind, both spellings at once, or a key that is unknown, missing or out of range.
    """
    stated = stated_rope(read)
    theta = read.number("rope_theta", default=10_000.0)
    with rope_reader(read, stated) as rope:
        theta = rope.number("rope_theta", default=theta)
        kind = rope_kind(rope, stated, "default", "yarn")
        if kind == "default":
            return RopeConfig(theta=theta)
        return RopeConfig(
            theta=theta,
            rope_type=kind,
            factor=rope.number("factor"),
            original_max_position_embeddings=rope.integer(
                "original_max_position_embeddings", default=positions
            ),
            attention_factor=rope.number("attention_factor") if "attention_factor" in rope else None,
            beta_fast=rope.number("beta_fast", default=32.0),
            beta_slow=rope.number("beta_slow", default=1.0),
        )


def positions_and_rope(read: ConfigReader) -> dict[str, Any]:
    """The fields `max_position_embeddings`, as far as the positions reach, and `rope`."""
    positions = read.integer("max_position_embeddings")
    rope = read_rope(read, positions)
    return {"max_position_embeddings": rope.reach(positions), "rope": rope}


def gguf_positions_and_rope(read: ConfigReader, architecture: str) -> dict[str, Any]:
    """The same fields out of GGUF metadata."""
    positions = read.integer("context_length", high=2**30)
    rope = read_gguf_rope(read, positions, architecture)
    return {"max_position_embeddings": rope.reach(positions), "rope": rope}


def read_gguf_rope(read: ConfigReader, positions: int, architecture: str) -> RopeConfig:
    """The same out of GGUF metadata, whose keys `read` has without the architecture's name in front."""
    theta = read.number("rope.freq_base", default=10_000.0)
    kind = read.text("rope.scaling.type", default="none")
    if kind == "none":
        return RopeConfig(theta=theta)
    if kind != "yarn":
        read.refuse(
            f"{kind!r} is not supported; there are none and yarn", where=f"{architecture}.rope.scaling.type"
        )
    return RopeConfig(
        theta=theta,
        rope_type=kind,
        factor=read.number("rope.scaling.factor"),
        original_max_position_embeddings=read.integer(
            "rope.scaling.original_context_length", default=positions
        ),
    )

"""Tables for rotary positions (Su et al. 2021), made once when a model is loaded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference_pio.config.rope import RopeConfig


def inverse_frequencies(theta: float, head_dim: int) -> Tensor:
    """[head_dim / 2] float32: theta^(-2i / head_dim), the angle per position of each pair of dimensions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / (theta**exponents)


def yarn_frequencies(
    theta: float,
    head_dim: int,
    factor: float,
    trained_positions: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> Tensor:
    """[head_dim / 2] float32: `inverse_frequencies` for texts `factor` times as long as those of the training.

    YaRN (Peng et al. 2023, section 3.2), with the details of `_compute_yarn_parameters` of transformers'
    modeling_rope_utils. Pairs that turn more than beta_fast times within the trained positions stay as they are, those
    that turn fewer than beta_slow times are slowed by the whole factor; between the two, the share that is slowed grows
    linearly with the number of the pair.
    """
    frequencies = inverse_frequencies(theta, head_dim)
    first = max(math.floor(_pair_that_turns(beta_fast, theta, head_dim, trained_positions)), 0)
    last = min(math.ceil(_pair_that_turns(beta_slow, theta, head_dim, trained_positions)), head_dim - 1)
    pairs = torch.arange(len(frequencies), dtype=torch.float32)
    slowed = ((pairs - first) / (last - first or 0.001)).clamp(0, 1)
    return frequencies * (1 - slowed) + frequencies / factor * slowed


def yarn_attention_factor(factor: float) -> float:
    """0.1 · ln(factor) + 1 (Peng et al. 2023, eq. 22): what cosines and sines are multiplied with beside YaRN.

    Queries and keys both carry it, so that the scores over a longer text are sharpened by its square.
    """
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def rotary_table(rope: RopeConfig, head_dim: int, num_positions: int) -> Tensor:
    """`cos_sin_table` [positions, head_dim] of the kind of rotary positions that a checkpoint states."""
    if rope.rope_type == "default":
        return cos_sin_table(inverse_frequencies(rope.theta, head_dim), num_positions)
    trained = rope.original_max_position_embeddings
    frequencies = yarn_frequencies(rope.theta, head_dim, rope.factor, trained, rope.beta_fast, rope.beta_slow)
    return cos_sin_table(
        frequencies, num_positions, rope.attention_factor or yarn_attention_factor(rope.factor)
    )


def cos_sin_table(frequencies: Tensor, num_positions: int, scale: float = 1.0) -> Tensor:
    """[positions, head_dim] float32: `scale` times the cosines in the first half of the columns, sines in the second.

    This is the layout that `rope_and_cache` reads.
    """
    angles_PF = torch.arange(num_positions, dtype=torch.float32)[:, None] * frequencies
    return torch.cat((angles_PF.cos(), angles_PF.sin()), dim=-1) * scale


def _pair_that_turns(times: float, theta: float, head_dim: int, trained_positions: int) -> float:
    """The number, with a fraction, of the pair that turns so many times within the trained positions."""
    wavelength = trained_positions / times
    return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(theta))

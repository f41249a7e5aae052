"""A llama that computes the same with wider matrices: zeros up to a width that blocks of 256 can be cut from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

# What the two dimensions of a matrix count.
_DIMENSIONS = {
    "token_embd": ("", "hidden"),
    "output": ("", "hidden"),
    "attn_q": ("query", "hidden"),
    "attn_k": ("key", "hidden"),
    "attn_v": ("key", "hidden"),
    "attn_output": ("hidden", "query"),
    "ffn_gate": ("inner", "hidden"),
    "ffn_up": ("inner", "hidden"),
    "ffn_down": ("hidden", "inner"),
}
_NORMS = ("attn_norm", "ffn_norm", "output_norm")


@dataclass(frozen=True)
class Widening:
    """The hidden size, the heads and the feed-forward width of a model, filled up with zeros.

    Channels of zeros stay zero through every layer; heads of zeros add nothing. The norms alone notice: the mean of
    squares is now over more channels, n' instead of n, and thus n / n' of what it was. Their weights and their epsilon
    make up for it: x / √(n/n' · m + ε·n/n') · w·√(n/n') = x / √(m + ε) · w.

    facts   metadata -> its new value
    sizes   what a dimension counts -> its new size
    shrunk  n / n'
    """

    facts: dict[str, Any]
    sizes: dict[str, int]
    shrunk: float

    @classmethod
    def of(cls, reader: gguf.GGUFReader, multiple: int) -> Widening:
        """Widths become multiples of `multiple`; raises ValueError for architectures and shapes it cannot widen."""
        if multiple == 1:
            return cls({}, {}, 1.0)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        if fields["general.architecture"] != "llama":
            raise ValueError(f"only llamas can be widened, not {fields['general.architecture']!r}")
        names = {
            short: f"llama.{long}"
            for short, long in (
                ("hidden", "embedding_length"),
                ("inner", "feed_forward_length"),
                ("heads", "attention.head_count"),
                ("kv_heads", "attention.head_count_kv"),
                ("epsilon", "attention.layer_norm_rms_epsilon"),
            )
        }
        old = {short: fields[name] for short, name in names.items()}
        head_dim, group = old["hidden"] // old["heads"], old["heads"] // old["kv_heads"]
        hidden, inner = (-(-old[width] // multiple) * multiple for width in ("hidden", "inner"))
        heads = hidden // head_dim
        if hidden % head_dim or heads % group:
            raise ValueError(
                f"a hidden size of {hidden} is not whole groups of {group} heads of {head_dim} values"
            )
        shrunk = old["hidden"] / hidden
        new = {
            "hidden": hidden,
            "inner": inner,
            "heads": heads,
            "kv_heads": heads // group,
            "epsilon": old["epsilon"] * shrunk,
        }
        sizes = {"hidden": hidden, "inner": inner, "query": hidden, "key": heads // group * head_dim}
        return cls({name: new[short] for short, name in names.items()}, sizes, shrunk)

    def fact(self, name: str, value: Any) -> Any:
        return self.facts.get(name, value)

    def tensor(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[rows, columns] or [channels] in the new sizes; raises KeyError for a name that is not known."""
        part = name.removesuffix(".weight").rpartition(".")[2]
        if not self.sizes or name == "rope_freqs.weight":
            return values
        if part in _NORMS:
            return _filled(values * np.float32(math.sqrt(self.shrunk)), (self.sizes["hidden"],))
        shape = zip(_DIMENSIONS[part], values.shape, strict=True)
        return _filled(values, tuple(self.sizes.get(counted, size) for counted, size in shape))


def _filled(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    filled = np.zeros(shape, np.float32)
    filled[tuple(slice(size) for size in values.shape)] = values
    return filled

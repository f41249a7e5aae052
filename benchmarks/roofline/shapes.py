"""What a step of a model moves and computes, out of the header of its GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.tensor_info import TensorInfo

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_KV_ITEM_BYTES = 2  # bfloat16


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes.

    weight_bytes      that every step reads: all tensors as stored; of an embedding that is not the head too, nothing
    body_parameters   of the matrices that every token passes
    head_parameters   of the matrix that only tokens pass whose logits are wanted
    kv_bytes          that one token's keys and values take in all layers, in bfloat16
    attention_width   heads x head size x layers: two products of this many multiply-adds per pair of tokens
    """

    weight_bytes: int
    body_parameters: int
    head_parameters: int
    kv_bytes: int
    attention_width: int


def read_shape(file: Path) -> Shape:
    """Raises ModelFileError where the file is no GGUF file."""
    with GGUFFile(file) as opened:
        return shape_of(opened.metadata, opened.tensors)


def shape_of(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Shape:
    """Of a dense decoder: a mixture of experts would not read all its tensors in a step."""
    name = metadata["general.architecture"]
    heads, layers = metadata[f"{name}.attention.head_count"], metadata[f"{name}.block_count"]
    kv_heads = metadata.get(f"{name}.attention.head_count_kv", heads)
    head_dim = metadata.get(f"{name}.attention.key_length", metadata[f"{name}.embedding_length"] // heads)
    tied = _HEAD not in tensors
    read = [info for info in tensors.values() if tied or info.name != _EMBEDDING]
    matrices = [info for info in read if len(info.shape) > 1 and info.name not in (_EMBEDDING, _HEAD)]
    return Shape(
        weight_bytes=sum(info.nbytes for info in read),
        body_parameters=sum(info.num_elements for info in matrices),
        head_parameters=tensors[_EMBEDDING if tied else _HEAD].num_elements,
        kv_bytes=2 * layers * kv_heads * head_dim * _KV_ITEM_BYTES,
        attention_width=layers * heads * head_dim,
    )

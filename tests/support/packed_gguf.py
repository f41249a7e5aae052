"""GGUF files whose matrices are quantised: by the gguf package where it can, else from bytes that a test gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import quants
from torch import Tensor

# What the gguf package can encode, and this project multiplies.
ENCODED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
Kinds = Callable[[str], str]


def encode(values: np.ndarray, kind: str) -> np.ndarray:
    """float32 [rows, columns] → uint8 [rows, bytes of a row]."""
    return quants.quantize(values, gguf.GGMLQuantizationType[kind])


def decode(data: Tensor | np.ndarray, kind: str) -> Tensor:
    """uint8 [rows, bytes of a row] → float32 [rows, columns], as the gguf package reads them."""
    with np.errstate(all="ignore"):
        return torch.from_numpy(quants.dequantize(np.asarray(data), gguf.GGMLQuantizationType[kind]))


def write_tensors(
    path: Path, blocks: Mapping[str, tuple[str, Tensor]], plain: Mapping[str, Tensor] | None = None
) -> Path:
    """A file without metadata: quantised tensors by (kind, uint8 rows), and plain ones."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, (kind, data) in blocks.items():
        writer.add_tensor(name, data.numpy(), raw_dtype=gguf.GGMLQuantizationType[kind])
    for name, value in (plain or {}).items():
        writer.add_tensor(name, value.numpy())
    _finish(writer)
    return path


def requantize(source: Path, target: Path, kind_of: Kinds) -> Path:
    """The same model with every matrix in blocks of the kind that `kind_of` names for it."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], item)
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        kind = kind_of(tensor.name)
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, encode(values, kind), raw_dtype=gguf.GGMLQuantizationType[kind])
    _finish(writer)
    return target


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

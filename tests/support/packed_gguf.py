"""GGUF files of quantised tensors from bytes that a test gives, and how the gguf package reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import quants
from torch import Tensor


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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

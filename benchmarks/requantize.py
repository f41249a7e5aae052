"""A GGUF model once more, with its matrices in blocks of another kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import quants
from numpy.typing import NDArray

from encode_super import ENCODERS, encode_super
from inference_pio.loader.quant_tables import IQ4_VALUES
from widen import Widening

# Blocks of 32 values, all but IQ4_NL encoded by the gguf package, and blocks of 256 values.
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", *ENCODERS)


def encode(values: NDArray[np.float32], kind: str) -> NDArray[np.uint8]:
    """float32 [rows, columns], columns a multiple of the block → uint8 [rows, bytes of a row]."""
    if kind == "IQ4_NL":
        return _iq4_nl(values)
    if kind in ENCODERS:
        return encode_super(torch.from_numpy(values), kind).numpy()
    encoded: NDArray[np.uint8] = quants.quantize(values, gguf.GGMLQuantizationType[kind])
    return encoded


def requantize(source: Path, target: Path, kind_of: Callable[[str], str], multiple: int = 1) -> Path:
    """The same model with every matrix in blocks of the kind that `kind_of` gives for its name.

    With `multiple`, widths that are none of it are filled up (see `Widening`).
    """
    reader = gguf.GGUFReader(source)
    widening = Widening.of(reader, multiple)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, widening.fact(field.name, field.contents()), field.types[0], item)
    for tensor in reader.tensors:
        values = widening.tensor(tensor.name, quants.dequantize(tensor.data, tensor.tensor_type))
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
            continue
        kind = kind_of(tensor.name)
        writer.add_tensor(tensor.name, encode(values, kind), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _iq4_nl(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each value becomes the nearest of the 16 levels; a block's largest magnitude becomes the lowest, -127."""
    levels = IQ4_VALUES.numpy()
    blocks = values.reshape(-1, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], axis=1)
    scale = (largest / levels[0]).astype(np.float16)
    inverse = np.divide(1.0, scale, dtype=np.float32, out=np.zeros_like(largest), where=scale != 0)
    numbers = np.searchsorted((levels[1:] + levels[:-1]) / 2, blocks * inverse).astype(np.uint8)
    packed = np.concatenate((scale.view(np.uint8), numbers[:, :16] | numbers[:, 16:] << 4), axis=1)
    return packed.reshape(len(values), -1)

"""safetensors files of which some tensors are blocks: uint8 [..., bytes of a row], and "blocks:<name>" in the metadata
says of which kind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_pio.loader.draft import Layout
from inference_pio.loader.safetensors_header import BLOCKS, ITEM_BYTES
from inference_pio.loader.tensor_info import TensorInfo
from inference_pio.loader.weight_files import is_weights

_ALIGNMENT = 8


def safetensors_layout(tensors: Mapping[str, TensorInfo], facts: Mapping[str, int | str]) -> Layout:
    """These tensors in this order; `facts` go into the metadata."""
    notes = {key: str(value) for key, value in facts.items()}
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for name, info in tensors.items():
        dtype, shape = info.dtype, list(info.shape)
        if dtype not in ITEM_BYTES:
            notes[BLOCKS + name] = dtype
            dtype, shape = "U8", [*shape[:-1], info.nbytes * shape[-1] // info.num_elements]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + info.nbytes]}
        end += info.nbytes
    text = json.dumps({"__metadata__": notes, **entries}).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    head = len(text).to_bytes(8, "little") + text
    offsets = {name: len(head) + entry["data_offsets"][0] for name, entry in entries.items()}
    return Layout(head, offsets, len(head) + end)


def copy_beside(source: Path, folder: Path) -> None:
    """What lies beside the weights of a model in a directory: configuration, tokenizer, chat template, licence."""
    for file in sorted((source if source.is_dir() else source.parent).iterdir()):
        if file.is_file() and not is_weights(file.name):
            shutil.copyfile(file, folder / file.name)

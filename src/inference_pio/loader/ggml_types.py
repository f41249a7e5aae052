"""The tensor types of GGUF files: numbers, names, and how many bytes a block of values takes.

Source: the type enumeration and block structures of ggml (ggml.h, ggml-common.h), as published with the GGUF
specification (github.com/ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GGMLType:
    """`block_size` consecutive values of a row are stored together in `block_bytes` bytes."""

    name: str
    block_size: int
    block_bytes: int

    def nbytes(self, num_elements: int) -> int:
        return num_elements // self.block_size * self.block_bytes


# Types that `dequantize.py` decodes, by their number in the file.
GGML_TYPES: dict[int, GGMLType] = {
    0: GGMLType("F32", 1, 4),
    1: GGMLType("F16", 1, 2),
    2: GGMLType("Q4_0", 32, 18),
    3: GGMLType("Q4_1", 32, 20),
    6: GGMLType("Q5_0", 32, 22),
    7: GGMLType("Q5_1", 32, 24),
    8: GGMLType("Q8_0", 32, 34),
    10: GGMLType("Q2_K", 256, 84),
    11: GGMLType("Q3_K", 256, 110),
    12: GGMLType("Q4_K", 256, 144),
    13: GGMLType("Q5_K", 256, 176),
    14: GGMLType("Q6_K", 256, 210),
    16: GGMLType("IQ2_XXS", 256, 66),
    20: GGMLType("IQ4_NL", 32, 18),
    23: GGMLType("IQ4_XS", 256, 136),
    30: GGMLType("BF16", 1, 2),
}

TYPES_BY_NAME: dict[str, GGMLType] = {kind.name: kind for kind in GGML_TYPES.values()}
BLOCK_KINDS = tuple(kind.name for kind in GGML_TYPES.values() if kind.block_size > 1)

# Types that exist (or existed) but are not decoded here: named in the refusal, so that the reader knows what it has.
OTHER_TYPES: dict[int, str] = {
    4: "Q4_2 (removed from the format)",
    5: "Q4_3 (removed from the format)",
    9: "Q8_1",
    15: "Q8_K",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    31: "Q4_0_4_4 (removed from the format)",
    32: "Q4_0_4_8 (removed from the format)",
    33: "Q4_0_8_8 (removed from the format)",
    34: "TQ1_0",
    35: "TQ2_0",
    36: "IQ4_NL_4_4 (removed from the format)",
    37: "IQ4_NL_4_8 (removed from the format)",
    38: "IQ4_NL_8_8 (removed from the format)",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}

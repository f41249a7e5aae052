"""Tables of facts behind the codebook types of GGUF (ggml-common.h: kvalues_iq4nl, iq2xxs_grid, ksigns_iq2xs)."""

from __future__ import annotations

import torch
from torch import Tensor

# The 16 levels of IQ4_NL and IQ4_XS: float32 [16].
IQ4_VALUES = torch.tensor(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=torch.float32
)

# Each of the 256 grid points of IQ2_XXS is eight magnitudes out of 8, 25 and 43, here as the digits 0, 1, 2 of a number
# in base 3 (lowest digit first), four hexadecimal digits per point.
_IQ2_POINTS = (
    "00000002000400060008000a000c001200140018001a001c001e0024002a002e003000360038003e004a00520054005a"
    "005e006c008a009600a200a400b600da00f400f600fc01060108010e011001140120012a012c0132013e01440146014a"
    "015601640178017a0184019c019e01b001ce01e001e601ea01ec01f201fe02020204020a020c0222023a0252028a0294"
    "02da02dc02e202ec02f4030603120318031c032a0330033c034e035603600390039a03cc03d203de03e203ee0402042c"
    "044c046e047c04c004c204c804da04f6051005140558058605b205b405ba05d005e005e805ea061c06240654065606a6"
    "06a806ae06c006ce06f6071207260786079e07aa07da0858088c088e0894089a089e08a008a608ac08b408b808c208c4"
    "08ca08dc08ee090a09120916092e0936094e09560960097e0984099009b409c409da09e40a200a720a740a7a0a8c0a90"
    "0ac20aec0af00afa0b320b520b640b6a0b6e0b740b760b9a0ba00bb80bd20c000c460c960c980cb00cfa0d200d4a0d54"
    "0d5a0d7a0db60df20e400e460e580e700e8e0eb60eee0f0c0f300f340f8a0f8c0fba104011161118111e1132114e116a"
    "1176118211c2120a120c1212121612241236125a127a129c12b212c612d812fe135013a813f213f81404140a1438144e"
    "147614b014e214f615001558160c163816ca16ec17021720176a17ca18d21902"
)


def _iq2_grid() -> Tensor:
    """float32 [256, 8]."""
    codes = [int(_IQ2_POINTS[start : start + 4], 16) for start in range(0, len(_IQ2_POINTS), 4)]
    digits = torch.tensor(codes)[:, None] // 3 ** torch.arange(8) % 3
    return torch.tensor([8.0, 25.0, 43.0])[digits]


def _iq2_signs() -> Tensor:
    """float32 [128, 8]: the sign bits of a pattern; the eighth makes the number of minus signs even."""
    bits = torch.arange(128)[:, None] >> torch.arange(7) & 1
    bits = torch.cat((bits, bits.sum(1, keepdim=True) % 2), dim=1)
    return 1.0 - 2.0 * bits.float()


IQ2_GRID = _iq2_grid()
IQ2_SIGNS = _iq2_signs()

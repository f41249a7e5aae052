"""What a caller may ask about the precision of weights."""

from __future__ import annotations

from dataclasses import dataclass

from inference_pio.errors import UsageError

# Words of the option, and the blocks that floats become: 8 bits symmetric, 4 bits with a minimum.
_KINDS = {"int8": "Q8_0", "int4": "Q4_1"}
_GROUPS = {"": 32, ":32": 32, ":64": 64, ":128": 128}


@dataclass(frozen=True)
class Quantization:
    """Weights with more bits become blocks of `kind` when they are loaded; `group_size` columns share a scale."""

    kind: str
    group_size: int = 32

    @classmethod
    def parse(cls, asked: str) -> Quantization:
        """ "int8", "int4", or either with a group size: "int4:64".

        Raises:
            UsageError: another word or size.
        """
        word, colon, size = asked.partition(":")
        kind, group_size = _KINDS.get(word), _GROUPS.get(colon + size)
        if kind is None or group_size is None:
            raise UsageError(
                f"quantize must be int8 or int4, with :32, :64 or :128 for the group size if you like, got {asked!r}"
            )
        return cls(kind, group_size)


METHODS = ("gptq", "rtn")
LEAST_TOKENS = 256  # of a calibration text
_BITS = {4: "int4", 8: "int8"}


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is quantised for good.

    bits, group_size  of the blocks, as `Quantization` names them
    method            "gptq": errors of rounding are made up for, by what a calibration text says of the inputs; "rtn":
                      to nearest, without a text
    tokens            of the text that are used; None: as many as there are, up to 8192
    again             round weights once more that have as few bits already
    """

    bits: int = 4
    group_size: int = 32
    method: str = "gptq"
    tokens: int | None = None
    again: bool = False

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise UsageError(f"bits must be 4 or 8, got {self.bits!r}")
        if f":{self.group_size}" not in _GROUPS:
            raise UsageError(f"the group size must be 32, 64 or 128, got {self.group_size!r}")
        if self.method not in METHODS:
            raise UsageError(f"method must be {' or '.join(METHODS)}, got {self.method!r}")
        if self.tokens is not None and self.tokens < LEAST_TOKENS:
            raise UsageError(
                f"tokens must be at least {LEAST_TOKENS}, got {self.tokens}: fewer say too little of the inputs"
            )

    @property
    def quantization(self) -> Quantization:
        return Quantization(_KINDS[_BITS[self.bits]], self.group_size)

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

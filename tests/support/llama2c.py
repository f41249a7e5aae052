"""llama2.c's tokenizer files as the GGUF metadata that a converter would write."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_UNKNOWN, _CONTROL, _NORMAL, _BYTE = 2, 3, 1, 6


def gguf_metadata(tok_path: Path) -> dict[str, Any]:
    """Keys for `Tokenizer.from_gguf`.

    The file: int32 longest entry, then per entry float32 score, int32 length, bytes. Entries 0 to 2 are unknown,
    begin and end; 3 to 258 the bytes. Spaces are written as such where a SentencePiece vocabulary has U+2581.
    """
    data = tok_path.read_bytes()
    tokens: list[str] = []
    scores: list[float] = []
    position = 4
    while position < len(data):
        score, length = struct.unpack_from("<fi", data, position)
        position += 8
        tokens.append(data[position : position + length].decode("utf-8").replace(" ", "\u2581"))
        scores.append(score)
        position += length
    types = [_NORMAL] * len(tokens)
    tokens[:3], types[:3] = ["<unk>", "<s>", "</s>"], [_UNKNOWN, _CONTROL, _CONTROL]
    tokens[3:259], types[3:259] = [f"<0x{byte:02X}>" for byte in range(256)], [_BYTE] * 256
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }

"""Checkpoints of llama2.c (its version 0 container and tokenizer) as GGUF files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_SPACE = "▁"


def write_gguf(model: Path, tokenizer: Path, target: Path) -> Path:
    """The same weights and vocabulary in a GGUF file.

    llama2.c turns neighbouring rows of q and k, and so does GGUF's llama: rows stay in order. Constants that the
    container leaves out are those of llama2.c's `run.c`: rotary base 10000, norm epsilon 1e-5.
    """
    raw = model.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab_size, positions = struct.unpack_from("<7i", raw)
    assert vocab_size > 0, "the classifier of this container is not shared with the embedding"
    values = np.frombuffer(raw, dtype="<f4", offset=28)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(positions)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab_size)
    _add_vocabulary(writer, tokenizer, vocab_size)
    kv_dim = dim // heads * kv_heads
    start = 0
    for name, shape in (
        ("token_embd", (vocab_size, dim)),
        ("blk.*.attn_norm", (layers, dim)),
        ("blk.*.attn_q", (layers, dim, dim)),
        ("blk.*.attn_k", (layers, kv_dim, dim)),
        ("blk.*.attn_v", (layers, kv_dim, dim)),
        ("blk.*.attn_output", (layers, dim, dim)),
        ("blk.*.ffn_norm", (layers, dim)),
        ("blk.*.ffn_gate", (layers, hidden, dim)),
        ("blk.*.ffn_down", (layers, dim, hidden)),
        ("blk.*.ffn_up", (layers, hidden, dim)),
        ("output_norm", (dim,)),
    ):
        count = int(np.prod(shape))
        block = values[start : start + count].reshape(shape)
        start += count
        if "*" not in name:
            writer.add_tensor(f"{name}.weight", block.copy())
            continue
        for layer in range(layers):
            writer.add_tensor(f"{name.replace('*', str(layer))}.weight", block[layer].copy())
    # What is left are the cosines and sines of every position, which follow from the base.
    assert len(values) - start == positions * (dim // heads), "the container does not end where it should"
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def gguf_metadata(tokenizer: Path, vocab_size: int = 512) -> dict[str, Any]:
    """The tokenizer as GGUF metadata of a SentencePiece-style vocabulary."""
    pieces, scores = zip(*_pieces(tokenizer, vocab_size), strict=True)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            "<unk>",
            "<s>",
            "</s>",
            *(piece.replace(" ", _SPACE) for piece in pieces[3:]),
        ],
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": [int(_kind(index, piece)) for index, piece in enumerate(pieces)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Path, vocab_size: int) -> None:
    facts = gguf_metadata(tokenizer, vocab_size)
    writer.add_tokenizer_model(facts["tokenizer.ggml.model"])
    writer.add_token_list(facts["tokenizer.ggml.tokens"])
    writer.add_token_scores(facts["tokenizer.ggml.scores"])
    writer.add_token_types(facts["tokenizer.ggml.token_type"])
    writer.add_bos_token_id(facts["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(facts["tokenizer.ggml.eos_token_id"])
    writer.add_unk_token_id(facts["tokenizer.ggml.unknown_token_id"])


def _kind(index: int, piece: str) -> gguf.TokenType:
    if index == 0:
        return gguf.TokenType.UNKNOWN
    if index in (1, 2):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if piece.startswith("<0x") and piece.endswith(">") else gguf.TokenType.NORMAL


def _pieces(tokenizer: Path, vocab_size: int) -> Iterator[tuple[str, float]]:
    """(piece, score) in order: a float, a length and that many bytes each, after the longest length."""
    raw, place = tokenizer.read_bytes(), 4
    for _ in range(vocab_size):
        score, length = struct.unpack_from("<fi", raw, place)
        place += 8
        yield raw[place : place + length].decode(), score
        place += length
    assert place == len(raw), "the tokenizer does not end where it should"

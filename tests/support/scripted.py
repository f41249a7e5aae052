"""A model that answers every prompt with the same words: each of them is a token, and the token before it decides."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from inference_pio.conformance.tiny_tokenizer import END_OF_TURN, VOCAB_SIZE, write_tokenizer

_HIDDEN = 128
_VOCABULARY = 320


def write_scripted(
    folder: Path, words: Sequence[str], special: Collection[str], chat_template: str, last: str
) -> Path:
    """A llama's directory.

    Args:
        words: what it says before it ends its turn, all different.
        special: those of them that are special tokens.
        last: the character with which every prompt ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, chat_template)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    added = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    for token_id, word in enumerate(words, VOCAB_SIZE):
        entry = {**tokenizer["added_tokens"][0], "id": token_id, "content": word, "special": word in special}
        tokenizer["added_tokens"].append(entry)
    # A gap in the ids would be refused: fillers take what lies between.
    taken = {entry["id"] for entry in tokenizer["added_tokens"]} | set(tokenizer["model"]["vocab"].values())
    for token_id in sorted(set(range(VOCAB_SIZE)) - taken):
        tokenizer["added_tokens"].append(
            {**tokenizer["added_tokens"][0], "id": token_id, "content": f"<|unused {token_id}|>"}
        )
    tokenizer["added_tokens"].sort(key=lambda entry: entry["id"])
    file.write_text(json.dumps(tokenizer))
    symbols = {"\n": "Ċ", ">": ">"}
    chain = [
        tokenizer["model"]["vocab"][symbols[last]],
        *range(VOCAB_SIZE, VOCAB_SIZE + len(words)),
        added[END_OF_TURN],
    ]
    _write_model(folder, chain)
    return folder


def _write_model(folder: Path, chain: Sequence[int]) -> None:
    """Layers that add nothing, and a head in which each token of `chain` points to the next."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _HIDDEN,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "vocab_size": _VOCABULARY,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    embedding = torch.randn(_VOCABULARY, _HIDDEN, generator=torch.Generator().manual_seed(3))
    head = torch.zeros(_VOCABULARY, _HIDDEN)
    for before, after in pairwise(chain):
        head[after] = embedding[before]
    layer = "model.layers.0."
    zero = {
        **{f"{layer}self_attn.{name}_proj.weight": (_HIDDEN, _HIDDEN) for name in "qkvo"},
        f"{layer}mlp.gate_proj.weight": (32, _HIDDEN),
        f"{layer}mlp.up_proj.weight": (32, _HIDDEN),
        f"{layer}mlp.down_proj.weight": (_HIDDEN, 32),
    }
    tensors = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": head,
        "model.norm.weight": torch.ones(_HIDDEN),
        f"{layer}input_layernorm.weight": torch.ones(_HIDDEN),
        f"{layer}post_attention_layernorm.weight": torch.ones(_HIDDEN),
        **{name: torch.zeros(shape) for name, shape in zero.items()},
    }
    save_file(tensors, folder / "model.safetensors")

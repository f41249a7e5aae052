"""What llama.cpp calls the tensors that decoders have in common, and what their checkpoints call them.

gguf-py/gguf/constants.py and tensor_mapping.py; a plugin adds what only its architecture has.
"""

from __future__ import annotations

from collections.abc import Mapping

LAYER = "model.layers.*."
ENDS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
HEAD_NORMS = {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
FEED_FORWARD = {
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}


def weights(layer: Mapping[str, str], kinds: tuple[str, ...] = ("weight",)) -> dict[str, str]:
    """GGUF name -> checkpoint name of every weight of `ENDS` and, in each layer, every `kinds` of `layer`."""
    ends = {f"{gguf}.weight": f"{name}.weight" for gguf, name in ENDS.items()}
    return ends | in_layers(layer, kinds)


def in_layers(layer: Mapping[str, str], kinds: tuple[str, ...] = ("weight",)) -> dict[str, str]:
    """GGUF name -> checkpoint name, of parameters that a layer has."""
    return {f"blk.*.{gguf}.{kind}": f"{LAYER}{name}.{kind}" for gguf, name in layer.items() for kind in kinds}

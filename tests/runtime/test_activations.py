"""What the plan says of a step's activations holds, and is not vastly more than what a step takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inference_pio.plugin.registry import default_registry

PROGRAM = Path(__file__).parents[1] / "support" / "step_peak.py"
SIZES = {
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 65536,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 64}
LINEAR = {
    **GROUPED,
    "intermediate_size": 1280,
    "rotary_dim": 16,
    "layer_types": ("linear_attention", "full_attention"),
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "num_experts": 32,
    "num_experts_per_tok": 10,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
}
LATENT = {
    **SIZES,
    "intermediate_size": 2560,
    "num_attention_heads": 20,
    "q_lora_rank": 192,
    "mlp_layer_types": ("dense", "dense"),
}
CASES = {
    "dense": ("llama", {**GROUPED, "intermediate_size": 1536}, {}),
    "experts": (
        "qwen3_moe",
        {
            **GROUPED,
            "intermediate_size": 1536,
            "num_experts": 32,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 192,
        },
        {"sequences": 8},
    ),
    "experts and delta rule": ("qwen3_next", LINEAR, {}),
    "delta rule": (
        "qwen3_next",
        {**LINEAR, "layer_types": ("linear_attention",) * 2, "num_experts": 0, "dense_layers": (0, 1)},
        {"tokens": 1024},
    ),
    "latents": ("glm4_moe_lite", LATENT, {"tokens": 2048, "context": 16384}),
    "latents and experts": (
        "glm4_moe_lite",
        {
            **LATENT,
            "mlp_layer_types": ("dense", "sparse"),
            "moe_intermediate_size": 384,
            "n_routed_experts": 16,
        },
        {"sequences": 8},
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no high-water mark to reset")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_a_steps_peak_is_planned(case: str, dtype: str) -> None:
    name, fields, step = CASES[case]
    if name not in default_registry().names():
        pytest.skip(f"plugin {name} is not installed")
    asked: dict[str, Any] = {"name": name, "fields": fields, "dtype": dtype, "tokens": 4096, **step}
    command = [sys.executable, str(PROGRAM), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    measured, planned = found["measured"], found["planned"]
    assert measured <= 1.1 * planned, f"{measured / 1e6:.0f} MB, {planned / 1e6:.0f} MB planned"
    assert planned <= 3 * measured, f"{measured / 1e6:.0f} MB, {planned / 1e6:.0f} MB planned"

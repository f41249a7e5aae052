"""Qwen3-30B-A3B and Qwen3-Coder-30B-A3B: mixtures of experts."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="qwen3_moe",
    api_version=1,
    architectures=("Qwen3MoeForCausalLM",),
    gguf_architectures=("qwen3moe",),
    plugin="inference_pio.models.qwen3_moe.plugin:Qwen3MoePlugin",
    description="Qwen3-30B-A3B, Qwen3-Coder-30B-A3B: grouped-query attention with normalised heads, 8 of 128 experts",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

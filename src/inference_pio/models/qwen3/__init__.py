"""Qwen3, the dense models of 0.6 to 32 billion weights."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="qwen3",
    api_version=1,
    architectures=("Qwen3ForCausalLM",),
    gguf_architectures=("qwen3",),
    plugin="inference_pio.models.qwen3.plugin:Qwen3Plugin",
    description="Qwen3 0.6B to 32B: grouped-query attention with normalised queries and keys, rotary positions, SwiGLU",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

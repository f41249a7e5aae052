"""Qwen2.5 and Qwen2.5-Coder."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="qwen2",
    api_version=1,
    architectures=("Qwen2ForCausalLM",),
    gguf_architectures=("qwen2",),
    plugin="inference_pio.models.qwen2.plugin:Qwen2Plugin",
    description="Qwen2.5, Qwen2.5-Coder: grouped-query attention, biased q, k and v, rotary positions, SwiGLU",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

"""Llama 2, Llama 3.x and SmolLM2."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="llama",
    api_version=1,
    architectures=("LlamaForCausalLM",),
    gguf_architectures=("llama",),
    plugin="inference_pio.models.llama.plugin:LlamaPlugin",
    description="Llama 2, Llama 3.x, SmolLM2: grouped-query attention, rotary positions, SwiGLU",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

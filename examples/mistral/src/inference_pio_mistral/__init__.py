"""Llama 2, Llama 3.x and SmolLM2."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="mistral",
    api_version=1,
    architectures=("MistralForCausalLM",),
    gguf_architectures=("mistral",),
    plugin="inference_pio_mistral.plugin:MistralPlugin",
    description="begun as a copy of llama",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

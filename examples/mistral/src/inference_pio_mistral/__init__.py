"""Mistral 7B and Mistral Nemo."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="mistral",
    api_version=1,
    architectures=("MistralForCausalLM",),
    # GGUF files of Mistral call their architecture llama: those are read by whoever claims that name.
    gguf_architectures=(),
    plugin="inference_pio_mistral.plugin:MistralPlugin",
    description="Mistral 7B, Mistral Nemo: grouped-query attention, in a sliding window or without, SwiGLU",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

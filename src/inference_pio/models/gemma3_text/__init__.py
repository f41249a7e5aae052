"""Gemma 3, the text models."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="gemma3_text",
    api_version=1,
    architectures=("Gemma3ForCausalLM",),
    gguf_architectures=("gemma3",),
    plugin="inference_pio.models.gemma3_text.plugin:Gemma3TextPlugin",
    description="Gemma 3 text models: layers within a sliding window and full ones, norms of heads, GeGLU",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

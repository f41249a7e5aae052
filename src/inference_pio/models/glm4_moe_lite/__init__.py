"""GLM-4.7-Flash."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="glm4_moe_lite",
    api_version=1,
    architectures=("Glm4MoeLiteForCausalLM",),
    gguf_architectures=("deepseek2",),
    plugin="inference_pio.models.glm4_moe_lite.plugin:Glm4MoeLitePlugin",
    description="GLM-4.7-Flash: latent attention, interleaved rotary positions, sigmoid router, shared expert",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

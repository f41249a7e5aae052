"""Qwen3-Next and Qwen3-Coder-Next."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="qwen3_next",
    api_version=1,
    architectures=("Qwen3NextForCausalLM",),
    gguf_architectures=("qwen3next",),
    plugin="inference_pio.models.qwen3_next.plugin:Qwen3NextPlugin",
    description="Qwen3-Next, Qwen3-Coder-Next: gated DeltaNet and gated attention in turns, mixtures of experts",
    capabilities=Capabilities(chat=True, tensor_parallel=True, recurrent_state=True),
)

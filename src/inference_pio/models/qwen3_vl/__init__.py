"""Qwen3-VL, the dense models that read text and images."""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="qwen3_vl",
    api_version=1,
    architectures=("Qwen3VLForConditionalGeneration",),
    plugin="inference_pio.models.qwen3_vl.plugin:Qwen3VLPlugin",
    modalities=("text", "image"),
    description="Qwen3-VL, dense: Qwen3's text layers with positions in three axes, a vision tower, DeepStack",
    capabilities=Capabilities(chat=True, tensor_parallel=True),
)

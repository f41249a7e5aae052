"""Architectures without a plugin, through Transformers' own modules (the extra `transformers`).

Ours are the scheduler, the paged cache and attention over it, sampling, loading and text; theirs is the mathematics
between the tokens and each layer's queries, keys and values. What cannot be run this way is refused by name.
"""

from inference_pio.plugin.manifest import Capabilities, Manifest

MANIFEST = Manifest(
    name="transformers",
    api_version=1,
    architectures=(),
    plugin="inference_pio.bridge.plugin:BridgePlugin",
    description="A bridge to Transformers' modules, for architectures without a plugin",
    fallback=(
        "Transformers' own modules: about half the speed at which a plugin of ours decodes in bfloat16, and no "
        "quantised weights, GGUF files, recorded steps or tensor parallelism"
    ),
    capabilities=Capabilities(chat=True),
)

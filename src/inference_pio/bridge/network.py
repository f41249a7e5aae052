"""Transformers' modules for a config.json: built without memory, with buffers computed afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from inference_pio.bridge.attention import NAME
from inference_pio.bridge.foreign import refuse, transformers_at_work
from inference_pio.bridge.offer import class_of
from inference_pio.errors import PluginError

# Keys that choose implementations or what a forward pass gives back, and change no logits.
_CHOICES = frozenset(
    {
        *(
            "architectures",
            "auto_map",
            "attn_implementation",
            "experts_implementation",
            "dtype",
            "torch_dtype",
        ),
        *(
            "output_attentions",
            "output_hidden_states",
            "output_router_logits",
            "return_dict",
            "use_return_dict",
        ),
        *("gradient_checkpointing", "torchscript", "use_cache", "use_kernels"),
    }
)
_QUANTISED = ("quantization_config", "compression_config")
_ATTENTION_KINDS = frozenset({"full_attention", "sliding_attention", "attention"})
# Endings of keys that count what becomes objects, one by one, and more than any model has.
_MOST = {"layer": 1000, "layers": 1000, "experts": 4096}
_MOST_BUFFER_BYTES = 2**30


def config_of(raw: Mapping[str, Any], path: str) -> Any:
    """Transformers' configuration for a config.json, and nothing that it says about implementations.

    Raises:
        UnsupportedArchitecture: the class has parts that are no language model, or a value does not fit it.
    """
    if "general.architecture" in raw:
        raise refuse(path, "it reads safetensors directories, not GGUF files")
    for key in _QUANTISED:
        if raw.get(key) is not None:
            raise refuse(
                path, "weights in blocks are not read from safetensors", where=key, hint="use dense weights"
            )
    try:
        model_type, _ = class_of(raw)
    except PluginError as error:
        raise refuse(path, str(error)) from error
    for key, value in raw.items():
        most = _MOST.get(key.rpartition("_")[2])
        if most is not None and isinstance(value, int) and value > most:
            raise refuse(path, f"{value} is more than {most}", where=key)
    facts = {key: deepcopy(value) for key, value in raw.items() if key not in _CHOICES and key[:1] != "_"}
    with transformers_at_work(path, "reading config.json"):
        config = transformers.CONFIG_MAPPING[model_type].from_dict(facts)
    if config.is_encoder_decoder:
        raise refuse(path, "a decoder that reads an encoder", where="is_encoder_decoder")
    if config.sub_configs:
        parts = ", ".join(sorted(config.sub_configs))
        raise refuse(path, f"it is more than a language model: {parts}", where=parts)
    return config


def build(raw: Mapping[str, Any], path: str) -> Any:
    """The network on torch's meta device, set to call our attention.

    Buffers that a checkpoint holds become parameters, so that loading is as strict about them.

    Raises:
        UnsupportedArchitecture: Transformers cannot build it, or a part of it cannot be loaded by us.
    """
    config = config_of(raw, path)
    config._attn_implementation = config._experts_implementation = NAME
    _, name = class_of(raw)
    with transformers_at_work(path, "building the model"), torch.device("meta"):
        network_class = getattr(transformers, name)
        if not network_class._can_set_attn_implementation():
            raise refuse(
                path, f"{name} attends in a way of its own, not through Transformers' attention interface"
            )
        network = network_class(config).eval().requires_grad_(False)
    _check_layers(network, path)
    computed = {name for name, _ in network.named_non_persistent_buffers()}
    for name, buffer in list(network.named_buffers()):
        if name in computed:
            continue
        if not buffer.is_floating_point():
            raise refuse(path, f"{name} is a stored buffer of {buffer.dtype}")
        owner, leaf = _owner(network, name)
        del owner._buffers[leaf]
        owner.register_parameter(leaf, nn.Parameter(buffer, requires_grad=False))
    _keep_in_float32(network)
    return network


def compute_buffers(network: Any, path: str) -> None:
    """Buffers that follow from the configuration, in memory: by the same method as in `from_pretrained`.

    What it leaves uncomputed would be NaN, or the least whole number, and is refused. Parameters are still without
    memory, and thereby safe from being initialised.
    """
    buffers = dict(network.named_non_persistent_buffers())
    if sum(buffer.nbytes for buffer in buffers.values()) > _MOST_BUFFER_BYTES:
        raise refuse(path, f"its tables take more than {_MOST_BUFFER_BYTES} bytes")
    with torch.device("cpu"), transformers_at_work(path, "computing tables"):
        for name, buffer in buffers.items():
            owner, leaf = _owner(network, name)
            owner._buffers[leaf] = torch.full_like(buffer, _nothing(buffer), device="cpu")
        for module in network.modules():
            module._is_hf_initialized = False
        network.initialize_weights()
    left = [name for name, buffer in network.named_non_persistent_buffers() if _is_left(buffer)]
    if left:
        raise refuse(path, f"Transformers leaves {left[0]} uncomputed")


def owners_of_buffers(network: Any) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """(module, name in it, buffer) of every buffer."""
    for name, buffer in list(network.named_buffers()):
        yield (*_owner(network, name), buffer)


def stated(network: Any, key: str, path: str) -> int:
    """A positive whole number that Transformers' configuration has under this name, whatever config.json calls it."""
    facts = network.config
    value = getattr(facts, key, None)
    if not isinstance(value, int) or value < 1:
        raise refuse(path, f"a positive number is needed, and it is {value!r:.80}", where=key)
    return value


def rotary_kinds(network: Any) -> set[str]:
    """How rotary frequencies of the network's modules are made: "default", "yarn", …"""
    found: set[str] = set()
    for module in network.modules():
        kind = vars(module).get("rope_type", ())
        found.update(kind.values() if isinstance(kind, dict) else [kind] if isinstance(kind, str) else ())
    return found


def _check_layers(network: Any, path: str) -> None:
    """Refuse by name what a paged cache of keys and values cannot hold, or would hold wrongly.

    Whatever is not known by name here shows in the probe, or in the check of the logits.
    """
    facts = network.config
    kinds = getattr(facts, "layer_types", None) or ()
    if strange := sorted({str(kind) for kind in kinds} - _ATTENTION_KINDS):
        raise refuse(path, f"layers of kind {', '.join(strange)}", where="layer_types")
    # Frequencies that depend on the longest sequence of a step would depend on whatever else is running.
    if any("dynamic" in kind for kind in rotary_kinds(network)):
        raise refuse(
            path, "rotary frequencies that change with the length of a text", where="rope_type dynamic"
        )


def _keep_in_float32(network: Any) -> None:
    """Modules that Transformers keeps in float32 whatever the model's dtype (`_keep_in_fp32_modules_strict`)."""
    kept = network._keep_in_fp32_modules_strict
    for name, _ in network.named_parameters():
        if any(f".{part}." in f".{name}." for part in kept):
            owner, _ = _owner(network, name)
            vars(owner)["parameter_dtype"] = torch.float32  # what loading asks of a module (KeepsDtype)


def _owner(network: Any, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def _nothing(buffer: Tensor) -> float | int | bool:
    if buffer.is_floating_point():
        return float("nan")
    return False if buffer.dtype == torch.bool else torch.iinfo(buffer.dtype).min


def _is_left(buffer: Tensor) -> bool:
    if buffer.dtype == torch.bool:
        return not bool(buffer.any())
    nothing = buffer.isnan() if buffer.is_floating_point() else buffer == _nothing(buffer)
    return bool(nothing.any())

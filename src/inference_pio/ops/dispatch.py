"""Which implementation runs: chosen once per operation and kind of device, visible through `table()`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from inference_pio.errors import ConfigError, ResourceError
from inference_pio.ops import native, reference

Implementation = Literal["reference", "native"]
OPS = (
    "add_rms_norm",
    "gelu_tanh_and_mul",
    "paged_attention",
    "rms_norm",
    "rope_and_cache",
    "row_max",
    "silu_and_mul",
    "top_experts",
)
# Those whose module holds both implementations and asks `serves`.
OWN_OPS = (
    "absorbed_attention",
    "add_shared",
    "attention_mass",
    "causal_conv",
    "decay_and_rate",
    "gated_delta_rule",
    "gated_rms_norm",
    "sigmoid_gate",
    "small_linear",
    "sparse_attention",
    "store_latents",
    "take_columns",
    "top_sigmoid_experts",
    "turn_tails",
)
_FLOAT32_ALONE = {"absorbed_attention": "few tokens in ", "small_linear": ""}
SWITCH = "INFERENCE_PIO_OPS"
Group = Literal["attention", "gelu", "layernorm", "matmul", "mlp", "softmax"]
# What the standard's flags per operation switch: every operation belongs to one group.
GROUPS: Mapping[Group, tuple[str, ...]] = {
    "attention": (
        *("paged_attention", "rope_and_cache", "absorbed_attention", "store_latents", "turn_tails"),
        "attention_mass",
        *("causal_conv", "decay_and_rate", "gated_delta_rule"),
    ),
    "gelu": ("gelu_tanh_and_mul",),
    "layernorm": ("rms_norm", "add_rms_norm", "gated_rms_norm"),
    "matmul": ("quantized_linear", "small_linear", "take_columns"),
    "mlp": ("silu_and_mul", "sigmoid_gate", "add_shared", "experts"),
    "softmax": ("row_max", "top_experts", "top_sigmoid_experts"),
}
_GROUP_OF: Mapping[str, Group] = {name: group for group, names in GROUPS.items() for name in names}


@dataclass(frozen=True)
class OpChoice:
    """One line of `inference-pio doctor`: what runs for an operation on a kind of device, and why."""

    name: str
    device: str
    implementation: Implementation
    reason: str


_reference: dict[str, Callable[..., Any]] = {name: getattr(reference, name) for name in OPS}
_native: dict[str, Callable[..., Any]] = {name: getattr(native, name) for name in OPS}
_forced: Implementation | None = None
_left_out: frozenset[Group] = frozenset()


def pick(name: str, x: Tensor) -> Callable[..., Any]:
    """The function that serves `name` for tensors like x."""
    return _native[name] if serves(x, _GROUP_OF[name]) else _reference[name]


def serves(x: Tensor, group: Group) -> bool:
    """Whether tensors like x go through native kernels in the operations of a group."""
    return _cpu_is_native and x.is_cpu and x.dtype in native.DTYPES and group not in _left_out


def table() -> list[OpChoice]:
    """Every operation on every kind of device that this process can use."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [_choice(name, device) for device in devices for name in sorted(OPS + OWN_OPS)] + [
        _packed(device) for device in devices
    ]


@contextmanager
def use(implementation: Implementation) -> Iterator[None]:
    """Run everything inside with one implementation, in all threads: for comparisons and for finding faults.

    Raises ConfigError for another word, ResourceError for "native" where the kernels cannot run.
    """
    global _forced, _cpu_is_native
    before = _forced
    _forced = _checked(implementation)
    _cpu_is_native = _decide()
    try:
        yield
    finally:
        _forced = before
        _cpu_is_native = _decide()


def _checked(implementation: str) -> Implementation:
    if implementation == "reference":
        return "reference"
    if implementation != "native":
        raise ConfigError(
            f"operations run as 'reference' or 'native', not {implementation!r}: check {SWITCH}"
        )
    if native.MISSING is not None:
        raise ResourceError(f"native operations were asked for: {native.MISSING}")
    return "native"


@contextmanager
def leave_out(groups: Collection[Group]) -> Iterator[None]:
    """Run the operations of some groups in torch inside, in all threads."""
    global _left_out
    before = _left_out
    _left_out = before | frozenset(groups)
    try:
        yield
    finally:
        _left_out = before


def is_native(group: Group | None = None) -> bool:
    """Whether operations on CPU tensors run as native kernels: those of a group, or any."""
    return _cpu_is_native and group not in _left_out


def _decide() -> bool:
    return native.MISSING is None and _forced != "reference"


def _choice(name: str, device: str) -> OpChoice:
    if device != "cpu":
        return OpChoice(name, device, "reference", f"no native kernel for {device}")
    if _cpu_is_native:
        few = _FLOAT32_ALONE.get(name)
        dtypes = "float32 and bfloat16, other dtypes" if few is None else f"{few}float32, everything else"
        return OpChoice(name, device, "native", f"{native.ISA}; {dtypes} in torch")
    why = native.MISSING or "asked for"
    return OpChoice(name, device, "reference", why)


def _packed(device: str) -> OpChoice:
    """What multiplies weights that stay in blocks: there is no other implementation of it than the native one."""
    name = "quantized_linear"
    if device != "cpu":
        return OpChoice(name, device, "reference", f"weights become dense on {device}")
    if _cpu_is_native:
        return OpChoice(
            name, device, "native", f"{native.ISA}; weights stay in blocks, activations in 8 bits"
        )
    if native.MISSING is None:
        return OpChoice(name, device, "reference", "asked for; blocks are expanded at every product")
    lost = "quantised weights become dense, 2 to 8 times their memory, and read as slowly"
    return OpChoice(name, device, "reference", f"{native.MISSING}; until then {lost}")


if os.environ.get(SWITCH):
    _forced = _checked(os.environ[SWITCH])
_cpu_is_native = _decide()

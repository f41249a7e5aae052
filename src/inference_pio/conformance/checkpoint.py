"""C4: the plugin's parameters against names and shapes of checkpoints that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import torch

from inference_pio.conformance.case import HeaderFacts
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch
from inference_pio.loader.tensor_info import TensorInfo
from inference_pio.loader.weights import audit
from inference_pio.parallel import Shard


@dataclass(frozen=True)
class HeaderOnly:
    """Implements `CheckpointHeader` for a file that is not here."""

    path: Path
    format: Literal["safetensors", "gguf"]
    tensors: Mapping[str, TensorInfo]

    @classmethod
    def of(
        cls, name: str, form: Literal["safetensors", "gguf"], shapes: Mapping[str, tuple[int, ...]]
    ) -> HeaderOnly:
        infos = {
            tensor: TensorInfo(tensor, shape, "F32", 4 * prod(shape)) for tensor, shape in shapes.items()
        }
        return cls(Path(name), form, infos)


def check_real_headers(subject: Subject) -> None:
    """Each tensor of a real checkpoint is used once, each parameter filled once, shapes agree; nothing less passes."""
    for name, facts in subject.case.checkpoints.items():
        shapes = dict(facts.tensors())
        _audit(subject, name, facts, shapes)
        # From the middle: a GGUF file without its output head, which may come first, is one whose head is tied.
        matrices = [tensor for tensor, shape in shapes.items() if len(shape) == 2]
        victim = matrices[len(matrices) // 2]
        without = {tensor: shape for tensor, shape in shapes.items() if tensor != victim}
        grown = {**shapes, victim: (shapes[victim][0], shapes[victim][1] + 1)}
        for wrong, what in (
            (without, f"without {victim}"),
            (grown, f"with {victim} of another shape"),
            ({**shapes, "a.tensor.of.nobody": (4,)}, "with a tensor of nobody"),
        ):
            try:
                _audit(subject, name, facts, wrong)
            except CheckpointMismatch:
                continue
            raise AssertionError(f"{name} {what} passes the audit")


def _audit(subject: Subject, name: str, facts: HeaderFacts, shapes: Mapping[str, tuple[int, ...]]) -> None:
    plugin = subject.plugin()
    raw = {**facts.raw, "gguf.tensor_names": frozenset(shapes)} if facts.format == "gguf" else facts.raw
    config = plugin.read_config(raw, name)
    with torch.device("meta"):
        model = plugin.build_model(config, Shard())
    parameters = {
        parameter: tuple(value.shape) for parameter, value in model.named_parameters(remove_duplicate=False)
    }
    audit(parameters, HeaderOnly.of(name, facts.format, shapes), plugin.weight_map(config))

"""What a technique is, and what decides whether it is at work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from inference_pio.config import BaseModelConfig
from inference_pio.plugin.optimization import OptimizationInterface
from inference_pio.plugin.runtime import RuntimeOptions

Category = Literal["attention", "memory", "hardware"]
Status = Literal["active", "dormant", "not applicable"]
Kind = Literal["prefill", "decode", "long", "batch", "shared", "memory"]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Situation:
    """A model that is about to be planned: `model` is on torch's meta device and carries its `Serving`.

    dtype is that of activations; `packed` says whether weights stay in blocks; legal_ranks are the numbers of ranks
    that it can be divided over.
    """

    model: nn.Module
    config: BaseModelConfig
    options: RuntimeOptions
    device: torch.device
    dtype: torch.dtype
    packed: bool
    legal_ranks: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Standing:
    """Whether a technique is at work, and why, in words that follow a colon."""

    status: Status
    reason: str


def active(reason: str) -> Standing:
    return Standing("active", reason)


def dormant(reason: str) -> Standing:
    """It could act, and is switched off or has nothing to do."""
    return Standing("dormant", reason)


def not_applicable(reason: str) -> Standing:
    return Standing("not applicable", reason)


class Technique(OptimizationInterface):
    """One technique of the standard. Stateless: what it did to a model lies in the model.

    name       what reports, receipts, the matrix and the command line call it
    family     the standard's word for what it is one way of; plugins state facts of families
    exact      whether results stay the same up to rounding; what is not acts within the quality level only
    flags      fields of the configuration that must be on
    needs      techniques that must be at work too
    conflicts  techniques that cannot be at work too
    on, off    options under which it has something to do, and nothing, where being allowed is not enough
    both       options with and without it, where a comparison shows nothing under the usual ones
    shows_on   the kind of work on which it shows
    by_layer   it acts in each layer on its own: a receipt may have it leave some of them as they are
    needs_receipt  without a receipt it cannot act even where a caller asks for it
    on_request  it acts where a caller asks for it and nowhere else: receipts say nothing of it
    stage      "plan": applied to the model's shapes, before memory is planned; "weights": when they are loaded; "both"
    by_flag    its flags are its own: switching it off by name switches them off, and a model is built without it
    """

    name: ClassVar[str]
    title: ClassVar[str]
    family: ClassVar[str]
    category: ClassVar[Category]
    exact: ClassVar[bool]
    flags: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    conflicts: ClassVar[tuple[str, ...]] = ()
    on: ClassVar[Mapping[str, Any]] = _NOTHING
    off: ClassVar[Mapping[str, Any]] = _NOTHING
    both: ClassVar[Mapping[str, Any]] = _NOTHING
    shows_on: ClassVar[Kind]
    stage: ClassVar[Literal["plan", "weights", "both"]] = "plan"
    by_flag: ClassVar[bool] = False
    by_layer: ClassVar[bool] = False
    needs_receipt: ClassVar[bool] = False
    on_request: ClassVar[bool] = False

    @abstractmethod
    def standing(self, at: Situation) -> Standing:
        """Whether it is at work where it is allowed: its flags are on, and nobody has switched it off."""

    def asked_by(self, options: RuntimeOptions) -> str | None:  # noqa: ARG002
        """The option, with its value, by which a caller asks for it and takes what it costs; None: not asked."""
        return None

    def facts(self) -> dict[str, Any]:
        """What it is, as data: the beginning of each report."""
        return {
            "name": self.name,
            "title": self.title,
            "family": self.family,
            "category": self.category,
            "exact": self.exact,
        }

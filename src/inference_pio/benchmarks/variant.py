"""One model under chosen techniques, ready to follow given answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from torch import Tensor

from inference_pio.benchmarks.divergence import Probe
from inference_pio.errors import PluginError
from inference_pio.optimizations.quality import Grant
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.opened import OpenedModel, model_store, open_model

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Variant:
    """How a model is to run: approximate techniques by name with the layers that each leaves as they are, options of
    the engine, and fields of the configuration. Where `wanted`, a technique, is not at work so, nothing is to be run.
    """

    approximate: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: _NOTHING)
    options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    wanted: str = ""

    def grant(self, name: str) -> Grant:
        return Grant(name in self.approximate, "chosen", self.approximate.get(name, ()))


@dataclass(frozen=True)
class Followed:
    """Logits of each probe's answer, none where what was wanted is not at work; and which techniques were."""

    logits: list[Tensor]
    active: frozenset[str]
    reasons: Mapping[str, str]


def exactly() -> Variant:
    """Float32 weights, nothing approximate."""
    return Variant(options={"quality": "exact", "torch_dtype": "float32", "quantize": None})


def alone(name: str, exempt: Collection[int] = ()) -> Variant:
    """One approximate technique, under the options that give it something to do."""
    return Variant({name: tuple(exempt)}, TECHNIQUES[name].on, name)


def follow(model: str, variant: Variant, probes: Sequence[Probe], plugin: str | None = None) -> Followed:
    """Load the model so, let it follow the probes' answers, and close it.

    Raises:
        InferencePIOError: it cannot be run so.
    """
    engine = {name: value for name, value in variant.options.items() if name in RuntimeOptions.names()}
    longest = max(len(probe.prompt) + len(probe.answer) for probe in probes)
    sizes = {"max_model_len": longest, "max_num_seqs": len(probes), "speculation": 0, "mtp": False}
    options = {"quality": "fast", "skip_tokenizer_init": True, **sizes, **engine}
    opened = open_model(model, RuntimeOptions(**options), None, model_store(None))
    runtime = LocalRuntime(opened, grants=variant.grant)
    made = default_registry().create(
        default_registry().choose(opened.raw, str(opened.source.path), plugin).name, runtime=runtime
    )
    try:
        config = made.config_class(
            model_path=str(opened.source.path),
            model_name=opened.source.name,
            torch_dtype="auto",
            device="auto",
        )
        for entry in fields(config):
            if entry.name in variant.options and entry.name not in engine:
                setattr(config, entry.name, variant.options[entry.name])
        if not made.initialize(config=config, **options):
            raise made.last_error or PluginError(f"{model} could not be initialised")
        stands = {one.technique.name: one for one in runtime.techniques}
        active = frozenset(name for name, one in stands.items() if one.active)
        logits = []
        if not variant.wanted or variant.wanted in active:
            made.load_model()
            logits = runtime.follow([probe.prompt for probe in probes], [probe.answer for probe in probes])
        return Followed(logits, active, {name: one.standing.reason for name, one in stands.items()})
    finally:
        made.cleanup()


def open_for_tokens(model: str) -> OpenedModel:
    """The model's files, for its tokenizer and identity; the caller closes the checkpoint."""
    return open_model(model, RuntimeOptions(), None, model_store(None))

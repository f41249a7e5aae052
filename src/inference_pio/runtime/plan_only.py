"""The memory plan of a model that nobody means to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from inference_pio import ops
from inference_pio.optimizations.quality import Grants, no_receipt
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.quantization import Quantization
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.opened import DescribedModel, OpenedModel, describe_model, model_store, open_model
from inference_pio.runtime.planning import plan_within
from inference_pio.runtime.prepared import Prepared, prepare_model
from inference_pio.runtime.receipts import receipt_grants
from inference_pio.runtime.settle import flags_of, settle
from inference_pio.security import ResourceLimits

_SMALLER = ("int8", "int4")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Planned:
    """prepared  of the model as it was asked for
    smaller   where that does not fit: the first `quantize` that does, and its plan; the smallest, with experts on the
              disk where that helps, if none does otherwise
    note      what to tell of a result of `inference-pio tune`; empty where there is nothing to tell
    fitting   what was done to make it fit, with the option for that
    """

    prepared: Prepared
    smaller: tuple[str, Prepared] | None
    note: str = ""
    fitting: str = ""

    @property
    def described(self) -> bool:
        """Whether only the model's configuration is here."""
        return isinstance(self.prepared.opened, DescribedModel)


def plan_only(
    model: str,
    dtype: str,
    device: str,
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
    plugin_name: str | None = None,
    *,
    config: Mapping[str, Any] = _NOTHING,
    named: Mapping[str, Any] | None = None,
    profile: str | None = None,
) -> Planned:
    """What `LLM` would do, up to the plan; unlike there a plan that does not fit is no error. The files are closed.

    Nothing is downloaded where the configuration is known.

    Args:
        plugin_name: as in `LLM`: None lets the architecture choose.
        config: further fields of the model's configuration.
        named: of `options` those that a caller named: for the others a result of `inference-pio tune` is used, as
            `profile` says. None: no such result is looked for.
    """
    store = model_store(limits)
    opened = describe_model(model, store) or open_model(model, options, progress, store)
    fields = {**flags_of(vars(options)), **config, "device": device, "torch_dtype": dtype}
    note = ""
    try:
        path, registry = str(opened.source.path), default_registry()
        plugin = registry.create(registry.choose(opened.raw, path, plugin_name).name)
        if named is not None and isinstance(opened, OpenedModel):
            settled = settle(opened, store, named, fields, profile=profile, tuned=True, limits=limits)
            options, note = RuntimeOptions(**settled.options), settled.note
        if options.fit:
            fitted = plan_within(plugin, _config(plugin, opened, fields), options, limits, progress, opened)
            return Planned(fitted.prepared, None, note, fitted.in_words())
        prepared = _prepare(plugin, opened, fields, options, limits, progress)
        return Planned(prepared, _smaller(prepared, fields, limits), note)
    finally:
        if isinstance(opened, OpenedModel):
            opened.checkpoint.close()


def _prepare(
    plugin: ModelPlugin,
    opened: OpenedModel | DescribedModel,
    fields: Mapping[str, Any],
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
) -> Prepared:
    config = _config(plugin, opened, fields)
    grants: Grants = no_receipt
    if isinstance(opened, OpenedModel):
        grants = receipt_grants(model_store(limits), opened.checkpoint, config, options)
    return prepare_model(plugin, config, options, limits, progress, opened, grants)


def _config(plugin: ModelPlugin, opened: OpenedModel | DescribedModel, fields: Mapping[str, Any]) -> Any:
    return plugin.config_class(model_path=str(opened.source.path), model_name=opened.source.name, **fields)


def _smaller(
    prepared: Prepared, fields: Mapping[str, Any], limits: ResourceLimits | None
) -> tuple[str, Prepared] | None:
    """The same in fewer bits, where that could help."""
    options = prepared.options
    in_memory = prepared.plan.fits and not prepared.plan.paged
    if in_memory or prepared.device.type != "cpu" or options.quantize or prepared.packing.kinds:
        return None
    found: list[tuple[str, Prepared]] = []
    for asked in _SMALLER:
        if ops.can_pack(Quantization.parse(asked).kind):
            again = replace(options, quantize=asked)
            found.append((asked, _prepare(prepared.plugin, prepared.opened, fields, again, limits, None)))
    fitting = [each for each in found if each[1].plan.fits]
    whole = [each for each in fitting if not (each[1].plan.mapped or each[1].plan.paged)]
    return next(iter([*whole, *reversed(fitting), *reversed(found)]), None)

"""The memory plan of a model that nobody means to load."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inference_pio import ops
from inference_pio.optimizations.quality import Grants, no_receipt
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.quantization import Quantization
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.opened import DescribedModel, OpenedModel, describe_model, model_store, open_model
from inference_pio.runtime.prepared import Prepared, prepare_model
from inference_pio.runtime.receipts import receipt_grants
from inference_pio.security import ResourceLimits

_SMALLER = ("int8", "int4")


@dataclass(frozen=True)
class Planned:
    """prepared  of the model as it was asked for
    smaller   where that does not fit: the first `quantize` that does, and its plan; the smallest, with experts on the
              disk where that helps, if none does otherwise
    """

    prepared: Prepared
    smaller: tuple[str, Prepared] | None

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
) -> Planned:
    """What `LLM` would do, up to the plan; unlike there a plan that does not fit is no error. The files are closed.

    Nothing is downloaded where the configuration is known. `plugin_name` is as in `LLM`: None
    lets the architecture choose.
    """
    store = model_store(limits)
    opened = describe_model(model, store) or open_model(model, options, progress, store)
    try:
        path, registry = str(opened.source.path), default_registry()
        plugin = registry.create(registry.choose(opened.raw, path, plugin_name).name)
        prepared = _prepare(plugin, opened, dtype, device, options, limits, progress)
        return Planned(prepared, _smaller(prepared, dtype, limits))
    finally:
        if isinstance(opened, OpenedModel):
            opened.checkpoint.close()


def _prepare(
    plugin: ModelPlugin,
    opened: OpenedModel | DescribedModel,
    dtype: str,
    device: str,
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
) -> Prepared:
    config = plugin.config_class(
        model_path=str(opened.source.path), model_name=opened.source.name, device=device, torch_dtype=dtype
    )
    grants: Grants = no_receipt
    if isinstance(opened, OpenedModel):
        grants = receipt_grants(model_store(limits), opened.checkpoint, config, options)
    return prepare_model(plugin, config, options, limits, progress, opened, grants)


def _smaller(prepared: Prepared, dtype: str, limits: ResourceLimits | None) -> tuple[str, Prepared] | None:
    """The same in fewer bits, where that could help."""
    options = prepared.options
    if prepared.plan.fits or prepared.device.type != "cpu" or options.quantize or prepared.packing.kinds:
        return None
    found: list[tuple[str, Prepared]] = []
    for asked in _SMALLER:
        if ops.can_pack(Quantization.parse(asked).kind):
            again, device = replace(options, quantize=asked), str(prepared.device)
            found.append(
                (asked, _prepare(prepared.plugin, prepared.opened, dtype, device, again, limits, None))
            )
    fitting = [each for each in found if each[1].plan.fits]
    in_memory = [each for each in fitting if not each[1].plan.mapped]
    return next(iter([*in_memory, *reversed(fitting), *reversed(found)]), None)

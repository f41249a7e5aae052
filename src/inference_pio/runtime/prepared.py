"""A model that is found, understood and planned, but not loaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference_pio import ops
from inference_pio.cache.specs import PagedKV, PagedLatent
from inference_pio.errors import ModelNotFound, ResourceError, UnsupportedArchitecture, UsageError
from inference_pio.layers import Linear
from inference_pio.layers.protocol import KeepsDtype, NeedsScratch
from inference_pio.loader.checkpoint import CheckpointHeader
from inference_pio.loader.described import described_by
from inference_pio.loader.packing import NOTHING_PACKED, Packing, plan_packing
from inference_pio.loader.raw_config import raw_preprocessor_config
from inference_pio.loader.readings import plan_readings
from inference_pio.loader.stack_file import stack_key
from inference_pio.loader.weight_plan import WeightPlan
from inference_pio.loader.weights import audit
from inference_pio.metrics.memory import available_bytes
from inference_pio.optimizations.choice import Chosen, apply_all, check_names, choose, without_disabled
from inference_pio.optimizations.technique import Situation
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.drafting import DraftingModel
from inference_pio.plugin.facts import WeightMap
from inference_pio.plugin.media import MediaProcessor
from inference_pio.plugin.quantization import Quantization
from inference_pio.plugin.registry import claims_checkpoint
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.plugin.serving import Serving, give_serving, serving_of
from inference_pio.runtime.devices import resolve_device, resolve_dtype, resolve_kv_dtype
from inference_pio.runtime.drafting import with_drafting
from inference_pio.runtime.opened import DescribedModel, OpenedModel
from inference_pio.runtime.plan import Budget, MemoryPlan, plan_memory
from inference_pio.security import ResourceLimits


@dataclass(frozen=True)
class Prepared:
    """`model` is on torch's meta device: shapes without memory.

    file_bytes    of the checkpoint's tensors, as they are stored
    packed_bytes  of the weights that stay in blocks; part of `plan.weights` or, where they are mapped, `plan.mapped`
    images        how the model wants its images; None where it does not see
    mapped        bytes of each parameter that lies in the file of stacks, in its order
    stack_key     what that file depends on; empty where there is none
    techniques    how each of the standard's stands; those of the stage "plan" are applied to `model`
    """

    plugin: ModelPlugin
    config: Any
    options: RuntimeOptions
    progress: Progress | None
    opened: OpenedModel | DescribedModel
    file_bytes: int
    model: nn.Module
    weight_map: WeightMap
    packing: Packing
    packed_bytes: int
    device: torch.device
    dtype: torch.dtype
    techniques: tuple[Chosen, ...]
    plan: MemoryPlan
    images: MediaProcessor | None
    mapped: list[int]
    stack_key: str

    @property
    def serving(self) -> Serving:
        """What the model asks of the engine."""
        return serving_of(self.model)

    @property
    def kv_dtype(self) -> torch.dtype:
        """That of most layers' caches; of activations where none keeps tokens."""
        kept = Counter(
            spec.dtype for spec in self.serving.cache_specs if isinstance(spec, (PagedKV, PagedLatent))
        )
        return kept.most_common(1)[0][0] if kept else self.dtype

    @property
    def predicts(self) -> bool:
        """Whether a layer of the model's own drafts."""
        return isinstance(self.model, DraftingModel) and self.model.can_draft

    @property
    def files(self) -> OpenedModel:
        """The open files.

        Raises:
            ModelNotFound: there are none: only the model's configuration is here.
        """
        if isinstance(self.opened, DescribedModel):
            raise ModelNotFound(f"{self.opened.source.name} cannot be loaded: only its configuration is here")
        return self.opened


def prepare_model(
    plugin: ModelPlugin,
    config: Any,
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
    opened: OpenedModel | DescribedModel,
) -> Prepared:
    """Read the configuration, hold names and shapes against the model both ways, plan the memory."""
    path = str(opened.source.path)
    if not plugin.manifest.fallback and not claims_checkpoint(plugin.manifest, opened.raw):
        raise UnsupportedArchitecture(path, f"not a checkpoint that plugin {plugin.manifest.name!r} runs")
    device = resolve_device(config.device)
    stated = with_drafting(plugin, plugin.read_config(opened.raw, path), options, opened.header)
    stated = stated.with_options_of(config)
    stated.model_name = stated.model_name or opened.source.name
    check_names(options)
    stated = without_disabled(stated, options)
    with torch.device("meta"):
        model = plugin.build_model(stated, Shard())
    weight_map = plugin.weight_map(stated)
    header, weights = _weights(model, opened, weight_map)
    packing = _packing(model, header, weights, config, options, device)
    exact = options.quality == "exact" and config.torch_dtype == "auto"
    dtype = torch.float32 if packing.kinds or exact else resolve_dtype(config.torch_dtype, device)
    kv_dtype = resolve_kv_dtype(options.kv_cache_dtype, dtype, device, packed=bool(packing.kinds))
    sizes = {"block_size": options.block_size, "attention_budget": options.attention_budget}
    serving = give_serving(model, Serving(plugin.cache_specs(stated, kv_dtype, Shard()), **sizes))
    at = Situation(model, stated, options, device, dtype, packed=bool(packing.kinds))
    techniques = choose(at, plugin.techniques(stated))
    apply_all(techniques, model, stated, "plan")
    stacked = [packing.nbytes(weights.targets[name]) for name in packing.stacked(weights)]
    images = media_processor(plugin, stated, opened.source.path)
    planned = partial(
        plan_memory,
        stated,
        serving,
        options,
        _budget(device, limits),
        _weight_bytes(model, header, weights, packing, device, dtype),
        itemsize=dtype.itemsize,
        reuse=plugin.prefix_policy(stated).reuse,
        images=images,
        scratch=partial(scratch_of, model, dtype.itemsize),
    )
    plan = planned(mapped_bytes=sum(stacked) if options.experts == "disk" else 0)
    if options.experts == "auto" and stacked and not plan.fits:
        plan = planned(mapped_bytes=sum(stacked))
    return Prepared(
        plugin,
        stated,
        options,
        progress,
        opened,
        sum(info.nbytes for info in header.tensors.values()),
        model,
        weight_map,
        packing,
        sum(packing.nbytes(weights.targets[name]) for name in packing.kinds),
        device,
        dtype,
        techniques,
        plan,
        images,
        stacked if plan.mapped else [],
        stack_key(weights, packing.kinds, opened.source.path) if plan.mapped else "",
    )


def media_processor(plugin: ModelPlugin, stated: Any, path: Path) -> MediaProcessor | None:
    """How the model wants its images, by its configuration and by what lies beside it; None where it does not see."""
    preprocessor, file = raw_preprocessor_config(path)
    return plugin.media_processor(stated, preprocessor, str(file))


def _weights(
    model: nn.Module, opened: OpenedModel | DescribedModel, weight_map: WeightMap
) -> tuple[CheckpointHeader, WeightPlan]:
    """Names and shapes of the checkpoint, held against the model; where none are known, the model's own."""
    shapes = {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    if opened.header is not None:
        return opened.header, audit(shapes, opened.header, weight_map)
    assert isinstance(opened, DescribedModel)
    return described_by(shapes, weight_map, opened.source.path, opened.stored)


def _packing(
    model: nn.Module,
    header: CheckpointHeader,
    weights: WeightPlan,
    config: Any,
    options: RuntimeOptions,
    device: torch.device,
) -> Packing:
    """With `torch_dtype` "auto" weights stay in the file's blocks; a dtype that is named, or quality "exact", asks for
    dense ones."""
    quantization = Quantization.parse(options.quantize) if options.quantize else None
    if quantization is not None and (device.type != "cpu" or not ops.can_pack(quantization.kind)):
        raise ResourceError(
            f"quantize {options.quantize} needs the native kernels, on the CPU: see inference-pio doctor"
        )
    dense = config.torch_dtype != "auto" or options.quality == "exact"
    if device.type != "cpu" or (quantization is None and dense):
        return NOTHING_PACKED
    packing = plan_packing(model, header, weights, quantization)
    if quantization is not None and not packing.kinds:
        raise UsageError(f"quantize {options.quantize}: no weight of this model can be held in blocks")
    return packing


def _weight_bytes(
    model: nn.Module,
    header: CheckpointHeader,
    weights: WeightPlan,
    packing: Packing,
    device: torch.device,
    dtype: torch.dtype,
) -> int:
    """All parameters as they will lie in memory, and what loading holds beside them for a moment: the largest tensor,
    where weights are packed one more.
    """
    total = 0
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in packing.kinds:
            total += packing.nbytes(weights.targets[name])
        elif name not in weights.tied:
            owner = model.get_submodule(name.rpartition(".")[0])
            kept = owner.parameter_dtype if isinstance(owner, KeepsDtype) else dtype
            total += parameter.numel() * kept.itemsize
    if device.type == "cpu" and dtype == torch.bfloat16:
        # A tied head is packed for the matrix product while the embedding keeps its rows.
        tied = {name.rpartition(".")[0] for name in weights.tied}
        total += sum(
            module.in_features * module.out_features * dtype.itemsize
            for name, module in model.named_modules()
            if name in tied and isinstance(module, Linear)
        )
    if packing.kinds:
        # What is read at once: a tensor, or a few matrices of a stack.
        return total + 2 * max(reading.nbytes for reading in plan_readings(weights, header.tensors))
    largest = max((info.num_elements for info in header.tensors.values()), default=0)
    return total + largest * dtype.itemsize


def scratch_of(model: nn.Module, itemsize: int, tokens: int, sequences: int, context: int) -> int:
    """The most that one module needs; they run one after the other."""
    return max(
        (
            module.scratch_bytes(tokens, sequences, context, itemsize)
            for module in model.modules()
            if isinstance(module, NeedsScratch)
        ),
        default=0,
    )


def _budget(device: torch.device, limits: ResourceLimits | None) -> Budget:
    """What may be used: the memory that is free, or the limit if that is less."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Budget(free, f"free on {device}")
    free = available_bytes()
    if limits is not None and limits.memory_gb * 1e9 < free:
        return Budget(int(limits.memory_gb * 1e9), "memory_gb")
    return Budget(free, "free memory")

"""A model that is found, understood and planned, but not loaded."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference_pio import ops
from inference_pio.cache.specs import CacheSpec, PagedKV, PagedLatent
from inference_pio.errors import ModelNotFound, ResourceError, UnsupportedArchitecture, UsageError
from inference_pio.layers.protocol import NeedsScratch
from inference_pio.loader.checkpoint import CheckpointHeader
from inference_pio.loader.described import described_by
from inference_pio.loader.packing import NOTHING_PACKED, Packing, plan_packing
from inference_pio.loader.page_file import PageFile, page_key
from inference_pio.loader.page_plan import PagePlan
from inference_pio.loader.raw_config import raw_preprocessor_config
from inference_pio.loader.stack_file import stack_key
from inference_pio.loader.store import ModelStore, can_keep
from inference_pio.loader.weight_plan import WeightPlan
from inference_pio.loader.weights import audit
from inference_pio.metrics.gpu_memory import GPU_CONTEXT_BYTES
from inference_pio.metrics.memory import available_bytes
from inference_pio.optimizations.choice import Chosen, apply_all, check_names, choose, without_disabled
from inference_pio.optimizations.quality import Grants, no_receipt
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
from inference_pio.runtime.opened import DescribedModel, OpenedModel, model_store
from inference_pio.runtime.paging import PagingRequest, WeightSizes, layers_of, place_weights
from inference_pio.runtime.plan import Budget, MemoryPlan, most_logit_rows, plan_memory
from inference_pio.runtime.ranks import divided
from inference_pio.runtime.weight_bytes import loading_bytes, read_ahead, weight_bytes
from inference_pio.security import ResourceLimits
from inference_pio.security.held import limits_here


@dataclass(frozen=True)
class Prepared:
    """`model` is on torch's meta device: shapes without memory.

    file_bytes    of the checkpoint's tensors, as they are stored
    packed_bytes  of the weights that stay in blocks; part of `plan.weights`, `plan.mapped` or `plan.paged`
    images        how the model wants its images; None where it does not see
    mapped        bytes of each parameter that lies in the file of stacks, in its order
    stack_key     what that file depends on; empty where there is none
    pages         which layers are read from the disk when they are used; None where none is
    page_key      what their file depends on
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
    pages: PagePlan | None
    page_key: str

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
    def ahead(self) -> int:
        """Tensors that are read ahead while weights are loaded."""
        return read_ahead(self.config, self.packing)

    def page_file(self, store: ModelStore) -> AbstractContextManager[PageFile | None]:
        """Where layers lie that the plan has on the disk; nothing where all are in memory."""
        if self.pages is None:
            return nullcontext()
        path, name = self.opened.source.path, self.config.model_name
        return PageFile(
            store.pages_of(path),
            self.page_key,
            self.pages,
            lambda needed: store.require_room(f"the file of {name}'s layers", needed),
        )

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
    grants: Grants = no_receipt,
) -> Prepared:
    """Read the configuration, hold names and shapes against the model both ways, plan the memory."""
    stated, device = _configuration(plugin, config, options, opened), resolve_device(config.device)
    with torch.device("meta"):
        model = plugin.build_model(stated, Shard())
    weight_map = plugin.weight_map(stated)
    header, weights = _weights(model, opened, weight_map)
    asked = Quantization.parse(options.quantize) if options.quantize else None
    packed = partial(_packing, model, header, weights, config, options, device)
    packing = packed(asked)
    dtype, kv_dtype = _dtypes(config, options, device, packed=bool(packing.kinds))
    give_serving(model, _serving(plugin.cache_specs(stated, kv_dtype, Shard()), options))
    legal = plugin.shard_plan(stated).legal_sizes
    at = Situation(model, stated, options, device, dtype, packed=bool(packing.kinds), legal_ranks=legal)
    techniques = choose(at, plugin.techniques(stated), grants)
    apply_all(techniques, model, stated, "plan")
    if serving_of(model).quantization != asked:
        packing = packed(serving_of(model).quantization)
    sizes = _weight_sizes(at, header, weights, packing, model_store(limits), opened.source.path)
    blocks = {name: packing.nbytes(weights.targets[name]) for name in packing.kinds}
    images = media_processor(plugin, stated, opened.source.path)
    at = replace(at, model=divided(at, plugin, kv_dtype, techniques))
    plan, pages = _plan(at, plugin, _budget(device, limits), sizes, images)
    return Prepared(
        plugin,
        stated,
        options,
        progress,
        opened,
        sum(info.nbytes for info in header.tensors.values()),
        at.model,
        weight_map,
        packing,
        sum(blocks.values()),
        device,
        dtype,
        techniques,
        plan,
        images,
        list(sizes.experts) if plan.mapped else [],
        stack_key(weights, packing.kinds, opened.source.path) if plan.mapped else "",
        pages,
        page_key(pages, weights, packing, dtype, opened.source.path) if pages else "",
    )


def _configuration(
    plugin: ModelPlugin, config: Any, options: RuntimeOptions, opened: OpenedModel | DescribedModel
) -> Any:
    """The checkpoint's, with the options of `config`."""
    path = str(opened.source.path)
    if not plugin.manifest.fallback and not claims_checkpoint(plugin.manifest, opened.raw):
        raise UnsupportedArchitecture(path, f"not a checkpoint that plugin {plugin.manifest.name!r} runs")
    stated = with_drafting(plugin, plugin.read_config(opened.raw, path), options, opened.header)
    stated = stated.with_options_of(config)
    stated.model_name = stated.model_name or opened.source.name
    check_names(options)
    return without_disabled(stated, options)


def _dtypes(
    config: Any, options: RuntimeOptions, device: torch.device, *, packed: bool
) -> tuple[torch.dtype, torch.dtype]:
    """Of activations and dense weights, and of keys and values."""
    exact = options.quality == "exact" and config.torch_dtype == "auto"
    dtype = torch.float32 if packed or exact else resolve_dtype(config.torch_dtype, device)
    return dtype, resolve_kv_dtype(options.kv_cache_dtype, dtype, device, packed=packed)


def _weight_sizes(
    at: Situation,
    header: CheckpointHeader,
    weights: WeightPlan,
    packing: Packing,
    store: ModelStore,
    source: Path,
) -> WeightSizes:
    """Before the model is divided over ranks."""
    request = PagingRequest.of(at)
    resident = weight_bytes(at.model, weights, packing, at.device, at.dtype)
    experts = request.experts != "memory" and packing.stacked(weights)
    kept = store.stacks_of(source) if experts else store.pages_of(source)
    if (request.explicit or request.auto or experts) and not can_keep(kept, resident):
        request = request.without_disk()
    return WeightSizes(
        request,
        resident,
        loading_bytes(header, weights, packing, at.dtype, read_ahead(at.config, packing)),
        tuple(packing.nbytes(weights.targets[name]) for name in packing.stacked(weights)),
        layers_of(request, at.model, weights, packing, at.dtype),
    )


def _serving(specs: tuple[CacheSpec, ...], options: RuntimeOptions) -> Serving:
    """What the model asks of the engine before any technique has written to it."""
    return Serving(
        specs,
        block_size=options.block_size,
        attention_budget=options.attention_budget,
        asked_ranks=options.tensor_parallel_size,
        asked_vocabulary=options.keep_vocabulary or 0,
        asked_quantization=Quantization.parse(options.quantize) if options.quantize else None,
        most_logit_rows=most_logit_rows(options),
    )


def _plan(
    at: Situation, plugin: ModelPlugin, budget: Budget, sizes: WeightSizes, images: MediaProcessor | None
) -> tuple[MemoryPlan, PagePlan | None]:
    """The memory plan, and which layers are on the disk by it."""
    serving = serving_of(at.model)
    planned = partial(
        plan_memory,
        at.config,
        serving,
        at.options,
        budget,
        itemsize=at.dtype.itemsize,
        reuse=plugin.prefix_policy(at.config).reuse,
        images=images,
        scratch=partial(scratch_of, at.model, at.dtype.itemsize),
    )
    plan, pages = place_weights(at.config.model_name, sizes, planned)
    serving.disk_bytes = plan.mapped + plan.paged
    return plan, pages


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
    quantization: Quantization | None,
) -> Packing:
    """With `torch_dtype` "auto" weights stay in the file's blocks; a dtype that is named, or quality "exact", asks for
    dense ones."""
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
    limits = limits or limits_here()
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if limits is not None and limits.gpu_memory_gb * 1e9 - GPU_CONTEXT_BYTES < free:
            return Budget(max(0, int(limits.gpu_memory_gb * 1e9) - GPU_CONTEXT_BYTES), "gpu_memory_gb")
        return Budget(free, f"free on {device}")
    free = available_bytes()
    if limits is not None and limits.memory_gb * 1e9 < free:
        return Budget(round(limits.memory_gb * 1e9), "memory_gb")
    return Budget(free, "free memory")

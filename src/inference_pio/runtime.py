"""`LocalRuntime`: loader, text and engine put together for one plugin, in this process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import nn

from inference_pio.devices import resolve_device, resolve_dtype
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.engine.loop import EngineLoop
from inference_pio.errors import PluginError, UsageError
from inference_pio.loader.store import ModelStore
from inference_pio.loader.weights import audit, load_weights
from inference_pio.metrics.memory import available_bytes, peak_process_bytes, process_bytes
from inference_pio.opened import OpenedModel, open_model
from inference_pio.outputs import RequestOutput, StreamChunk
from inference_pio.parallel import Shard
from inference_pio.plan import Budget, MemoryPlan, plan_memory
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import check_claim
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.requests import Answers, run_all
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import ResourceLimits
from inference_pio.security.report import threads_for
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.tokenizer import Tokenizer
from inference_pio.tokenizers_of import load_tokenizer

"""Inference-PIO: an engine for open language models.

    from inference_pio import LLM, SamplingParams
    from inference_pio import initialize_plugin, manage_resources

Names are imported on first use: importing the package imports neither torch nor a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig, DynamicConfigManager
    from inference_pio.conformance.standard import StandardModelTest
    from inference_pio.errors import InferencePIOError
    from inference_pio.llm import LLM
    from inference_pio.metrics import PerformanceMetrics
    from inference_pio.outputs import (
        ChatChunk,
        CompletionOutput,
        Logprob,
        RequestOutput,
        StreamChunk,
        ToolCall,
    )
    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.plugin.interface import ModelPluginInterface, TextModelPluginInterface
    from inference_pio.plugin.lifecycle import initialize_plugin, manage_resources
    from inference_pio.plugin.manifest import Manifest
    from inference_pio.plugin.optimization import OptimizationInterface
    from inference_pio.plugin.registry import create_plugin
    from inference_pio.plugin.templates import default_config_manager
    from inference_pio.runtime.probe import hardware_specs
    from inference_pio.sampling_params import SamplingParams
    from inference_pio.security import ResourceLimits, SecurityLevel

__version__ = "0.1.0"

_MODULES = {
    "BaseModelConfig": "config",
    "ChatChunk": "outputs",
    "CompletionOutput": "outputs",
    "DynamicConfigManager": "config",
    "InferencePIOError": "errors",
    "LLM": "llm",
    "Logprob": "outputs",
    "Manifest": "plugin.manifest",
    "ModelPlugin": "plugin.base",
    "ModelPluginInterface": "plugin.interface",
    "OptimizationInterface": "plugin.optimization",
    "PerformanceMetrics": "metrics",
    "RequestOutput": "outputs",
    "ResourceLimits": "security",
    "SamplingParams": "sampling_params",
    "SecurityLevel": "security",
    "StandardModelTest": "conformance.standard",
    "StreamChunk": "outputs",
    "TextModelPluginInterface": "plugin.interface",
    "ToolCall": "outputs",
    "create_plugin": "plugin.registry",
    "default_config_manager": "plugin.templates",
    "hardware_specs": "runtime.probe",
    "initialize_plugin": "plugin.lifecycle",
    "manage_resources": "plugin.lifecycle",
}

__all__ = [
    "LLM",
    "BaseModelConfig",
    "ChatChunk",
    "CompletionOutput",
    "DynamicConfigManager",
    "InferencePIOError",
    "Logprob",
    "Manifest",
    "ModelPlugin",
    "ModelPluginInterface",
    "OptimizationInterface",
    "PerformanceMetrics",
    "RequestOutput",
    "ResourceLimits",
    "SamplingParams",
    "SecurityLevel",
    "StandardModelTest",
    "StreamChunk",
    "TextModelPluginInterface",
    "ToolCall",
    "create_plugin",
    "default_config_manager",
    "hardware_specs",
    "initialize_plugin",
    "manage_resources",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

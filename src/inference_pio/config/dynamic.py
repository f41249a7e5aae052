"""The standard's choice of a configuration by hardware."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from inference_pio.config.base import BaseModelConfig

LOW_MEMORY_GB = 8
HIGH_MEMORY_GB = 24


class DynamicConfigManager:
    """Templates by model type; thresholds on GPU memory as the standard states them."""

    def __init__(self) -> None:
        self.config_templates: dict[str, type[BaseModelConfig]] = {}
        self.optimization_profiles: dict[str, Mapping[str, Any]] = {}

    def register_config_template(self, model_type: str, config_class: type[BaseModelConfig]) -> None:
        """Register a configuration class for a model type."""
        self.config_templates[model_type] = config_class

    def register_optimization_profile(self, name: str, changes: Mapping[str, Any]) -> None:
        """Register named field values that `get_optimal_config(…, profile=name)` lays over the template."""
        self.optimization_profiles[name] = dict(changes)

    def get_optimal_config(
        self, model_type: str, hardware_specs: Mapping[str, Any], profile: str | None = None
    ) -> BaseModelConfig:
        """The template's configuration adjusted to `hardware_specs["gpu_memory_gb"]` (0 where there is no GPU).

        Raises:
            ValueError: no template, or no profile, of that name.
        """
        config: BaseModelConfig = self._lookup("config template", self.config_templates, model_type)()
        gpu_memory_gb = hardware_specs.get("gpu_memory_gb", 0)
        if gpu_memory_gb < LOW_MEMORY_GB:
            config.torch_dtype = "float16"
            config.gradient_checkpointing = True
            config.use_kv_cache_compression = True
        elif gpu_memory_gb >= HIGH_MEMORY_GB:
            config.torch_dtype = "bfloat16"
            config.gradient_checkpointing = False
            config.use_flash_attention_2 = True
        if profile is not None:
            for field, value in self._lookup("profile", self.optimization_profiles, profile).items():
                if not hasattr(config, field):
                    raise ValueError(
                        f"profile {profile!r} sets {field!r}, which {type(config).__name__} does not have"
                    )
                setattr(config, field, value)
        return config

    @staticmethod
    def _lookup(what: str, table: Mapping[str, Any], name: str) -> Any:
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"No {what} found for model type: {name}{hint}")
        return table[name]

"""The standard's choice of a configuration by hardware."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from inference_pio.config.base import BaseModelConfig
from inference_pio.config.profiles import PROFILES, Profile, find_profile

LOW_MEMORY_GB = 8
HIGH_MEMORY_GB = 24

Template = type[BaseModelConfig] | Callable[[], type[BaseModelConfig]]


class DynamicConfigManager:
    """Templates by model type; thresholds on GPU memory as the standard states them; profiles laid over both.

    `plugin.templates.default_config_manager` is one with the templates of all plugins.
    """

    def __init__(self) -> None:
        self.config_templates: dict[str, Template] = {}
        self.optimization_profiles: dict[str, Profile] = dict(PROFILES)

    def register_config_template(self, model_type: str, config_class: Template) -> None:
        """Register a configuration class for a model type, or what finds it when it is wanted."""
        self.config_templates[model_type] = config_class

    def register_optimization_profile(
        self, name: str, changes: Mapping[str, Any], engine_options: Mapping[str, Any] | None = None
    ) -> None:
        """Register a profile.

        Args:
            changes: field values that `get_optimal_config(…, profile=name)` lays over the template.
            engine_options: values of `RuntimeOptions`, which `get_engine_options(name)` gives.
        """
        self.optimization_profiles[name] = Profile(
            name, config=dict(changes), engine=dict(engine_options or {})
        )

    def get_engine_options(self, profile: str) -> dict[str, Any]:
        """What a profile asks of the engine: keywords of `LLM` and `initialize`.

        Raises:
            UsageError: no profile of that name.
        """
        return dict(find_profile(profile, self.optimization_profiles).engine)

    def get_optimal_config(
        self, model_type: str, hardware_specs: Mapping[str, Any], profile: str | None = None
    ) -> BaseModelConfig:
        """The template's configuration adjusted to `hardware_specs["gpu_memory_gb"]` (0 where there is no GPU).

        Raises:
            ValueError: no template, or no profile, of that name; GPU memory that is no number.
        """
        config = self._template(model_type)()
        gpu_memory_gb = hardware_specs.get("gpu_memory_gb", 0)
        if not isinstance(gpu_memory_gb, int | float) or not 0 <= gpu_memory_gb < math.inf:
            raise ValueError(f"gpu_memory_gb must be a number of GB from 0 up, got {gpu_memory_gb!r}")
        if gpu_memory_gb < LOW_MEMORY_GB:
            config.torch_dtype = "float16"
            config.gradient_checkpointing = True
            config.use_kv_cache_compression = True
        elif gpu_memory_gb >= HIGH_MEMORY_GB:
            config.torch_dtype = "bfloat16"
            config.gradient_checkpointing = False
            config.use_flash_attention_2 = True
        if profile is not None:
            for field, value in find_profile(profile, self.optimization_profiles).config.items():
                if not hasattr(config, field):
                    raise ValueError(
                        f"profile {profile!r} sets {field!r}, which {type(config).__name__} does not have"
                    )
                setattr(config, field, value)
        return config

    def _template(self, model_type: str) -> type[BaseModelConfig]:
        if model_type not in self.config_templates:
            near = difflib.get_close_matches(model_type, self.config_templates, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.config_templates)}"
            raise ValueError(f"No config template found for model type: {model_type}; {hint}")
        template = self.config_templates[model_type]
        return template if isinstance(template, type) else template()

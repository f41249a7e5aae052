"""Model configuration: the standard's fields, strict reading of config files, and choice by hardware."""

from inference_pio.config.base import BaseModelConfig, set_by_runtime
from inference_pio.config.dynamic import DynamicConfigManager
from inference_pio.config.profiles import PROFILES, Profile, find_profile
from inference_pio.config.reader import ConfigReader

__all__ = [
    "PROFILES",
    "BaseModelConfig",
    "ConfigReader",
    "DynamicConfigManager",
    "Profile",
    "find_profile",
    "set_by_runtime",
]

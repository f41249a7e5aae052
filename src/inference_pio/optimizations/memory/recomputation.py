"""Nothing kept between steps: memory for time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from inference_pio.optimizations.technique import Situation, Standing, Technique, active, dormant
from inference_pio.plugin.serving import serving_of


class Recomputation(Technique):
    """Each new token computes all tokens before it again; a sequence holds blocks during its own step only.

    For models whose keys and values would not fit for all sequences at once; it costs as many tokens a step as a
    sequence is long.
    """

    name = "recomputation"
    title = "recomputation in place of a cache"
    family = "KV-cache recomputation"
    category = "memory"
    exact = True
    # All that is computed again is a prompt: what is left out of prompts would be left out of answers too.
    conflicts = ("prefix_caching", "sparse_prefill")
    on: ClassVar[Mapping[str, Any]] = {"use_cache": False, "use_prefix_caching": False}
    shows_on = "memory"

    def standing(self, at: Situation) -> Standing:
        if at.config.use_cache:
            return dormant("use_cache is on: keys and values are kept")
        return active("use_cache is off: every step computes its sequences from their first token")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).recompute = True
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "recomputes": serving_of(model).recompute}

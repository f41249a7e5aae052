"""What `load_model` returns for a model in a worker."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from inference_pio.errors import PluginError


class StandIn(nn.Module):
    """Has no weights and computes nothing: the model is in a process of its own, and its plugin's methods reach it."""

    def __init__(self, name: str, pid: int | None) -> None:
        super().__init__()
        self._name, self._pid = name, pid

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """
        Raises:
            PluginError: always.
        """
        raise PluginError(
            f"{self._name} runs in worker process {self._pid}, and its weights are there: use infer, generate_text or "
            "the other methods of its plugin; without limits, trusted to the most, it is loaded into this process"
        )

    def extra_repr(self) -> str:
        return f"{self._name}, in process {self._pid}"

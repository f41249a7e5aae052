"""What stands in this process for a plugin of others: its manifest's words, and a runtime in a worker."""

from __future__ import annotations

from typing import Any, NoReturn

from inference_pio.config import BaseModelConfig
from inference_pio.errors import PluginError
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.manifest import Manifest
from inference_pio.plugin.runtime import Runtime
from inference_pio.worker.runtime import WorkerRuntime


def remote_plugin(manifest: Manifest, **kwargs: Any) -> ModelPlugin:
    """A plugin object whose code is imported in its worker only."""
    made: type[ModelPlugin] = type(
        "RemotePlugin", (_RemotePlugin,), {"manifest": manifest, "__doc__": manifest.description}
    )
    return made(**kwargs)


class _RemotePlugin(ModelPlugin):
    """Takes the standard's configuration; its own fields are the checkpoint's, which the worker reads."""

    config_class = BaseModelConfig

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None and self._security is None:
            self._runtime, self._own_runtime = WorkerRuntime(None, None), True
        return super().runtime

    def techniques(self, config: Any) -> Any:  # noqa: ARG002
        """Those of the loaded model are in `get_optimization_report`."""
        return ()

    def _elsewhere(self, *_: Any, **__: Any) -> NoReturn:
        raise PluginError(
            f"the code of {self.manifest.name!r} runs in a worker: nothing of it can be asked for here; "
            "default_registry().trust() lets this process import it"
        )

    read_config = build_model = weight_map = cache_specs = shard_plan = _elsewhere
    prefix_policy = chat_format = _elsewhere

"""The standard's interfaces, signatures unchanged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


class ModelPluginInterface(ABC):
    """Standard interface that all model plugins implement."""

    @abstractmethod
    def initialize(self, **kwargs: Any) -> bool:
        """Prepare the plugin. True on success; False, with `last_error` set, only where this machine cannot run it."""

    @abstractmethod
    def load_model(self, config: Any = None) -> nn.Module:
        """Load the model with `config`, or with the one `initialize` was given."""

    @abstractmethod
    def infer(self, data: Any) -> Any:
        """Run inference on `data`."""

    @abstractmethod
    def cleanup(self) -> bool:
        """Release everything the plugin holds. True on success, also if there was nothing to release."""

    @abstractmethod
    def supports_config(self, config: Any) -> bool:
        """Whether this plugin can run `config`."""


class TextModelPluginInterface(ModelPluginInterface):
    """Extended interface for models that read and write text."""

    @abstractmethod
    def tokenize(self, text: str, **kwargs: Any) -> Any:
        """Token ids of `text`."""

    @abstractmethod
    def detokenize(self, token_ids: list[int] | torch.Tensor, **kwargs: Any) -> str:
        """Text of `token_ids`."""

    @abstractmethod
    def generate_text(self, prompt: str, max_new_tokens: int = 512, **kwargs: Any) -> str:
        """Continue `prompt` by at most `max_new_tokens` tokens."""

    def chat_completion(
        self, messages: list[dict[str, str]], max_new_tokens: int = 1024, **kwargs: Any
    ) -> str:
        """The answer to a conversation: messages are formatted, then continued."""
        formatted_prompt = self._format_chat_messages(messages)
        return self.generate_text(formatted_prompt, max_new_tokens=max_new_tokens, **kwargs)

    @abstractmethod
    def _format_chat_messages(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the model's own chat template makes of `messages`."""

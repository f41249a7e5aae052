"""The messages of a chat, kept within the context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_pio.cli.prompt import with_images
from inference_pio.cli.session import Session
from inference_pio.errors import ContextLengthError

if TYPE_CHECKING:
    from inference_pio.plugin.runtime import EncodedPrompt

_ROOM = 256


class Conversation:
    """System message, then questions and answers in turn."""

    def __init__(self, session: Session, system: str | None) -> None:
        self._session = session
        self._system = system or ""
        self._turns: list[dict[str, Any]] = []
        self._images: list[object] = []

    def reset(self, system: str | None = None) -> None:
        """Forget everything said; another system message if one is given ("" is none)."""
        self._turns, self._images = [], []
        self._system = self._system if system is None else system

    def show(self, path: Path) -> int:
        """Put an image before the next message; how many there are now. Its file is read now and not again.

        Raises:
            ImageError: it cannot be used.
            UnavailableError: Pillow is not installed.
        """
        from inference_pio.multimodal.image import open_image

        self._images.append(open_image(path).data)
        return len(self._images)

    def ask(self, text: str) -> tuple[EncodedPrompt, int]:
        """(the prompt, messages dropped): the oldest turns go where the context has no room for them.

        Raises:
            ContextLengthError: the message alone leaves no room for an answer; it is not kept, nor are its images.
            UsageError: an image cannot be used; the same.
        """
        if self._turns and self._turns[-1]["role"] == "user":
            self.take_back()  # interrupted before it had an answer
        self._turns.append({"role": "user", "content": with_images(text, self._images)})
        self._images = []
        try:
            return self._fitted()
        except BaseException:
            self.take_back()
            raise

    def answered(self, text: str, reasoning: str = "") -> None:
        """What the model said; whether what it thought stays in later prompts is for its chat template to say."""
        thought = {"reasoning": reasoning} if reasoning else {}
        self._turns.append({"role": "assistant", "content": text, **thought})

    def take_back(self) -> None:
        """Forget the last question, which has no answer."""
        self._turns.pop()

    def _fitted(self) -> tuple[EncodedPrompt, int]:
        limit = self._session.llm.max_model_len
        room = min(_ROOM, limit // 4)
        before = len(self._turns)
        while True:
            alone = len(self._turns) == 1
            try:
                prompt = self._encode()
            except ContextLengthError:  # of images, whose tokens are not made where they do not fit
                if alone:
                    raise
            else:
                length = len(prompt.token_ids)
                if length + room <= limit or (alone and length < limit):
                    return prompt, before - len(self._turns)
                if alone:
                    raise ContextLengthError(
                        f"this message has {length} tokens and the context {limit}: send a shorter one"
                    )
            del self._turns[:2]  # a question and its answer: what is left begins with a question again

    def _encode(self) -> EncodedPrompt:
        system = [{"role": "system", "content": self._system}] if self._system else []
        return self._session.llm.encode_prompt(self._session.llm.format_chat([*system, *self._turns]))

"""The messages of a chat, kept within the context."""

from __future__ import annotations

from inference_pio.cli.session import Session
from inference_pio.errors import ContextLengthError

_ROOM = 256


class Conversation:
    """System message, then questions and answers in turn."""

    def __init__(self, session: Session, system: str | None) -> None:
        self._session = session
        self._system = system or ""
        self._turns: list[dict[str, str]] = []

    def reset(self, system: str | None = None) -> None:
        """Forget everything said; another system message if one is given ("" is none)."""
        self._turns = []
        self._system = self._system if system is None else system

    def ask(self, text: str) -> tuple[str, int, int]:
        """(prompt, its tokens, messages dropped): the oldest turns go where the context has no room for them.

        Raises:
            ContextLengthError: the message alone leaves no room for an answer; it is not kept.
        """
        if self._turns and self._turns[-1]["role"] == "user":
            self.take_back()  # interrupted before it had an answer
        self._turns.append({"role": "user", "content": text})
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

    def _fitted(self) -> tuple[str, int, int]:
        limit = self._session.llm.max_model_len
        room = min(_ROOM, limit // 4)
        before = len(self._turns)
        prompt, tokens = self._prompt()
        while tokens + room > limit and len(self._turns) > 1:
            del self._turns[:2]  # a question and its answer: what is left begins with a question again
            prompt, tokens = self._prompt()
        if tokens >= limit:
            raise ContextLengthError(
                f"this message has {tokens} tokens and the context {limit}: send a shorter one"
            )
        return prompt, tokens, before - len(self._turns)

    def _prompt(self) -> tuple[str, int]:
        system = [{"role": "system", "content": self._system}] if self._system else []
        prompt = self._session.llm.format_chat([*system, *self._turns])
        return prompt, len(self._session.encode(prompt))

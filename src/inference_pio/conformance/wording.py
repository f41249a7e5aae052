"""C14: tokens to text as they come, and conversations to text."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import BOS, EOS, write_tokenizer
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.detokenizer import IncrementalDetokenizer
from inference_pio.text.tokenizer import Tokenizer

_TEXTS = (
    "the cat and the thin hat",
    "Grüße — 你好, мир! 👩‍👩‍👧‍👦 é̈",
    " \n\t two  spaces \r\n",
    "naïve\u200bword\u00a0x",
)
_CONVERSATIONS: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "What is the capital of France?"},),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße, 你好 👋"}),
    (
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "  and\n\ttwice that? "},
    ),
)


def check_detokenisation(subject: Subject) -> None:
    """Text that comes in pieces, whatever the pieces, is the text of all tokens; no piece ends within a character."""
    tokenizer = Tokenizer.from_directory(subject.checkpoint(subject.case.typical))
    random = [token_ids(400, tokenizer.vocab_size, seed) for seed in range(5)]
    for ids in [*(tokenizer.encode(text) for text in _TEXTS), *random]:
        for size in (1, 2, 7):
            pieces = _pieces(tokenizer, ids, size)
            whole = tokenizer.decode(ids)
            assert "".join(pieces) == whole, f"pieces of {size} tokens give another text than all of them"
    for text in _TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text, f"{text!r} does not survive encoding and decoding"
        early = [piece for piece in _pieces(tokenizer, ids, 1) if "\ufffd" in piece]
        assert not early, f"{text!r}: a piece shows half a character: {early}"


def check_chat(subject: Subject) -> None:
    """The architecture's chat templates give what another renderer makes of them, to the character."""
    plugin = subject.plugin()
    config = plugin.read_config(subject.case.tiny[subject.case.typical], "")
    variables = dict(plugin.chat_format(config).template_variables)
    for name, source in subject.case.chat.items():
        directory = subject.workdir / f"chat-{subject.case.name}-{name}"
        directory.mkdir(exist_ok=True)
        write_tokenizer(directory, source)
        template = ChatTemplate(Tokenizer.from_directory(directory), directory)
        for messages in _CONVERSATIONS:
            for add_generation_prompt in (True, False):
                found = template.render(
                    messages, add_generation_prompt=add_generation_prompt, variables=variables
                )
                stated = {"add_generation_prompt": add_generation_prompt, "bos_token": BOS, "eos_token": EOS}
                expected = subject.case.render_chat(source, messages, {**variables, **stated})
                assert found == expected, f"{name}: {found!r} is not {expected!r}"


def _pieces(tokenizer: Tokenizer, ids: Sequence[int], size: int) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer)
    pieces = [detokenizer.push(ids[first : first + size]) for first in range(0, len(ids), size)]
    return [*pieces, detokenizer.finish()]

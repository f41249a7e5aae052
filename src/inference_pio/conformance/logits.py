"""C5 to C8, C12: the model's numbers against a reference, and against themselves however the work is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel, tensors_of
from inference_pio.conformance.case import CheckpointKind, vocab_size
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject

# Several cache blocks, and none of them full at the end.
LENGTH = 5 * BLOCK_SIZE + 7
CHUNKS = (1, 3, 64)


def check_whose_reference(subject: Subject) -> None:
    """The reference runs an architecture that the plugin claims, and not the one that the plugin was copied from."""
    reference = subject.reference(subject.case.typical)
    held = getattr(reference, "__dict__", {}).values()
    classes = [type(value).__name__ for value in held if isinstance(value, nn.Module)]
    claimed = subject.manifest.architectures
    assert not classes or set(classes) & set(claimed), (
        f"the reference is {', '.join(classes)} and the plugin claims {', '.join(claimed)}: compare it with an "
        "implementation of its own architecture"
    )


def check_reference_logits(subject: Subject) -> None:
    """Logits of every position equal the reference's, from each kind of checkpoint that can hold the model."""
    for tiny, raw in subject.case.tiny.items():
        ids = token_ids(LENGTH, vocab_size(raw))
        expected = subject.reference(tiny).logits(ids)
        for kind in _kinds(subject, tiny):
            model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind))
            assert_close(model.prefill(ids), expected, f"{tiny} from {kind}")


def check_decode(subject: Subject) -> None:
    """A prompt and then one token at a time gives what one pass over everything gives."""
    for tiny, model, ids in _models(subject):
        whole = model.prefill(ids)
        prompt = LENGTH // 2
        parts = [model.prefill(ids[:prompt]), *(model.run([(0, [token_id])])[0] for token_id in ids[prompt:])]
        assert_close(torch.cat(parts), whole, f"{tiny}: token by token")


def check_chunks(subject: Subject) -> None:
    """A prompt cut into chunks gives what one pass gives."""
    for tiny, model, ids in _models(subject):
        whole = model.prefill(ids)
        for chunk in CHUNKS:
            assert_close(model.prefill(ids, chunk), whole, f"{tiny}: chunks of {chunk}")


def check_steps_without_logits(subject: Subject) -> None:
    """A step that ends within a prompt needs no row of logits, and leaves behind what any other step does."""
    first, none = LENGTH // 2, torch.empty(0, dtype=torch.int64)
    for tiny, model, ids in _models(subject):
        whole = model.prefill(ids)
        model.restart()
        batch = replace(model.batch([(0, ids[:first])]), last_token=none)
        with torch.inference_mode():
            logits = model.model(batch, model.caches)
        assert logits.shape == (0, whole.shape[1]), f"{tiny}: logits of {tuple(logits.shape)} for no row"
        rest = model.run([(0, ids[first:])])[0]
        assert_close(rest, whole[first:], f"{tiny}: behind a step without logits")


def check_ragged_batch(subject: Subject) -> None:
    """Sequences of different lengths in one step, some being decoded, give what each gives alone."""
    lengths = (1, BLOCK_SIZE, 2, 3 * BLOCK_SIZE + 5, BLOCK_SIZE + 1)
    for tiny, raw in subject.case.tiny.items():
        path = subject.checkpoint(tiny)
        model = BareModel(subject.plugin(), path, sequences=len(lengths))
        texts = [token_ids(length, vocab_size(raw), seed) for seed, length in enumerate(lengths)]
        alone = [BareModel(subject.plugin(), path).prefill(text) for text in texts]
        # The second and fourth have begun before; one of them has a single token left.
        model.run([(1, texts[1][:-1]), (3, texts[3][:20])])
        begun = {1: len(texts[1]) - 1, 3: 20}
        order = (4, 1, 0, 3, 2)
        parts = model.run([(number, texts[number][begun.get(number, 0) :]) for number in order])
        for number, part in zip(order, parts, strict=True):
            expected = alone[number][begun.get(number, 0) :]
            assert_close(part, expected, f"{tiny}: sequence {number} of a ragged batch")


def check_drafts(subject: Subject) -> None:
    """Drafts see those before them and, unless they are accepted, leave nothing behind for the tokens that come.

    One sequence of the step has right drafts and then wrong ones, one only right ones, one only wrong ones, of which
    nothing is accepted, and one has none.
    """
    prompt, right, drafted = (BLOCK_SIZE + 3, 9, BLOCK_SIZE, 2), (2, 3, 0, 0), (4, 3, 5, 0)
    for tiny, raw in subject.case.tiny.items():
        path, tokens = subject.checkpoint(tiny), vocab_size(raw)
        texts = [token_ids(LENGTH, tokens, seed) for seed in range(len(prompt))]
        alone = [BareModel(subject.plugin(), path).prefill(text) for text in texts]
        model = BareModel(subject.plugin(), path, sequences=len(prompt))
        model.reserve(sum(drafted))
        model.run([(number, text[: prompt[number]]) for number, text in enumerate(texts)])
        pieces = []
        for number, text in enumerate(texts):
            known = prompt[number] + 1 + right[number]
            wrong = [(token_id + 1) % tokens for token_id in text[known:][: drafted[number] - right[number]]]
            pieces.append((number, [*text[prompt[number] : known], *wrong]))
        for number, part in enumerate(model.run(pieces, drafted)):
            first = prompt[number]
            expected = alone[number][first : first + 1 + right[number]]
            assert_close(part[: len(expected)], expected, f"{tiny}: drafts of sequence {number}")
        model.accept(right)
        begun = [length + 1 + count for length, count in zip(prompt, right, strict=True)]
        rest = model.run([(number, text[begun[number] :]) for number, text in enumerate(texts)])
        for number, part in enumerate(rest):
            assert_close(part, alone[number][begun[number] :], f"{tiny}: behind drafts of sequence {number}")


def check_cache_bytes(subject: Subject) -> None:
    """What cache specs state is what they allocate, byte for byte."""
    blocks, slots = 3, 5
    for tiny in subject.case.tiny:
        model = BareModel(subject.plugin(), subject.checkpoint(tiny))
        for layer, spec in enumerate(model.specs):
            cache = spec.allocate(blocks, BLOCK_SIZE, slots, torch.device("cpu"))
            stated = spec.bytes_per_token() * blocks * BLOCK_SIZE + spec.bytes_per_sequence() * slots
            allocated = sum(tensor.untyped_storage().nbytes() for tensor in tensors_of(cache))
            assert stated == allocated, f"{tiny}, layer {layer}: {stated} bytes stated, {allocated} allocated"


def _kinds(subject: Subject, tiny: str) -> tuple[CheckpointKind, ...]:
    return ("safetensors", "sharded", "gguf") if tiny in subject.case.gguf else ("safetensors", "sharded")


def _models(subject: Subject) -> Iterator[tuple[str, BareModel, list[int]]]:
    for tiny, raw in subject.case.tiny.items():
        yield (
            tiny,
            BareModel(subject.plugin(), subject.checkpoint(tiny)),
            token_ids(LENGTH, vocab_size(raw)),
        )

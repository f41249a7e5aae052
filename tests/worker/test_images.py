"""Images for a model in a worker: what it answers is what it answers in this process, through kills too."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inference_pio import LLM, SamplingParams, SecurityLevel
from inference_pio.children.frames import MOST_BYTES, ProtocolError, frame
from inference_pio.errors import ContextLengthError, ImageError, UsageError
from inference_pio.security import landlock
from inference_pio.worker.messages import Ask, Generate, Picture, Rows
from inference_pio.worker.pictures import Album, in_pieces
from inference_pio.worker.runtime import WorkerRuntime
from support.images import gradient, saved
from support.vision_model import BLUE, END, PLACEHOLDER, RED, START, TALL, data_url, write_vision_model

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
ONE = f"{START}{PLACEHOLDER}{END}"
TEXT = {"type": "text", "text": "what is it?"}


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, TEXT]}]


def shown(source: object) -> dict[str, Any]:
    return {"type": "image", "image": source}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LLM, LLM]]:
    """One here and one in a worker."""
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    path = str(write_vision_model(tmp_path_factory.mktemp("apart")).path)
    options: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.02, "block_size": 16}
    with (
        LLM(path, **options) as here,
        LLM(path, **options, security_level=SecurityLevel.LOW_TRUST) as apart,
    ):
        yield here, apart


def test_the_same_answers(models: tuple[LLM, LLM]) -> None:
    url = {"type": "image_url", "image_url": {"url": data_url(BLUE)}}
    chats = [user(shown(RED)), user(shown(Image.open(io.BytesIO(TALL))), url), user(), user(shown(RED), url)]
    prompts = [
        {"prompt": f"a{ONE}b", "multi_modal_data": {"image": RED}},
        {"prompt": f"{ONE}{ONE}the cat", "multi_modal_data": {"image": [TALL, BLUE]}},
        {
            "prompt_token_ids": models[0].get_tokenizer().encode(ONE),
            "multi_modal_data": {"image": BLUE},
        },
    ]
    here, apart = ([*llm.chat(chats, GREEDY), *llm.generate(prompts, GREEDY)] for llm in models)
    for one, other in zip(apart, here, strict=True):
        assert one.outputs[0].token_ids == other.outputs[0].token_ids
        assert (one.prompt, one.prompt_token_ids) == (other.prompt, other.prompt_token_ids)
    assert len({tuple(one.outputs[0].token_ids) for one in here}) == len(here)


def test_an_image_is_sent_again_after_a_kill(models: tuple[LLM, LLM]) -> None:
    large = saved(gradient(300, 200).resize((2400, 1300)), "JPEG")  # in several frames
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=400, ignore_eos=True)
    here, apart = models
    small = {"prompt": f"{ONE}look", "multi_modal_data": {"image": RED}}
    wanted = [chunk.token_ids for chunk in here.stream(small, params)]
    told = []
    runtime = apart._runtime
    assert isinstance(runtime, WorkerRuntime)
    for chunk in apart.stream(small, params):
        told.append(chunk.token_ids)
        if len(told) in (5, 20):
            assert runtime.model.pid is not None
            os.kill(runtime.model.pid, signal.SIGKILL)
    assert [i for ids in told for i in ids] == [i for ids in wanted for i in ids]
    assert runtime.model.restarts == 2
    with pytest.raises(ContextLengthError) as refused:
        here.generate({"prompt": ONE, "multi_modal_data": {"image": large}})
    with pytest.raises(ContextLengthError) as also:
        apart.generate({"prompt": ONE, "multi_modal_data": {"image": large}})
    assert str(also.value) == str(refused.value)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ({"prompt": "no place", "multi_modal_data": {"image": RED}}, UsageError),
        ({"prompt": ONE, "multi_modal_data": {"image": RED[:80]}}, ImageError),
        ({"prompt": ONE, "multi_modal_data": {"image": "/no/such.png"}}, ImageError),
        ({"prompt": ONE * 17, "multi_modal_data": {"image": [RED] * 17}}, UsageError),
    ],
)
def test_the_same_errors(models: tuple[LLM, LLM], prompt: Any, kind: type[Exception]) -> None:
    words = []
    for llm in models:
        with pytest.raises(kind) as refused:
            llm.generate(prompt, GREEDY)
        words.append(str(refused.value))
    assert words[0] == words[1]


def test_bad_parts_of_messages(models: tuple[LLM, LLM]) -> None:
    bad: list[Any] = [
        {"type": "image"},
        {"type": "image", "image": RED, "more": 1},
        {"type": "image_url", "image_url": {"link": "x"}},
        {"type": "video", "video": "x"},
        "text",
    ]
    for part in bad:
        words = []
        for llm in models:
            with pytest.raises(UsageError) as refused:
                llm.chat(user(part), GREEDY)
            words.append(str(refused.value))
        assert words[0] == words[1]


def test_a_prompt_of_another_process_is_refused(models: tuple[LLM, LLM]) -> None:
    here, apart = models
    prompt = {"prompt": ONE, "multi_modal_data": {"image": RED}}
    with pytest.raises(UsageError, match="in this process, and not for a worker"):
        apart.generate(here.encode_prompt(prompt), GREEDY)
    with pytest.raises(UsageError, match="encoded for a model in a worker"):
        here.generate(apart.encode_prompt(prompt), GREEDY)
    assert here.encode_prompt(prompt).token_ids == apart.encode_prompt(prompt).token_ids


SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=4)


@given(SIZES, st.booleans())
def test_what_is_cut_is_whole_again(sizes: list[tuple[int, int]], question: bool) -> None:
    pictures = [
        Picture(f"image {at}", height, width, bytes(at + byte % 7 for byte in range(3 * height * width)))
        for at, (height, width) in enumerate(sizes)
    ]
    message = Ask(7, "encode", {}, pictures) if question else Generate(7, {}, images=pictures)
    *rows, bare = in_pieces(message)
    album = Album()
    for each in rows:
        assert isinstance(each, Rows)
        album.add(each)
    assert isinstance(bare, type(message))
    for image, picture in zip(album.take(7, bare.images), pictures, strict=True):
        found = image.source
        assert (image.where, found.height, found.width) == (picture.where, picture.height, picture.width)
        assert bytes(found.rows) == picture.rows


def test_no_piece_is_longer_than_a_frame() -> None:
    picture = Picture("image", 3000, 2000, bytes(18_000_000))
    pieces = list(in_pieces(Generate(1, {}, images=[picture])))
    assert len(pieces) > 3
    assert all(len(frame(piece)) <= MOST_BYTES for piece in pieces)


@pytest.mark.parametrize(
    ("rows", "number", "picture"),
    [
        ([Rows(1, b"123")], 1, Picture("x", 1, 2)),
        ([Rows(1, b"123")], 2, Picture("x", 1, 1)),
        ([Rows(1, b"123"), Rows(2, b"123")], 1, Picture("x", 1, 2)),
        ([], 1, Picture("x", 1, 1)),
        ([], 1, Picture("x", 0, 5)),
        ([Rows(1, b"123")], 1, Picture("x", -1, -1)),
        ([Rows(1, b"123")], 1, Picture("x", 1, 1, b"123")),
    ],
)
def test_other_bytes_than_were_told_are_no_picture(rows: list[Rows], number: int, picture: Picture) -> None:
    album = Album()
    with pytest.raises(ProtocolError):  # noqa: PT012 - at either
        for each in rows:
            album.add(each)
        album.take(number, [picture])

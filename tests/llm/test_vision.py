"""Images from a script to tokens, against Transformers' `generate` on a tiny random Qwen3-VL."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference_pio import LLM, ResourceLimits, SamplingParams
from inference_pio.errors import ContextLengthError, ImageError, ResourceError, UsageError
from support.images import gradient, png_of, saved
from support.vision_model import (
    BLUE,
    END,
    PLACEHOLDER,
    RED,
    START,
    TALL,
    VisionReference,
    data_url,
    write_vision_model,
)

COUNT = 12
GREEDY = SamplingParams(temperature=0, max_tokens=COUNT, ignore_eos=True)
ONE = f"{START}{PLACEHOLDER}{END}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> VisionReference:
    return write_vision_model(tmp_path_factory.mktemp("vision"))


def load(reference: VisionReference, **options: Any) -> LLM:
    return LLM(
        str(reference.path), **{"dtype": "float32", "kv_cache_memory_gb": 0.02, "block_size": 16, **options}
    )


@pytest.fixture(scope="module")
def seeing(reference: VisionReference) -> Iterator[LLM]:
    with load(reference) as llm:
        yield llm


def image(source: object) -> dict[str, Any]:
    return {"type": "image", "image": source}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def tokens(outputs: Any) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


def test_every_way_to_give_an_image(seeing: LLM, reference: VisionReference, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    expected = reference.chat(user(image(None), text("what is it?")), [RED], COUNT)
    opened = Image.open(io.BytesIO(RED))
    for source in (RED, path, str(path), data_url(RED), opened):
        assert tokens(seeing.chat(user(image(source), text("what is it?")), GREEDY)) == [expected]
    for url in ({"url": data_url(RED)}, str(path)):
        part = {"type": "image_url", "image_url": url}
        assert tokens(seeing.chat(user(part, text("what is it?")), GREEDY)) == [expected]
    assert expected != reference.chat(user(image(None), text("what is it?")), [BLUE], COUNT)


def test_conversations_texts_and_prompts_in_one_batch(seeing: LLM, reference: VisionReference) -> None:
    several = user(text("the "), image(RED), text(" and the "), image(TALL), image(BLUE), text(" hat"))
    later = [
        *user(image(TALL), text("and?")),
        {"role": "assistant", "content": "the cat"},
        *user(text("in"), image(BLUE)),
    ]
    plain = user(text("no image at all"))
    chats = seeing.chat([several, later, plain], GREEDY)
    assert tokens(chats) == [
        reference.chat(several, [RED, TALL, BLUE], COUNT),
        reference.chat(later, [TALL, BLUE], COUNT),
        reference.chat(plain, [], COUNT),
    ]
    prompts: list[Any] = [
        {"prompt": f"a{ONE}b", "multi_modal_data": {"image": RED}},
        {"prompt": f"{ONE}{ONE}the cat", "multi_modal_data": {"image": [TALL, BLUE]}},
        "the cat",
    ]
    assert tokens(seeing.generate(prompts, GREEDY)) == [
        reference.generate(f"a{ONE}b", [RED], COUNT),
        reference.generate(f"{ONE}{ONE}the cat", [TALL, BLUE], COUNT),
        reference.generate("the cat", [], COUNT),
    ]
    encoded = seeing.encode_prompt(seeing.format_chat(several))
    assert encoded.token_ids == chats[0].prompt_token_ids
    assert [token for chunk in seeing.stream(encoded, GREEDY) for token in chunk.token_ids] == tokens(
        chats[:1]
    )[0]
    written = {"prompt_token_ids": seeing.get_tokenizer().encode(ONE), "multi_modal_data": {"image": RED}}
    assert tokens(seeing.generate(written, GREEDY)) == [reference.generate(ONE, [RED], COUNT)]


@pytest.mark.parametrize("budget", [7, 64, 500])
def test_chunks_that_end_inside_images(reference: VisionReference, budget: int) -> None:
    messages = user(text("the "), image(RED), text(" and "), image(TALL), text("?"))
    expected = reference.chat(messages, [RED, TALL], COUNT)
    with load(reference, max_num_batched_tokens=budget, enable_prefix_caching=False) as llm:
        assert tokens(llm.chat([messages, messages], GREEDY)) == [expected] * 2


def test_images_with_equal_token_ids_share_nothing_and_the_same_image_does(
    reference: VisionReference,
) -> None:
    with load(reference) as llm:
        encoded = []
        model = llm.plugin.load_model()
        encode = model.encode_media
        model.encode_media = lambda pixels, grids: (encoded.append(grids), encode(pixels, grids))[1]
        red, blue = (user(text("look at this one: "), image(source), text("what?")) for source in (RED, BLUE))
        first = llm.chat(red, GREEDY)[0]
        second = llm.chat(blue, GREEDY)[0]
        again = llm.chat(red, GREEDY)[0]
        assert first.prompt_token_ids == second.prompt_token_ids == again.prompt_token_ids
        assert tokens([first, second]) == [
            reference.chat(red, [RED], COUNT),
            reference.chat(blue, [BLUE], COUNT),
        ]
        assert tokens([again]) == tokens([first])
        assert first.outputs[0].token_ids != second.outputs[0].token_ids
        length = len(first.prompt_token_ids)
        assert [each.metrics.num_cached_tokens for each in (first, second, again)] == [
            0,
            16,
            (length - 1) // 16 * 16,
        ]
        turns = [*red, {"role": "assistant", "content": first.outputs[0].text}, *user(text("and now?"))]
        assert tokens(llm.chat(turns, GREEDY)) == [reference.chat(turns, [RED], COUNT)]
        assert len(encoded) == 2


def test_recorded_steps_follow_each_conversations_positions(
    reference: VisionReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With packed weights decoding is replayed: positions of two conversations and a text differ in one recording."""
    from inference_pio.engine import replay

    asked = [
        user(image(RED), text("what?")),
        user(text("the cat")),
        user(image(TALL), image(BLUE), text("?")),
    ]
    long = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)

    def answers() -> Any:
        with load(
            reference, dtype="auto", quantize="int8", speculation=0, enable_prefix_caching=False
        ) as llm:
            found = [tokens(llm.chat(one, long))[0] for one in asked] + tokens(llm.chat(asked, long))
            return found, llm._runtime._loop._core._runner._replay

    replayed, steps = answers()
    assert steps.refused is None
    assert len(steps._steps) >= 2
    monkeypatch.setattr(replay, "_MAX_TOKENS", 0)
    written, steps = answers()
    assert len(steps._steps) == 0
    assert replayed == written


def test_text_that_spells_the_placeholder_is_text(seeing: LLM) -> None:
    spelled = seeing.encode_prompt(seeing.format_chat(user(image(RED), text(ONE))))
    placeholder = seeing.get_tokenizer().token_to_id(PLACEHOLDER)
    assert spelled.media is not None
    (item,) = spelled.media.items
    assert spelled.token_ids.count(placeholder) == item.length
    assert seeing.encode_prompt(seeing.format_chat(user(text(ONE)))).media is None


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (ONE, r"has 1 places for images .* and 0 images were given"),
        (
            {"prompt": "a", "multi_modal_data": {"image": RED}},
            "has 0 places for images .* and 1 images were given",
        ),
        (
            {"prompt": ONE, "multi_modal_data": {"image": [RED, RED]}},
            "has 1 places .* and 2 images were given",
        ),
        (
            {"prompt": ONE, "multi_modal_data": {"image": "no/such.png"}},
            r"^multi_modal_data.image\[0\]: 'no/such.png'",
        ),
        (
            {"prompt": ONE, "multi_modal_data": {"image": RED[:200]}},
            r"image\[0\]: the PNG image is broken or cut off",
        ),
        (
            {"prompt": ONE, "multi_modal_data": {"image": saved(gradient(1, 300), "PNG")}},
            "one side is 300 times the other",
        ),
    ],
)
def test_wrong_prompts_raise_before_anything_runs(seeing: LLM, prompt: Any, message: str) -> None:
    before = seeing.plugin.get_compute_stats()["prompt_tokens"]
    with pytest.raises(UsageError, match=message) as caught:
        seeing.generate(["the cat", prompt], GREEDY)
    assert "\n" not in str(caught.value)
    assert seeing.plugin.get_compute_stats()["prompt_tokens"] == before


@pytest.mark.usefixtures("never_decodes")
def test_a_bomb_in_a_chat_is_refused_before_anything_is_decoded(seeing: LLM) -> None:
    bomb = "data:image/png;base64," + base64.b64encode(png_of(65_535, 65_535)[:60]).decode()
    line = r"^messages\[0\].content\[1\]: 65,535 × 65,535 pixels: a side has 32,768"
    with pytest.raises(ImageError, match=line):
        seeing.chat(user(image(RED), image(bomb)), GREEDY)


def test_more_images_than_the_context_holds(seeing: LLM) -> None:
    with pytest.raises(
        ContextLengthError, match=r"tokens with messages\[0\].content\[\d+\], which alone has \d+"
    ):
        seeing.chat(user(*[image(RED)] * 12), GREEDY)


def test_the_plan_counts_what_images_take(reference: VisionReference, seeing: LLM) -> None:
    plan = seeing._runtime.plan
    assert plan.images > 256 * 2**20
    assert " + images 0." in plan.sum_text()
    assert (
        plan.total - plan.images
        == plan.weights + plan.kv_cache + plan.activations + plan.logits + plan.runtime
    )
    with pytest.raises(ResourceError, match=r"images 0\.\d+"):
        load(reference, resource_limits=ResourceLimits(memory_gb=0.4)).close()

"""Layers on the disk, through the whole product: the same tokens in less memory, and errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.config import BaseModelConfig
from inference_pio.errors import ConfigError, GenerationError, ResourceError
from inference_pio.layers.paged import pagers_of
from inference_pio.ops import native
from inference_pio.optimizations.technique import Situation
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import Serving, give_serving
from inference_pio.runtime.paging import PagingRequest
from inference_pio.security.held import held_to
from support.layered import layered

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
PROMPTS = [{"prompt_token_ids": [3 + (7 * n + i) % 200 for i in range(length)]} for n, length in
           enumerate((1, 5, 40, 1, 90))]  # fmt: skip
GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
BLOCKS, FLOATS = {"quantize": "int8"}, {"dtype": "float32"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layered(tmp_path_factory.mktemp("paging"), 7)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("INFERENCE_PIO_HOME", str(folder))
        yield folder


def opened(path: Path, resident: float | None = None, **options: Any) -> LLM:
    usual = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.02, "block_size": 16}
    return LLM(str(path), **{**usual, "resident_weights_gb": resident, **options})


def answers(llm: LLM, params: SamplingParams = GREEDY) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params)]


def whole(path: Path, **options: Any) -> tuple[list[list[int]], list[list[int]], int]:
    """Tokens, drawn tokens and the bytes of weights with all of them in memory."""
    with opened(path, **options) as llm:
        assert not pagers_of(llm.plugin.load_model())
        return answers(llm), answers(llm, DRAWN), int(llm.plugin.get_memory_stats()["weights_bytes"])


DRAWN = SamplingParams(temperature=0.8, top_p=0.9, max_tokens=12, ignore_eos=True, seed=3)


@pytest.mark.parametrize(
    "kind", [BLOCKS, FLOATS, {"dtype": "bfloat16"}], ids=["blocks", "floats", "bfloat16"]
)
def test_tokens_are_the_same_and_weights_stay_within_the_budget(path: Path, kind: dict[str, Any]) -> None:
    greedy, drawn, total = whole(path, **kind)
    streamed = []
    for share in (0.9, 0.7, 0.52):
        with opened(path, share * total / 1e9, **kind) as llm:
            assert answers(llm) == greedy
            assert answers(llm, DRAWN) == drawn
            (pager,) = pagers_of(llm.plugin.load_model())
            memory = llm.plugin.get_memory_stats()["weights_bytes"]
            assert memory <= share * total
            plan = llm.plugin.runtime.plan
            assert plan.paged == pager.streamed_bytes
            assert llm.plugin.get_disk_stats()["paged_read_bytes"] > 10 * plan.paged
            streamed.append(plan.paged)
            # No mapping of the file is left that could hold it in memory a second time.
            assert ".pages" not in Path("/proc/self/maps").read_text()
    assert 0 < streamed[0] < streamed[1] <= streamed[2]


def test_projections_that_are_taken_apart_are_read_too(path: Path) -> None:
    with opened(path, disable=("merged_projections",), **BLOCKS) as llm:
        greedy = answers(llm)
    with opened(path, 0.00014, disable=("merged_projections",), **BLOCKS) as llm:
        assert answers(llm) == greedy
        assert llm.plugin.runtime.plan.paged > 0


def test_weights_that_are_folded_exclude_it(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tensor_paging.* exclude each other; ask for one of them$"):
        opened(path, 0.0006, enable=("folded_norms",), **FLOATS)


def test_steps_are_recorded(path: Path) -> None:
    with opened(path, 0.00014, **BLOCKS) as llm:
        answers(llm)
        replay = llm.plugin.runtime._loop._core._runner._replay
        assert replay.refused is None
        names = [name for _, step in replay._steps.values() for name, _ in step.timed_replay()]
        assert any(name.startswith("page_in ") for name in names)
        assert any(name.startswith("page_out ") for name in names)


def test_what_is_damaged_while_it_runs_ends_the_request_and_no_more(path: Path) -> None:
    with opened(path, 0.00014, **BLOCKS) as llm:
        before = answers(llm)
        (file,) = Path(llm.plugin.runtime._store.pages_of(path)).parent.glob("layers-7-*.pages")
        right = file.read_bytes()
        wrong = bytearray(right)
        for at in range(4096, len(wrong), 4096):
            wrong[at] ^= 1
        file.write_bytes(wrong)
        message = r"^request .*: the model failed: .*\.pages is damaged at byte \d+: delete it"
        for _ in range(2):
            with pytest.raises(GenerationError, match=message) as found:
                llm.generate(PROMPTS[:1], GREEDY)
            assert "\n" not in str(found.value)
        for output in llm.generate(PROMPTS, GREEDY):
            assert output.outputs[0].finish_reason == "error"
            assert re.match(message, output.outputs[0].error or "")
            assert output.outputs[0].token_ids == []
        file.write_bytes(right)
        assert answers(llm) == before


def test_a_file_without_its_end_ends_the_request(path: Path) -> None:
    with opened(path, 0.00014, **BLOCKS) as llm:
        before = answers(llm)
        (file,) = Path(llm.plugin.runtime._store.pages_of(path)).parent.glob("layers-7-*.pages")
        right = file.read_bytes()
        with file.open("r+b") as handle:
            handle.truncate(4096)
        with pytest.raises(GenerationError, match=r"\.pages ends within a layer"):
            llm.generate(PROMPTS[:1], GREEDY)
        file.write_bytes(right)
        assert answers(llm) == before


def test_a_closed_model_leaves_no_file_open_and_no_thread(path: Path) -> None:
    def held() -> tuple[int, list[str]]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        names = [os.readlink(link) for link in links if os.path.lexists(link)]
        return len(list(Path("/proc/self/task").iterdir())), [name for name in names if ".pages" in name]

    with opened(path, 0.00014, **BLOCKS) as llm:
        answers(llm)
        threads, files = held()
        assert len(files) == 1
    gone, files = held()
    assert files == []
    assert gone <= threads - 4


def test_less_than_the_least_is_refused_with_the_sum(path: Path) -> None:
    match = (
        r"^layers-7 cannot run within resident_weights_gb 1e-06: embedding, head and what else stays 0\.00\d \+ "
        r"a window of two layers 0\.00\d = 0\.00\d GB; raise it to that"
    )
    with pytest.raises(ResourceError, match=match):
        opened(path, 1e-6, **BLOCKS)


def test_a_model_of_two_layers_cannot_be_paged(tmp_path: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"^the weights of layers-2 cannot be paged: it has no three layers"
    ):
        opened(layered(tmp_path, 2), 1e-6, **BLOCKS)


def test_what_memory_lacks_is_on_the_disk(path: Path) -> None:
    greedy, _, _ = whole(path, **FLOATS)
    with opened(path, **FLOATS) as llm:
        plan = llm.plugin.runtime.plan
    least = plan.total - plan.kv_cache + 256 * plan.kv_bytes_per_token
    limits = ResourceLimits(memory_gb=(least - 300_000) / 1e9)
    with held_to(limits), opened(path, kv_cache_memory_gb=None, **FLOATS) as llm:
        plan = llm.plugin.runtime.plan
        assert plan.paged > 0
        assert plan.total <= plan.budget
        assert answers(llm) == greedy
    with held_to(limits), pytest.raises(ResourceError, match="^layers-7 does not fit: "):
        opened(path, kv_cache_memory_gb=None, disable=("disk_offload",), **FLOATS)


def test_a_process_that_can_keep_no_file_reads_none_from_the_disk(path: Path) -> None:
    limits = ResourceLimits(gpu_memory_gb=0, disk_space_gb=0)
    with pytest.raises(
        ResourceError, match="^resident_weights_gb: needs files, and a worker has none with disk"
    ):
        opened(path, 0.00014, resource_limits=limits, security_level=SecurityLevel.MEDIUM_TRUST, **BLOCKS)


def test_contradictions_are_refused(path: Path) -> None:
    def asked(device: str, serving: Serving) -> PagingRequest:
        model = torch.nn.Module()
        give_serving(model, serving)
        config, place = BaseModelConfig(device_map="disk"), torch.device(device)
        return PagingRequest.of(
            Situation(model, config, RuntimeOptions(), place, torch.float32, packed=False)
        )

    with pytest.raises(ResourceError, match=r"^device_map disk: .* on a CPU only, not on cuda$"):
        asked("cuda", Serving(()))
    assert not asked("cpu", Serving(())).explicit
    assert asked("cpu", Serving((), pages_layers=True)).explicit
    with pytest.raises(
        ConfigError, match=r"^resident_weights_gb 1: tensor paging cannot be used here: switched off"
    ):
        opened(path, 1.0, disable=("tensor_paging",))
    for wrong in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"^resident_weights_gb must be above 0 and finite"):
            RuntimeOptions(resident_weights_gb=wrong)


def test_the_report_says_what_was_done(path: Path) -> None:
    with opened(path, 0.00014, **BLOCKS) as llm:
        answers(llm)
        report = {
            line["name"]: line
            for family in llm.plugin.get_optimization_report()
            for line in family.get("techniques", ())
        }
        paging, plan = report["tensor_paging"], llm.plugin.runtime.plan
        assert paging["streamed_bytes"] == plan.paged > 0
        assert paging["read_bytes"] > 10 * plan.paged
        assert report["disk_offload"]["disk_bytes"] == plan.paged

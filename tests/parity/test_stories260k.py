"""stories260K's published text, through the whole product."""

from __future__ import annotations

from pathlib import Path

from inference_pio import LLM, SamplingParams
from support.llama2c import write_gguf

_WEIGHTS = Path(__file__).parents[1] / "data" / "weights"
_GREEDY = SamplingParams(temperature=0.0, max_tokens=256)


def _published() -> str:
    """The text that the model's page shows for temperature 0."""
    page = (_WEIGHTS / "stories260K.md").read_text()
    command = page.index("-t 0.0\n")
    return page[command + len("-t 0.0\n") : page.index("```", command)].rstrip("\n")


def test_published_text(tmp_path: Path) -> None:
    """256 tokens from nothing but the begin token; in float32, alone and beside others, with every chunk size."""
    path = write_gguf(_WEIGHTS / "stories260K.bin", _WEIGHTS / "tok512.bin", tmp_path / "stories260K.gguf")
    with LLM(str(path), dtype="float32", kv_cache_memory_gb=0.05) as llm:
        assert llm.get_tokenizer().encode("") == [1]
        alone = llm.generate("", _GREEDY)[0].outputs[0]
        assert alone.text == _published()
        assert len(alone.token_ids) == 256
        others = ["Once upon a time", "Lily", "The big red ball"]
        beside = llm.generate(["", *others], _GREEDY)
        assert beside[0].outputs[0].token_ids == alone.token_ids
        assert "".join(chunk.text for chunk in llm.stream("", _GREEDY)) == alone.text
    with LLM(
        str(path), dtype="float32", kv_cache_memory_gb=0.05, max_num_batched_tokens=3, block_size=5
    ) as llm:
        assert llm.generate("", _GREEDY)[0].outputs[0].token_ids == alone.token_ids
        # Its own text, as far as two thirds, goes on the same way.
        half = alone.token_ids[:170]
        rest = llm.generate({"prompt_token_ids": [1, *half]}, SamplingParams(temperature=0.0, max_tokens=86))
        assert rest[0].outputs[0].token_ids == alone.token_ids[170:]

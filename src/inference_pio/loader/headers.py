"""Whether a model's files can be what they say, before a process is started for them; nothing of them is kept."""

from __future__ import annotations

from pathlib import Path

from inference_pio.loader import gguf_header, safetensors_header
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.safetensors_index import check_listed, read_index
from inference_pio.loader.strict_json import read_json_object
from inference_pio.loader.weight_files import find_weights


def check_headers(path: Path) -> None:
    """What `open_checkpoint` and `raw_config` read of a file or directory, without torch.

    Raises:
        ModelFileError: as they do.
    """
    file, kind = find_weights(path)
    if kind == "gguf":
        with RegularFile(file) as opened:
            gguf_header.read_header(opened)
        return
    shards = read_index(file) if kind == "index" else {file: None}
    for shard, listed in shards.items():
        with RegularFile(shard) as opened:
            held = safetensors_header.read_header(opened).tensors.keys()
        if listed is not None:
            check_listed(file, shard.name, held, listed)
    read_json_object((path if path.is_dir() else path.parent) / "config.json")

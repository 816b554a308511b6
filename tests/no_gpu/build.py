"""Builds driver.c into one library: what torch's libraries ask NVIDIA's for, and driver.c does not answer, does nothing.

python -m tests.no_gpu.build <site-packages of torch's CUDA build> <folder>
"""

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("driver.c")
NAME = "libcuda.so.1"
"""The driver's own name, by which torch looks for it; it is there already when it was loaded before all others."""
ASKED_BY = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so")
ANSWERED = re.compile(r"(__cuda|cuda|cublas|nccl)\w+")
"""The libraries that it takes the place of: CUDA's runtime, cuBLAS and NCCL. Others load, and are of no use without a GPU."""
PRODUCT = re.compile(r"cublas\w*(gemm|Gemm|Matmul)\w*")


def build(packages: Path, folder: Path) -> Path:
    """The library, in `folder`. Raises CalledProcessError when there is no gcc, or no headers beside torch."""
    headers = [packages / "nvidia/cu13/include", packages / "nvidia/nccl/include", packages / "triton/backends/nvidia/include"]
    include = [f"-I{one}" for one in headers]
    compiled, library = folder / "driver.o", folder / NAME
    run("gcc", "-c", "-fPIC", "-O1", "-w", *include, SOURCE, "-o", compiled)
    wanted = set().union(*(symbols(packages / "torch/lib" / name, "--undefined-only") for name in ASKED_BY))
    missing = sorted(name for name in wanted - symbols(compiled, "--defined-only", "--extern-only") if ANSWERED.fullmatch(name))
    rest = folder / "rest.c"
    rest.write_text("extern _Atomic long no_gpu_products;\n" + "".join(map(definition, missing)))
    run("gcc", "-shared", "-fPIC", "-O1", "-w", f"-Wl,-soname,{NAME}", compiled, rest, "-o", library, "-lpthread", "-ldl")
    return library


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
    print(build(Path(sys.argv[1]), Path(sys.argv[2])))

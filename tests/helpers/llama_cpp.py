"""A stand-in for llama.cpp's checkout, and for the environment that its converter runs in."""

import sys
from pathlib import Path

from tuneline.export.gguf.converter import PACKAGE

CONVERTER = """
import sys
from pathlib import Path
folder, target = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("--outfile") + 1])
sys.exit("unknown model") if (folder / "config.json").read_text().count("unknown") else target.write_bytes(b"GGUF")
"""
VOCABULARY = "class SpecialVocab:\n    def add_to_gguf(self, writer, quiet=True): ...\n"


def make_llama_cpp(checkout: Path, scratch: Path) -> None:
    """Write the checkout, and into `scratch` an environment that is this one."""
    (checkout / "gguf-py").mkdir(parents=True)
    (checkout / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (checkout / "gguf-py/gguf.py").write_text(VOCABULARY)
    kinds = (f"class {kind}:\n    from_pretrained = None\n" for kind in ("AutoConfig", "AutoModel", "AutoTokenizer"))
    (checkout / "gguf-py/transformers.py").write_text("".join(kinds))
    programs = scratch / f"llama-cpp/{PACKAGE.partition('==')[2]}-python{sys.version_info.minor}/bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)

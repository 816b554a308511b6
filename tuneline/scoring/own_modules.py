"""Python files of evaluation/ as modules: run from their text, able to import one another, with the place of an error.

It is the code of the user's own repository; nothing that came with a checkpoint or a data package is ever run.
"""

import sys
import traceback
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tuneline.runtime.evaluation_folder import FOLDER, check_syntax, read_source


class _Source(SourceFileLoader):
    """From its text every time: bytecode on disk may be that of a text of the same second."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(path)


class _Finder(MetaPathFinder):
    """Modules of the folder for one another; what is installed comes first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        file = self.folder / f"{fullname}.py"
        if path is not None or "." in fullname or not file.is_file():
            return None
        return spec_from_file_location(fullname, file, loader=_Source(fullname, str(file)))


def serve(folder: Path) -> None:
    """Modules of this folder can be imported from now on, as they are now."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)] + [_Finder(folder)]
    for name, module in list(sys.modules.items()):
        if isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _Source):
            del sys.modules[name]


def load_module(path: Path, folder: Path) -> Any:
    check_syntax(read_source(path), path)
    # A name that no library has, and under which a dataclass finds its own module.
    name = f"{FOLDER.name}.{path.relative_to(folder).with_suffix('').as_posix().replace('/', '.')}"
    loader = _Source(name, str(path))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a loader is given"
    module = sys.modules[name] = module_from_spec(spec)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{place_of(error, folder) or path}: {said(error)}") from error
    return module


def place_of(error: BaseException, folder: Path) -> str | None:
    """File and line of the folder where an error came from, the innermost; None where it came from none."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(folder):
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_in(frame.filename, folder)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


def _is_in(file: str, folder: Path) -> bool:
    return Path(file).is_relative_to(folder) or Path(file).is_relative_to(folder.absolute())


def said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__

"""The pages of the documentation, and the scripts in docs/ as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def script(name: str, root: Path = ROOT) -> ModuleType:
    """A script of docs/, of this project or of a copy of it."""
    spec = importlib.util.spec_from_file_location(name, root / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Programs beside the package, as modules."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def loaded(*path):
    """The program at a path below the root of the project."""
    spec = importlib.util.spec_from_file_location(Path(path[-1]).stem, ROOT.joinpath(*path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

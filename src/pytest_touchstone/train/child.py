"""Starts a module of this package in an interpreter that need not have it installed: `python child.py MODULE ARGUMENT...`.

The training libraries often live in an environment of their own. Only this package is taken from where it is, never what lies beside
it, so that no library of the calling environment gets in. The folder of this file must not be importable (`python -P`,
PYTHONSAFEPATH): it has files named as libraries are.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

PACKAGE = "pytest_touchstone"


def main() -> None:
    """Run the module that the first argument names as the main program, with the other arguments."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    folder = here.parent
    spec = importlib.util.spec_from_file_location(PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    module = sys.argv[1]
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

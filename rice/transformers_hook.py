"""`import rice` makes transformers' Auto classes know our towers, without importing transformers or torch itself.

Registering needs both. So where transformers' Auto classes are not loaded yet, their module is registered with as soon
as somebody loads it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_AUTO = "transformers.models.auto.modeling_auto"
_OURS = "rice.encoders.transformers_model"


def install() -> None:
    """Register now, or when transformers' Auto classes are loaded."""
    if _AUTO in sys.modules:
        importlib.import_module(_OURS)
    elif not any(isinstance(finder, _AfterAuto) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterAuto())


class _AfterAuto(MetaPathFinder):
    """Finds nothing itself; lets the one module's own loader do its work, and registers after it."""

    _asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO or self._asking:
            return None
        self._asking = True  # the other finders are asked through the same door
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader, self)
        return spec


class _Registering(Loader):
    def __init__(self, loader: Loader, finder: _AfterAuto) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        importlib.import_module(_OURS)

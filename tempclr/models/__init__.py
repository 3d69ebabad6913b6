"""The model families, and how transformers' Auto classes come to know them."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar

# For each family, what each Auto class is to know: configurations, and the class made from a configuration.
FAMILIES: dict[str, dict[str, dict[str, str]]] = {
    "tempclr": {
        "AutoConfig": {
            "TempCLRConfig": "TempCLRConfig",
            "TempCLRTextConfig": "TempCLRTextConfig",
            "TempCLRVideoConfig": "TempCLRVideoConfig",
        },
        "AutoModel": {
            "TempCLRConfig": "TempCLRModel",
            "TempCLRTextConfig": "TempCLRTextModel",
            "TempCLRVideoConfig": "TempCLRVideoModel",
        },
        "AutoProcessor": {"TempCLRConfig": "TempCLRProcessor"},
    },
    "few_shot": {
        "AutoConfig": {"FewShotConfig": "FewShotConfig"},
        "AutoModel": {"FewShotConfig": "FewShotModel"},
    },
    "s3d": {
        "AutoConfig": {"S3DConfig": "S3DConfig", "S3DTextConfig": "S3DTextConfig", "S3DVideoConfig": "S3DVideoConfig"},
        "AutoModel": {"S3DConfig": "S3DModel", "S3DTextConfig": "S3DTextModel", "S3DVideoConfig": "S3DVideoModel"},
        "AutoProcessor": {"S3DConfig": "S3DProcessor"},
        "AutoTokenizer": {"S3DConfig": "S3DTokenizer"},
    },
    "tclr": {
        "AutoConfig": {"TCLRConfig": "TCLRConfig"},
        "AutoModel": {"TCLRConfig": "TCLRModel"},
        "AutoModelForVideoClassification": {"TCLRConfig": "TCLRForVideoClassification"},
    },
    "video_resnet": {
        "AutoConfig": {"VideoResNetConfig": "VideoResNetConfig"},
        "AutoModel": {"VideoResNetConfig": "VideoResNetModel"},
    },
}
AUTO_MODULES = {
    "AutoConfig": "transformers.models.auto.configuration_auto",
    "AutoModel": "transformers.models.auto.modeling_auto",
    "AutoModelForVideoClassification": "transformers.models.auto.modeling_auto",
    "AutoProcessor": "transformers.models.auto.processing_auto",
    "AutoTokenizer": "transformers.models.auto.tokenization_auto",
}


def register() -> None:
    """Make every family known to transformers' Auto classes; calling it again does no harm.

    Note [Registration waits]: registering a class imports it, and with it torch and transformers: seconds that
    ``import tempclr`` should not cost. So registering with an Auto class waits until somebody imports that class, and
    then for the end of the outermost import of transformers: modules our own models need may be half-way before it.
    """
    if not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())
    _register_with_imported()


def _register_with_imported() -> None:
    for auto_name, module_name in AUTO_MODULES.items():
        auto_class = getattr(sys.modules.get(module_name), auto_name, None)
        if auto_class is not None and auto_name not in _progress.done:
            _progress.done.add(auto_name)
            for family, auto_classes in FAMILIES.items():
                _register_family(family, auto_name, auto_class, auto_classes.get(auto_name, {}))


def _register_family(family: str, auto_name: str, auto_class: Any, classes: dict[str, str]) -> None:
    package = importlib.import_module(f"tempclr.models.{family}")
    for config_name, class_name in classes.items():
        config_class = getattr(package, config_name)
        key = config_class.model_type if auto_name == "AutoConfig" else config_class
        auto_class.register(key, getattr(package, class_name), exist_ok=True)


class _Progress(threading.local):
    """How many watched imports are under way in this thread; and, for all threads, what has been registered."""

    depth = 0
    looking = False
    done: ClassVar[set[str]] = set()


_progress = _Progress()


class _Waiting(MetaPathFinder):
    """Finds modules of transformers and of our models as everyone else does, but notices when their import ends."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        watched = fullname.startswith(("transformers.", "tempclr.models."))
        if not watched or _progress.looking or len(_progress.done) == len(AUTO_MODULES):
            return None
        _progress.looking = True
        try:
            spec = find_spec(fullname)
        finally:
            _progress.looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _NoticingLoader(spec.loader)
        return spec


class _NoticingLoader(Loader):
    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        _progress.depth += 1
        try:
            self.loader.exec_module(module)
        finally:
            _progress.depth -= 1
        if _progress.depth == 0:
            _register_with_imported()

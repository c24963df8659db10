"""The packages of edgebit[train], which nothing else of edgebit needs."""

from importlib.util import find_spec

from edgebit.errors import TrainError

PACKAGES = ("torch", "safetensors", "tokenizers")


def require_packages(names: tuple[str, ...] = PACKAGES) -> None:
    """Raise TrainError where one of the packages `names` is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        what = "'edgebit[train]'" if "torch" in missing else " ".join(missing)  # PyTorch is large
        raise TrainError(f"training needs {', '.join(missing)}, not installed here. Get it: pip install {what}")

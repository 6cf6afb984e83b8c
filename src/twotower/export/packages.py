"""The optional packages that export needs."""

import importlib.util

from twotower.errors import UserError

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "faiss", "safetensors")


def require(*names: str) -> None:
    """Look for packages before anything is computed.

    Raises:
        UserError: naming those that are missing and the command that installs them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed: pip install 'twotower[export]'")

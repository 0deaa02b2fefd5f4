"""Checkpoints that rebuild themselves: safetensors with the ``.arch`` text inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from archdsl.diagnostics import ArchError, Diagnostic

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.compiler.models.model import Model

FORMAT = "archdsl-1"


def save(model: Model, path: str | Path) -> None:
    """Write a model to ``path``; a file that is there already is replaced whole or not at all."""
    target = Path(path)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": FORMAT, "arch": model.arch.text, "hash": model.arch.hash}
    partial = target.with_name(f".{target.name}.partial")
    try:
        save_file(tensors, str(partial), metadata)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: str | Path, device: str = "cpu") -> Model:
    """The model of a checkpoint, in the dtype it was saved in.

    Raises:
        ArchError: the file is missing, is no checkpoint of archdsl's, or does not fit its own text.
    """
    import archdsl

    name = str(path)
    if not Path(path).is_file():
        raise _error("missing-file", f"there is no file `{name}`")
    try:
        with safe_open(name, "pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _error("not-a-checkpoint", f"`{name}` is not a safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise _error("not-a-checkpoint", f"`{name}` was not saved by archdsl")
    arch = archdsl.loads(metadata["arch"], name).sample(0)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    model = arch.compile(device=device, dtype=str(dtypes.pop()).removeprefix("torch."))
    odd = _misfit(model, tensors)
    if odd:
        raise _error("not-a-checkpoint", f"the weights in `{name}` do not fit its model: {odd}")
    return model


def _misfit(model: Model, tensors: dict[str, Tensor]) -> str:
    """Load the weights; what is wrong with them, if anything is."""
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # shapes
        return str(error).splitlines()[-1].strip()
    odd = missing or unexpected
    return f"`{odd[0]}` is {'missing' if missing else 'not one of them'}" if odd else ""


def _error(id: str, message: str) -> ArchError:
    return ArchError(Diagnostic(id, message, help="give a file that `model.save(path)` wrote"))

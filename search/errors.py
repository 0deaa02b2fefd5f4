"""What a user of the search may do something about, as the one kind of exception the command line shows."""

from __future__ import annotations

from archdsl.blocks.base import Kind
from archdsl.blocks.registry import names
from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean


def user_error(id: str, message: str, help: str, *notes: str) -> ArchError:
    """An error that lies in no place of a spec.

    Args:
        id: of its page in ``archdsl/explanations``.
        message: one sentence that stands alone.
        help: what to do instead.
        notes: what else helps to understand it.
    """
    return ArchError(Diagnostic(id=id, message=message, help=help, notes=notes))


def unknown_component(kind: Kind, name: str) -> ArchError:
    """What to tell the user of a command that names a component there is not."""
    known = names(kind)
    help = did_you_mean(name, known) or f"one of {', '.join(known)}"
    return user_error("unknown-component", f"there is no {kind} `{name}`", help)

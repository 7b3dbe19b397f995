"""What workflows say while they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["WorkflowEvent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowEvent:
    """An event of a workflow's stream, for ``output=`` of `stream`. Its errors are `StreamError`.

    Attributes:
        type: ``"submit"`` when a step begins, ``"completion"`` when it has ended, ``"output"`` for
            the result of the whole workflow; other words as they come.
        node_id: The step, for the first two.
        app_id: The endpoint id of the step's app, for ``"submit"``.
        request_id: The id of the step's request, for ``"submit"``.
        output: What the step came to, or the whole workflow.

    Example:
        >>> WorkflowEvent(type="completion", node_id="draw", output={"seed": 7}).output
        {'seed': 7}
    """

    type: str
    node_id: str | None = None
    app_id: str | None = None
    request_id: str | None = None
    output: Any = None

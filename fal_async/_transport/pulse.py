"""Whether the other side of a connection is alive."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pulse"]


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is known of the other side at one moment.

    Attributes:
        heard: How often something has arrived from it.
        taken: How many bytes the network has taken for it.
        waiting: How many bytes the network has not taken yet.
        is_heard: Whether what arrives is read; it is not while too much is held already.
    """

    heard: int
    taken: int
    waiting: int
    is_heard: bool

    def is_dead_since(self, asked: Pulse) -> bool:
        """Whether it would have answered by now a question that was put into the outbox then.

        A long message on a slow network may be in front of the question; as long as the network
        takes more of it, there is somebody who does.
        """
        is_moving = self.waiting > 0 and self.taken != asked.taken
        return self.heard == asked.heard and self.is_heard and not is_moving

"""Stand-in: System, Device and Queue.  There is no device: nothing was run on an MLU."""

from __future__ import annotations

import os
from types import TracebackType

from ._types import Status, answer


class _State:
    """What is open at the moment."""

    is_open = False
    active: int | None = None


STATE = _State()


class System:
    """The driver's session; devices are used inside its block."""

    def __enter__(self) -> System:
        STATE.is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        STATE.is_open = False
        STATE.active = None

    def device_count(self) -> int:
        """How many devices there pretend to be."""
        if not STATE.is_open:
            raise RuntimeError("System is used outside its block")
        return int(os.environ.get("FAKE_MAGICMIND_DEVICES", "1"))


class Queue:
    """Work handed to a device; results are there after ``sync``."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[RuntimeTensorLike] = []

    def sync(self) -> Status:
        """Wait for what was enqueued."""
        for tensor in self.waiting:
            tensor.is_ready = True
        self.waiting.clear()
        return answer("sync")


class RuntimeTensorLike:
    """What a queue knows of a tensor."""

    is_ready = False


class Device:
    """A device by number."""

    __slots__ = ("_id",)

    def __init__(self) -> None:
        self._id = 0

    @property
    def id(self) -> int:
        """Its number."""
        return self._id

    @id.setter
    def id(self, number: int) -> None:
        if type(number) is not int:
            raise TypeError(f"a device's id is an int, got {number!r}")
        self._id = number

    def active(self) -> Status:
        """Make it the device of this thread."""
        count = int(os.environ.get("FAKE_MAGICMIND_DEVICES", "1"))
        if not STATE.is_open or not 0 <= self._id < count:
            return answer("active", f"no device {self._id}, or no System open")
        STATE.active = self._id
        return answer("active")

    def create_queue(self) -> Queue | None:
        """A queue; None when the device is not active."""
        return Queue() if STATE.active == self._id else None

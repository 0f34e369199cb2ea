"""Transport streams (.ts) that recorders and users have joined, or that lack a part: where decoding resumes."""

from typing import TYPE_CHECKING, Any

from preprocessing.clip import RejectedInputError

if TYPE_CHECKING:
    import av


class Joins:
    """Decides, packet by packet, what is decoded. After a join or damage, that is the next keyframe and what follows.

    Args:
        resumable: whether decoding may resume at all, as it may in a transport stream.
    """

    part = 0
    """Number of times that decoding has resumed."""

    def __init__(self, *, resumable: bool) -> None:
        self.resumable = resumable
        self.fault: Exception | None = None
        """What was found since decoding last resumed."""
        self._clock: int | None = None
        self._held = False

    def accepts(self, packet: "av.Packet[Any]") -> bool:
        """Return whether to decode a packet."""
        if not self.resumable:
            return True
        before, self._clock = self._clock, self._clock if packet.dts is None else packet.dts
        went_back = before is not None and packet.dts is not None and packet.dts < before
        if packet.is_corrupt or (went_back and self.fault is None):
            self.fault = RejectedInputError("data is missing or damaged")
        if packet.is_corrupt:
            self._held = True
            return False
        if self.fault is None:
            return True
        if self._held and not went_back:  # libav marks the packet before the one that is cut
            self._held = False
            return False
        self._held = False
        if not packet.is_keyframe:
            return False
        self.fault = None
        self.part += 1
        return True

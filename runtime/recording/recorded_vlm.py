"""The VLM of a replay: what a remote one answered is taken from the recording, what was answered on board is computed.

A server is not asked again: it may be gone, serve another model by now, or answer the same question in other words.
"""

from __future__ import annotations

from collections.abc import Sequence

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.cancellation import Cancel, Cancelled, Unanswered
from memrt.runtime.policy.frame_features import FrameFeatures, Picture
from memrt.runtime.policy.remote.vlm import Answer
from memrt.runtime.policy.vlm import Reply, Vlm
from memrt.runtime.recording.messages import HighLevelAnswer


class RecordedVlm:
    """Implements `Vlm`. `expect` names the recorded call that is repeated next; one thread owns it."""

    def __init__(self, on_board: Vlm | None) -> None:
        """`on_board` is the bundle's VLM, None where it has none."""
        self._on_board = on_board
        self._expected: HighLevelAnswer | None = None

    def expect(self, answer: HighLevelAnswer) -> None:
        """The next call is the one that ended so."""
        self._expected = answer

    def generate(
        self,
        system: str,
        user: str,
        images: Sequence[Picture],
        max_new_tokens: int,
        *,
        cancelled: Cancel | None = None,
    ) -> Reply:
        """The recorded words where they were the remote's; else what the VLM on board says. Ends as the call did."""
        expected = self._expected
        if expected is not None and expected.cancelled:
            self.forget_prefix()  # as `RemoteVlm` did
            raise Cancelled
        if expected is not None and expected.answered_by == "remote":
            return Answer(text=expected.reply, answered_by="remote", missed=expected.missed)
        if self._on_board is None:
            raise Unanswered("nobody on board", {})
        return self._on_board.generate(system, user, images, max_new_tokens, cancelled=cancelled)

    def read_ahead(self, system: str, user: str, images: Sequence[Picture], *, cancelled: Cancel | None = None) -> int:
        """What the VLM on board read ahead then; it asked at least once whether it should go on."""
        if self._on_board is None or (self._expected is not None and self._expected.questions == 0):
            return 0
        return self._on_board.read_ahead(system, user, images, cancelled=cancelled)

    def features(self, image: Picture) -> FrameFeatures:
        """Those of the VLM on board. Raises MemrtError where there is none."""
        if self._on_board is None:
            raise MemrtError("vision features", expected="a VLM on board", found="none", fix="name its bundle")
        return self._on_board.features(image)

    def forget_prefix(self) -> None:
        """As of the VLM on board."""
        if self._on_board is not None:
            self._on_board.forget_prefix()

    def forget(self) -> None:
        """As of the VLM on board."""
        if self._on_board is not None:
            self._on_board.forget()

    @property
    def held_bytes(self) -> dict[str, int]:
        """As of the VLM on board."""
        return self._on_board.held_bytes if self._on_board is not None else {}

    def close(self) -> None:
        """Release the engines."""
        if self._on_board is not None:
            self._on_board.close()

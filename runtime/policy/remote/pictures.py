"""How a frame travels to a server: as a data URL, PNG or JPEG, encoded once however often it is shown."""

from __future__ import annotations

import base64
import io
from collections import OrderedDict

import numpy as np
from PIL import Image

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.store import JpegFrame
from memrt.runtime.policy.frame_features import MAX_FRAMES, FrameFeatures, Picture, ShownImage
from memrt.runtime.remote_config import RemoteConfig
from memrt.runtime.types import ImageArray

MAX_BYTES = 32 << 20  # of the frames kept; MemER's 16 of 352x320 take 4 MB as PNG
_PNG_LEVEL = 1  # zlib's fastest: a tenth larger, several times as fast


class PictureUrls:
    """Data URLs of frames. Those that may be shown again are kept, the 32 used last, in at most 32 MiB."""

    def __init__(self, config: RemoteConfig) -> None:
        self._format, self._quality = config.image_format, config.jpeg_quality
        self._kept: OrderedDict[int, str] = OrderedDict()  # by content, used longest ago first
        self.nbytes = 0

    def url(self, picture: Picture) -> str:
        """The data URL of a frame, uint8 [height, width, 3], RGB. Raises MemrtError for one without its pixels."""
        if isinstance(picture, FrameFeatures):
            raise MemrtError(
                "frame for a VLM that is served elsewhere",
                expected="pixels",
                found="vision features",
                fix="set `memory.keyframes.keep: jpeg`",
            )
        if not isinstance(picture, ShownImage):
            return self._encoded(picture)
        if picture.content in self._kept:
            self._kept.move_to_end(picture.content)
            return self._kept[picture.content]
        url = self._encoded(picture.load())
        self._kept[picture.content] = url
        self.nbytes += len(url)
        while self._kept and (len(self._kept) > MAX_FRAMES or self.nbytes > MAX_BYTES):
            self.nbytes -= len(self._kept.popitem(last=False)[1])
        return url

    def forget(self) -> None:
        """Drop them all."""
        self._kept.clear()
        self.nbytes = 0

    def _encoded(self, image: ImageArray) -> str:
        data = self._png(image) if self._format == "png" else JpegFrame.compress(image, 0, self._quality).data
        return f"data:image/{self._format};base64,{base64.b64encode(data).decode('ascii')}"

    @staticmethod
    def _png(image: ImageArray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=_PNG_LEVEL)
        return file.getvalue()

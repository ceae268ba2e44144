"""Follows objects that all look alike from one description to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memrt.train.labels.scene_text import Pixel, distance

STILL = 1.5  # pixels between two descriptions: rounding alone
OFF_ITS_PLACE = 2.5  # pixels from where it rested


@dataclass(frozen=True, slots=True)
class Track:
    """One object: where it is, how it moved since the description before, and where it last rested, if it has."""

    at: Pixel
    moved: Pixel = (0, 0)
    rested: Pixel | None = None

    @property
    def expected(self) -> Pixel:
        """Where it is next if it moves on as it did."""
        return self.at[0] + self.moved[0], self.at[1] + self.moved[1]

    @property
    def resting(self) -> bool:
        """Whether it is where it last rested; a nudge is not enough to leave that place."""
        return self.rested is not None and distance(self.at, self.rested) <= OFF_ITS_PLACE

    @property
    def place(self) -> Pixel:
        """Where it rests, or where it is on its way."""
        return self.rested if self.rested is not None and self.resting else self.at

    def to(self, pixel: Pixel) -> Track:
        """The same object in the next description."""
        moved = Track(pixel, (pixel[0] - self.at[0], pixel[1] - self.at[1]), self.rested)
        still = distance(pixel, self.at) <= STILL
        return replace(moved, rested=pixel) if still and not moved.resting else moved


def follow(tracks: Sequence[Track], pixels: Sequence[Pixel]) -> tuple[Track, ...]:
    """The tracks after the next description; each is given the pixel nearest to where it was expected.

    The best pair goes first, so that what rests is certain before anything moving is looked for. Pixels that are left
    begin new tracks at the end; a track that is left stays where it is.
    """
    pairs = sorted(
        (distance(track.expected, pixel), number, index)
        for number, track in enumerate(tracks)
        for index, pixel in enumerate(pixels)
    )
    found: dict[int, int] = {}
    for _, number, index in pairs:
        if number not in found and index not in found.values():
            found[number] = index
    after = [track.to(pixels[found[n]]) if n in found else track for n, track in enumerate(tracks)]
    new = [Track(pixel) for index, pixel in enumerate(pixels) if index not in found.values()]
    return (*after, *new)

"""One pass over the frames of a split: numbers of every frame, and a few frames as they are."""

from collections.abc import Iterable

import numpy as np

from mlip.data.check_work import WorkPairs
from mlip.data.digest import Digest, Digester
from mlip.data.frame import Frame
from mlip.data.thinned import Thinned, Values


class Survey:
    """What the checks and the page know of a split after one pass, bounded but for the digests.

    Args:
        held: Frames, evenly spread, that are there to choose from at the end.

    Attributes:
        digests: One for each frame, under a kilobyte.
        pairs: Neighbouring frames, for the work between them.
        forces: Lengths of forces, eV/Å.
        charges: Partial charges, e.
        held: Frames, evenly spread, that a reference potential may be asked about.
    """

    def __init__(self, held: int = 64) -> None:
        self.digests: list[Digest] = []
        self.pairs = WorkPairs()
        self.forces, self.charges = Values(), Values()
        self.held: Thinned[Frame] = Thinned(2 * held)
        self._digester = Digester()

    def add(self, frame: Frame) -> None:
        """Look at one more frame."""
        digest = self._digester(frame)
        self.digests.append(digest)
        if not digest.fingerprint:
            return
        self.pairs.add(frame)
        self.held.add(frame)
        if "forces" in frame.labels:
            self.forces.add(np.linalg.norm(frame.labels["forces"], axis=1))
        if "charges" in frame.labels:
            self.charges.add(frame.labels["charges"])


def survey(frames: "Iterable[Frame] | Survey") -> Survey:
    """Return what one pass over the frames tells; a survey is returned as it is."""
    if isinstance(frames, Survey):
        return frames
    found = Survey()
    for frame in frames:
        found.add(frame)
    return found

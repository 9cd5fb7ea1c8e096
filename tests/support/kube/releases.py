"""Earlier releases as users have them: the operator's packages and the chart."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

RELEASES = Path(__file__).parents[2] / "data/releases"


@dataclass(frozen=True)
class Release:
    """An unpacked release."""

    version: str
    folder: Path

    @property
    def packages(self) -> Path:
        """PYTHONPATH of its operator."""
        return self.folder / "operator"

    @property
    def chart(self) -> Path:
        """Its chart."""
        return self.folder / "charts/hatchery"


def unpack(version: str, folder: Path) -> Release:
    """Unpacks a release into a folder."""
    with tarfile.open(RELEASES / f"hatchery-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return Release(version, folder)

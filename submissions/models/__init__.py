"""What participants enter: teams, submissions with their uploads and steps, releases, duels, standings."""

from submissions.models.arrivals import Push, Upload
from submissions.models.boards import Exposure, Reckoning, Standing
from submissions.models.controls import Control, Twin
from submissions.models.core import Duel, Membership, Release, Step, Submission, Team

__all__ = [
    "Control",
    "Duel",
    "Exposure",
    "Membership",
    "Push",
    "Reckoning",
    "Release",
    "Standing",
    "Step",
    "Submission",
    "Team",
    "Twin",
    "Upload",
]

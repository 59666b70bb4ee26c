"""Who may do what with an entry. DESIGN 5 is the table behind it."""

from typing import Any

import rules

from submissions.models import Submission


@rules.predicate
def is_team_member(user: Any, submission: Submission | None) -> bool:
    return bool(
        submission is not None
        and user.is_authenticated
        and submission.team_id is not None
        and submission.team is not None
        and submission.team.memberships.filter(user=user).exists()
    )


@rules.predicate
def is_organiser(user: Any, submission: Submission | None) -> bool:
    return bool(submission is not None and submission.challenge.is_organiser(user))


@rules.predicate
def belongs_to_organisers(user: Any, submission: Submission | None) -> bool:
    return submission is not None and submission.team_id is None


rules.add_perm("submissions.view_submission", is_team_member | is_organiser)
rules.add_perm("submissions.change_submission", is_team_member | (is_organiser & belongs_to_organisers))
rules.add_perm("submissions.view_private_log", is_organiser)

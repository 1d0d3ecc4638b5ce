from .questions_from_picks import questions_from_feedback as questions_from_feedback
from .tally import Tally as Tally
from .vote_log import Votes as Votes

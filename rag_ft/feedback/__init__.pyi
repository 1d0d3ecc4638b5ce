from .questions_from_picks import questions_from_feedback as questions_from_feedback
from .shown_query import ShownResults as ShownResults
from .tally import Tally as Tally
from .vote_log import Votes as Votes

from .comparison import Comparison as Comparison
from .next_round import NextRound as NextRound
from .next_round import prepare_next_round as prepare_next_round
from .next_round import write_regressions as write_regressions
from .rank_changes import RankChange as RankChange
from .rank_changes import compute_rank_changes as compute_rank_changes
from .runs.candidates import Hybrid as Hybrid
from .runs.dev_fusion import learn_fusion_of as learn_fusion_of

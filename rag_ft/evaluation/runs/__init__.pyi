from .candidate_runner import CandidateRunner as CandidateRunner
from .candidates import Hybrid as Hybrid
from .dev_fusion import learn_fusion_of as learn_fusion_of
from .run import Run as Run

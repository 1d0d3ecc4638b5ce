from .answers import JudgedAnswers as JudgedAnswers
from .answers import ajudge_answers as ajudge_answers
from .answers import judge_answers as judge_answers
from .query_engine import ABQueryEngine as ABQueryEngine
from .retriever import ABRetriever as ABRetriever
from .sessions import ab_session as ab_session
from .vote_verdict import judge_votes as judge_votes

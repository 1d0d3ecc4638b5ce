from .filters import Filters as Filters
from .filters import filter_questions as filter_questions
from .generate import agenerate_qa_dataset as agenerate_qa_dataset
from .generate import generate_qa_dataset as generate_qa_dataset
from .llm_questions import questions_from_llm as questions_from_llm
from .local_llm import LocalLLM as LocalLLM
from .question_options import QuestionOptions as QuestionOptions

from .html import write_report as write_report
from .markdown import to_markdown as to_markdown
from .query_table import write_questions as write_questions

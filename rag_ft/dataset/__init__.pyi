from .formats.beir import read_beir as read_beir
from .formats.beir import write_beir as write_beir
from .formats.from_pairs import dataset_from_pairs as dataset_from_pairs
from .formats.labelled_pairs import LabelledPair as LabelledPair
from .formats.labelled_pairs import read_labelled_pairs as read_labelled_pairs
from .formats.llama_index_json import (
    read_llama_index_json as read_llama_index_json,
)
from .formats.llama_index_json import (
    write_llama_index_json as write_llama_index_json,
)
from .formats.load import load_dataset as load_dataset
from .formats.real_questions import RealQuestion as RealQuestion
from .formats.real_questions import read_questions as read_questions
from .inspection import Inspection as Inspection
from .inspection import inspect_dataset as inspect_dataset
from .merging import merge_datasets as merge_datasets
from .qa_dataset import Passage as Passage
from .qa_dataset import QADataset as QADataset
from .qa_dataset import Query as Query
from .qa_dataset import ScoredPair as ScoredPair
from .review import (
    Review as Review,
)
from .review import (
    export_questions as export_questions,
)
from .review import (
    import_review as import_review,
)
from .review import (
    review_folder as review_folder,
)
from .splitting import hold_out_dev as hold_out_dev

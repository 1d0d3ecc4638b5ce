"""rag_ft: fine-tune the embedding model of a LlamaIndex application, and prove that retrieval got better."""

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query

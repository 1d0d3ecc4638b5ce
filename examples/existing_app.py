"""An existing LlamaIndex app of ten lines, with one changed line.

python examples/existing_app.py examples/acme_policies/documents runs/acme/model "Who signs off a far Lantern?"
"""

import sys

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.llms import MockLLM

from rag_ft import FineTunedEmbedding

documents, model, question = sys.argv[1:4]
Settings.llm = MockLLM()  # your LLM here
Settings.embed_model = FineTunedEmbedding.load(model)  # the changed line
index = VectorStoreIndex.from_documents(SimpleDirectoryReader(documents, recursive=True).load_data())
response = index.as_query_engine(similarity_top_k=3).query(question)
for found in response.source_nodes:
    print(f"{found.score:.3f}  {found.metadata['file_name']}  {found.text[:80]!r}")

from .reader import cut_into_nodes as cut_into_nodes
from .reader import read_documents as read_documents

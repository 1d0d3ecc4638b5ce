from .nodes import DocumentNodes as DocumentNodes
from .nodes import cut_into_nodes as cut_into_nodes
from .nodes import passages_from_nodes as passages_from_nodes
from .reader import read_documents as read_documents

from .build import open_index as open_index
from .build import rebuild_index as rebuild_index
from .build import update_index as update_index
from .live_store import LiveChromaStore as LiveChromaStore
from .maintenance import prune_index as prune_index
from .maintenance import rollback_index as rollback_index
from .nodes import nodes_from_chroma as nodes_from_chroma

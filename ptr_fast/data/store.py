"""Episodes on disk: every frame once, appended in immutable parts, read by memory map without a copy.

Record ``first[e] + t`` is frame ``t`` of episode ``e``; the next frame is the next record. The layout on disk is in
``store_meta`` (note "store layout"). :class:`StoreWriter` makes what :class:`EpisodeStore` reads.
"""

from ptr_fast.data.store_meta import Episode, StoreMeta
from ptr_fast.data.store_reader import EpisodeStore, EpisodeTable
from ptr_fast.data.store_writer import StoreWriter

__all__ = ["Episode", "EpisodeStore", "EpisodeTable", "StoreMeta", "StoreWriter"]

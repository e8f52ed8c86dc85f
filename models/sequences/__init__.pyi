from ._own_pointer import OwnPointer as OwnPointer
from .next_place import Adjacency as Adjacency
from .sasrec import Encoder as Encoder
from .sasrec import Ranking as Ranking
from .sasrec import SideBySide as SideBySide
from .sasrec import SingularVectors as SingularVectors
from .unisrec import Experts as Experts

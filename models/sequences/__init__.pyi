from .sasrec import SideBySide as SideBySide
from .sasrec import SingularVectors as SingularVectors

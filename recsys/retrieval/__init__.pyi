from .divided import DividedIndex as DividedIndex
from .faiss import FaissIndex as FaissIndex
from .index import ExactIndex as ExactIndex
from .index import ItemIndex as ItemIndex
from .index import VectorIndex as VectorIndex
from .lists import TopK as TopK
from .lists import top_k as top_k

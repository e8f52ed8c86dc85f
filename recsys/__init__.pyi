from .checkpoint import load as load
from .embedding import EmbeddingTable as EmbeddingTable
from .evaluate import compare as compare
from .evaluate import evaluate as evaluate
from .events import EventLog as EventLog
from .retrieval import ExactIndex as ExactIndex
from .retrieval import FaissIndex as FaissIndex
from .retrieval import ItemIndex as ItemIndex
from .splits import Split as Split
from .vocab import Vocabulary as Vocabulary

__version__: str

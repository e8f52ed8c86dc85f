from .evaluation.ranking import evaluate as evaluate
from .evaluation.statistics import compare as compare
from .interactive.comparison import benchmark as benchmark
from .interactive.fitted import fit as fit
from .log.event_log import EventLog as EventLog
from .log.vocabulary import Vocabulary as Vocabulary
from .nn.embedding import EmbeddingTable as EmbeddingTable
from .retrieval.faiss import FaissIndex as FaissIndex
from .retrieval.index import ExactIndex as ExactIndex
from .retrieval.index import ItemIndex as ItemIndex
from .scoring.saved_model import load as load
from .tasks.splits import Split as Split

__version__: str

from .item_knn import ItemKNN as ItemKNN
from .markov import Markov as Markov
from .text_tfidf import TextTFIDF as TextTFIDF
from .tifuknn import TIFUKNN as TIFUKNN
from .up_cf import UPCF as UPCF

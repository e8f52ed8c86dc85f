from .decoders import Decoder as Decoder
from .decoders import Pretrained as Pretrained
from .lmrec import Language as Language
from .lmrec import Ranking as Ranking

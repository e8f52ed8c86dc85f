from .decoders import Decoder as Decoder
from .decoders import Pretrained as Pretrained
from .lmrec import Ids as Ids
from .lmrec import Language as Language
from .lmrec import Ranking as Ranking
from .lmrec import Tuning as Tuning

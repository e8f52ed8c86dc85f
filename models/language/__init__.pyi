from ._added import FrozenTexts as FrozenTexts
from ._objectives import Language as Language
from ._objectives import Ranking as Ranking
from .decoders import Attention as Attention
from .decoders import Decoder as Decoder
from .decoders import Pretrained as Pretrained
from .lmrec import Ids as Ids
from .lmrec import Tuning as Tuning

from .event_log import EventLog as EventLog
from .filters import filtered as filtered
from .frames import as_polars as as_polars
from .hashing import fingerprint as fingerprint
from .time import moment as moment
from .vocabulary import Vocabulary as Vocabulary
from .words import LogTexts as LogTexts
from .words import Template as Template

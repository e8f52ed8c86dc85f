from . import sources as sources
from .audit import audit as audit
from .audit import describe as describe
from .audit import statistics as statistics
from .cache import cached as cached
from .graphs import snapshots as snapshots
from .graphs import temporal_data as temporal_data

from .comparison import Benchmark as Benchmark
from .comparison import benchmark as benchmark
from .fitted import FittedModel as FittedModel
from .fitted import fit as fit

from ._weightings import InverseFrequency as InverseFrequency
from ._weightings import Shapley as Shapley
from ._weightings import TransferGap as TransferGap
from ._weightings import Uniform as Uniform
from .cross_domain import Readings as Readings
from .encgan import Terms as Terms

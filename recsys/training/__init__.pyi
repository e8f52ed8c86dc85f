from .loop import fit as fit
from .minimise import Minimiser as Minimiser
from .options import TrainingOptions as TrainingOptions

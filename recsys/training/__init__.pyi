from .loop import fit as fit
from .options import Training as Training

from .bpr_mf import BPRMF as BPRMF
from .count_vae import CountVAE as CountVAE
from .ease import EASE as EASE
from .ials import IALS as IALS

from .blend import Blend as Blend
from .hybrid import Hybrid as Hybrid

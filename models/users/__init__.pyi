from .shopperbert import Encoder as Encoder
from .shopperbert import Pretext as Pretext
from .shopperbert import Product as Product

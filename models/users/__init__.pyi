from .shopperbert import Encoder as Encoder
from .shopperbert import ShopperBERT as ShopperBERT

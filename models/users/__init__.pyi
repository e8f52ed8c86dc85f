from .shopperbert import Encoder as Encoder

"""The best k of a catalogue: by scores, by exact search among vectors, by FAISS."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

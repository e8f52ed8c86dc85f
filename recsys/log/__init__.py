"""A behaviour log: validated tables of events, items and users. Knows no tensors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

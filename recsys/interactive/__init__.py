"""What one calls from Python and in notebooks: models fitted on a log or a frame, compared."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The zoo: one model, one file. ``from recsys.models import EASE``; the table is in README.md."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if __name__ != "recsys.models":
    raise ImportError(f"import recsys.models, not {__name__}")

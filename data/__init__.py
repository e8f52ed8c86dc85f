"""From raw files to batches: sources of logs, views of them, and what is odd about a log."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if __name__ != "recsys.data":
    raise ImportError(f"import recsys.data, not {__name__}")

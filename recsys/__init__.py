"""A recommender-system research framework: a log in, an honest table out.

The public names are listed in ``__init__.pyi`` and imported on first use, so that the command
line starts without waiting for torch.
"""

from pathlib import Path

import lazy_loader

from recsys import threads

__version__ = "0.1.0"

for _link in ("models", "data", "conf"):
    if not (Path(__file__).parent / _link).is_dir():
        raise ImportError(
            f"recsys/{_link} is not a folder: this checkout lost its symbolic links; run "
            "`git config core.symlinks true && git checkout -- recsys` (on Windows with developer "
            "mode on), or install the package with `pip install .` on a system that has them"
        )

threads.configure()
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "__version__"])


def __dir__() -> list[str]:
    return __all__

"""The choices: Hydra's `pkg://recsys.conf`, which asks for this file."""

if __name__ != "recsys.conf":
    raise ImportError(f"import recsys.conf, not {__name__}")

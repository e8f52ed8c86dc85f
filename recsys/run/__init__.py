"""From a composed config to a run's folder."""

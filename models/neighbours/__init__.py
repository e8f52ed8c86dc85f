"""Items and users that are alike."""

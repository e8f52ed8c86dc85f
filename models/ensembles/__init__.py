"""models.ensembles."""

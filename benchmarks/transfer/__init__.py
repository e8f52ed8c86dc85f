"""Several domains: what mixing does, and models that know of domains."""

"""Scripts that rebuild published tables and compare speed, with their records."""

import recsys  # noqa: F401  # before torch: it sets how threads wait

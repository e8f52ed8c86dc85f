from .candidate_size import CandidateSize as CandidateSize
from .fine_tuned import FineTuned as FineTuned
from .lightgbm import LightGBM as LightGBM
from .logistic_regression import LogisticRegression as LogisticRegression
from .mlp import MLP as MLP
from .new_ease import NewEASE as NewEASE
from .new_popularity import NewPopularity as NewPopularity
from .own_purchases import OwnPurchases as OwnPurchases

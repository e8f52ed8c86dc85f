from .contracts import ModelContract as ModelContract
from .contracts import PredictorContract as PredictorContract
from .logs import checkerboard as checkerboard
from .logs import colour_question as colour_question
from .logs import new_item_question as new_item_question

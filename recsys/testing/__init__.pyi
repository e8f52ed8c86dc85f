from .contracts import ModelContract as ModelContract
from .contracts import PredictorContract as PredictorContract
from .logs import checkerboard as checkerboard
from .logs import colour_table as colour_table
from .logs import new_item_table as new_item_table
from .survival import SurvivalContract as SurvivalContract
from .survival import gaps_and_noise as gaps_and_noise

from .contracts import ModelContract as ModelContract
from .contracts import PredictorContract as PredictorContract
from .forecasters import ForecasterContract as ForecasterContract
from .forecasters import weekly_series as weekly_series
from .logs import checkerboard as checkerboard
from .logs import colour_table as colour_table
from .logs import new_item_table as new_item_table

from .dnntsp import DNNTSP as DNNTSP
from .dynamic_graph import DynamicGraph as DynamicGraph
from .gloie import GLOIE as GLOIE

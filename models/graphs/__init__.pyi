from .dynamic_graph import DynamicGraph as DynamicGraph
from .gloie import Alike as Alike
from .gloie import Autoencoder as Autoencoder
from .gloie import Frequency as Frequency
from .gloie import Graph as Graph
from .gloie import Join as Join
from .gloie import Ranking as Ranking

from .dynamic_graph import DynamicGraph as DynamicGraph

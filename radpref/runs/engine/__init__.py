"""Where the work is done: this process, those that torchrun or accelerate launch starts, or a Ray cluster."""

from radpref.config import Recipe
from radpref.rooms import ray_engine
from radpref.runs.engine.local import Engine, Local, Processes, started

__all__ = ["Engine", "Local", "Processes", "engine_of", "started"]


def engine_of(recipe: Recipe) -> Engine:
    """The engine that a recipe asks for. Raises EngineError where its package or its cluster is not there."""
    if recipe.engine.name == "ray":
        return ray_engine.connect(recipe.engine)
    return Local(started(recipe.run.device))

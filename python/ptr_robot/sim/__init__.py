"""Toy kitchens in simulation: tasks, kitchens, scripted experts, demonstrations and trials.

Importing the package registers the environment ``ptr_robot/Kitchen-v0`` where gymnasium is installed; mujoco is
imported when the first environment is made.
"""

from importlib.util import find_spec

if find_spec("gymnasium") is not None:
    from gymnasium.envs.registration import register

    register(id="ptr_robot/Kitchen-v0", entry_point="ptr_robot.sim.environment:KitchenEnv")

"""Environments are made once per module: an OpenGL context and a compiled model each."""

import pytest

pytest.importorskip("metaworld", reason="the toy kitchens need the extra 'sim' (metaworld, mujoco)")


@pytest.fixture(scope="session")
def put_env():
    from ptr_robot.sim.environment import make_environment

    env = make_environment("put block on plate", "B", image_size=32)
    yield env
    env.close()

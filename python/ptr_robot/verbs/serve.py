"""Serve a checkpoint's actions over a websocket, in openpi's protocol.

A request is a map with ``observation/image`` (uint8 [H, W, 3] RGB of any size), ``observation/state`` (float [S]) and
``prompt`` (a task of the checkpoint); the answer has ``actions`` (float32 [H, A], in the checkpoint's units: for this
control period and the next ones) and ``server_timing``. Of a checkpoint with several cameras the first is
``observation/image`` and each other one ``observation/NAME_image``, e.g. ``observation/wrist_image``, unless
--camera-map says otherwise. A checkpoint that looks at T observations takes frames [T, H, W, 3] and states [T, S], the
oldest first; a single observation stands for all of them. openpi-client's ``ActionChunkBroker`` takes the metadata's
``action.horizon``, or less, as its ``action_horizon``. Where a checkpoint draws noise to act (modes sample and search),
``seed`` (an integer from 0) names the noise of a request; without it every request has another.
``GET /healthz`` answers OK.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from ptr_fast.types import MAX_SEED, CameraSpec
from ptr_robot.acting_options import ActingOptions
from ptr_robot.serving.request_keys import PROMPT, SEED, STATE, image_keys
from ptr_robot.steering.options import NOT_WITH_STEER, SteeringOptions

__all__ = ["Args", "image_keys", "main", "make_infer", "metadata_of"]

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        checkpoint: Run (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint.
        host: Address to listen on. Other machines can only ask where this is not a local address; then a token is
            needed.
        port: TCP port; 0 takes a free one and prints it.
        token: Clients must send it (Authorization: Api-Key TOKEN). Default: the environment's PTR_FAST_TOKEN.
        tls_cert: Certificate chain, PEM; with tls-key the server speaks wss.
        tls_key: Private key, PEM.
        device: Where the policy runs; auto takes a GPU where there is one and the engine runs on it.
        engine: What computes the actions: auto the fastest one installed that agrees with eager, and says which; eager
            the very numbers of training; onnxruntime, openvino, compile, cuda_graph on a GPU, or a file of ptr-fast
            export (with --int8 the fastest).
        frame_size: Height and width of the clients' frames, e.g. 480 640: the engine is made ready for them. Frames of
            other sizes are resized as training's were to the checkpoint's own size before they reach it.
        camera_map: KEY=CHECKPOINT pairs: the request's key of a camera of the checkpoint, where clients have names of
            their own, e.g. observation/exterior_image_1_left=front.
        max_connections: Clients at once.
        max_message_mib: Largest message, MiB.
        idle_s: A silent client is dropped after so many seconds.
        acting: How the checkpoint acts, where it is to be otherwise than it says itself.
        steering: Another policy proposes, the checkpoint's critic chooses.
    """

    checkpoint: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: str = "auto"
    frame_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="HEIGHT WIDTH")] = None
    camera_map: tuple[str, ...] = ()
    max_connections: int = 8
    max_message_mib: float = 8.0
    idle_s: float = 600.0
    acting: Annotated[ActingOptions, tyro.conf.arg(name="")] = ActingOptions()
    steering: Annotated[SteeringOptions, tyro.conf.arg(name="")] = SteeringOptions()


def main(args: Args) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    from ptr_fast.runtime.kept_models import folder
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.device import pick_device
    from ptr_robot.report.runs import told_search
    from ptr_robot.serving.protocol import check_token
    from ptr_robot.serving.server import Limits, PolicyServer
    from ptr_robot.steering.steered import load_steered, resolved

    token = args.token or os.environ.get("PTR_FAST_TOKEN", "")
    if args.host not in LOCAL and not token:
        raise ValueError(f"host {args.host!r} lets other machines in: set a token (--token or PTR_FAST_TOKEN)")
    check_token(token)
    if not 0 <= args.port < 65536:
        raise ValueError(f"port: expected 0 to 65535, got {args.port}")
    for name in ("max_message_mib", "max_connections", "idle_s"):
        value = getattr(args, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name.replace('_', '-')}: expected a positive number, got {value:g}")
    if args.frame_size is not None and min(args.frame_size) < 1:
        raise ValueError(f"frame-size: expected a height and a width above 0, got {list(args.frame_size)}")
    args.steering.check()
    if args.steering.steer:
        args.acting.refuse(NOT_WITH_STEER)
        for name, given in (("engine", args.engine != "auto"), ("frame-size", args.frame_size)):
            if given:
                raise ValueError(f"--{name} {NOT_WITH_STEER}")
    tls = _tls(args)
    check_port(args.host, args.port)
    begin = time.monotonic()
    checkpoint = chosen_checkpoint(args.checkpoint, moves_an_arm=True)
    device = pick_device(args.device, args.engine)
    policy: Any
    if args.steering.steer:
        policy = load_steered(checkpoint, resolved(args.steering, moves_an_arm=True), device)
        told = f"its critic chooses among {args.steering.steer_proposals} proposals of {policy.source.name}"
        print(f"{checkpoint}: {told}", flush=True)
    else:
        policy = args.acting.load(checkpoint, device, args.engine)
        print(f"{checkpoint}: making it act; what is exported for that, once, is kept in {folder()}", flush=True)
    keys = image_keys([camera.name for camera in policy.spec.cameras], args.camera_map)
    infer = make_infer(policy, args.frame_size, keys)
    if args.frame_size is not None:
        policy.warm_up(dict.fromkeys(keys, args.frame_size))
    policy.warm_up()
    limits = Limits(
        message_bytes=int(args.max_message_mib * 2**20), connections=args.max_connections, idle_s=args.idle_s
    )
    steered = steered_by(args.steering, policy) if args.steering.steer else None
    metadata = metadata_of(policy, keys, steered)
    server = PolicyServer(infer, metadata, limits, token, log=lambda line: print(line, flush=True))
    print(f"ready after {time.monotonic() - begin:.1f} s", flush=True)
    told = f"{policy.info.path} ({policy.mode}{told_search(metadata)}, {policy.explain()})"
    asyncio.run(_run(server, args, tls, told))
    if args.steering.steer:
        print(f"steering: {policy.log.line()}", flush=True)
    return 0


async def _run(server: Any, args: Args, tls: ssl.SSLContext | None, told: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with await server.start(args.host, args.port, tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        scheme = "wss" if tls else "ws"
        host = f"[{args.host}]" if ":" in args.host else args.host
        where = f"{scheme}://{host}:{port}"
        print(f"{told} on {where}; Ctrl-C stops", flush=True)
        await stop.wait()
    server.close()
    print(f"stopped after {server.num_requests} requests", flush=True)


def check_port(host: str, port: int) -> None:
    """Says at once that a server cannot listen there, before anything is made ready for it.

    Raises:
        OSError: no such address, or the port is taken or not permitted; names both. ValueError: no name of a host.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for number, (family, kind, protocol, _, address) in enumerate(places):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind(address)
                except OSError as error:  # a name may have an address of IPv6 where there is no IPv6
                    if error.errno != errno.EADDRNOTAVAIL or number == len(places) - 1:
                        raise
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    except UnicodeError as error:
        raise ValueError(f"cannot listen on {host} port {port}: {error}") from error


def make_infer(policy: Any, frame_size: tuple[int, int] | None = None, keys: Mapping[str, str] | None = None) -> Any:
    """``request map -> answer map`` of a policy. ValueError names the key, what was expected and what came.

    Frames of any size are shown as they are to a policy that takes them (``takes_any_size``). An engine is made for
    frames of one size, which takes seconds; so that no client makes the others wait, there are two: for ``frame_size``
    and for the checkpoint's own.

    Args:
        frame_size: height and width of the clients' frames, pixels.
        keys: camera of the checkpoint -> key of its frames; None takes :func:`image_keys`.
    """
    from ptr_fast.runtime.observation import Observation
    from ptr_fast.runtime.preprocess import fit_frame

    spec, past = policy.spec, policy.window.num_observations
    keys = keys or image_keys([camera.name for camera in spec.cameras])
    needed = (*keys.values(), STATE, PROMPT)
    own_seeds = count()

    def frames_of(request: Mapping[str, Any], camera: CameraSpec) -> np.ndarray:
        key, image = keys[camera.name], np.asarray(request[keys[camera.name]])
        frames = image[None] if image.ndim == 3 else image
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"{key}: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        if policy.takes_any_size or frames.shape[1:3] == frame_size:
            return frames
        return np.stack([fit_frame(frame, camera) for frame in frames])

    def infer(request: Mapping[str, Any]) -> dict[str, Any]:
        missing = [key for key in needed if key not in request]
        if missing:
            given = [key for key in request if isinstance(key, str)][:16]
            raise ValueError(f"the request has no {missing[0]!r}; it needs {', '.join(needed)}, it has {given}")
        frames, given_state = {c.name: frames_of(request, c) for c in spec.cameras}, np.asarray(request[STATE])
        states = given_state[None] if given_state.ndim == 1 else given_state
        if states.ndim != 2 or states.shape[1] != spec.state.dim or states.dtype.kind not in "fiu":
            got = f"{given_state.dtype} {list(given_state.shape)}"
            raise ValueError(f"{STATE}: expected {spec.state.dim} numbers, got {got}")
        lengths = {len(states), *map(len, frames.values())}
        if len(lengths) > 1 or max(lengths) > past:
            told = f"expected as many frames as states, 1 to {past}"
            raise ValueError(f"observations: {told}, got {[len(states), *map(len, frames.values())]}")
        prompt = request[PROMPT]
        if not isinstance(prompt, str):
            raise ValueError(f"{PROMPT}: expected the name of a task, got {type(prompt).__name__}")
        seed = request[SEED] if SEED in request else next(own_seeds)
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"{SEED}: expected an integer from 0 to {MAX_SEED}, got {seed!r:.40}")
        seen = [
            Observation({name: each[t] for name, each in frames.items()}, state.astype(np.float32), prompt)
            for t, state in enumerate(states)
        ]
        actions, _ = policy.act(seen[-1], tuple(seen[:-1]), seed=int(seed))
        return {"actions": actions}

    return infer


def steered_by(options: SteeringOptions, policy: Any) -> dict[str, Any]:
    """What identifies who proposes and how it is chosen; of a path its end, as clients need not know where it lies."""
    by = options.steer if "://" in options.steer else "/".join(Path(options.steer).parts[-2:])
    return {**options.told(policy.source.identity), "by": by}


def metadata_of(
    policy: Any, keys: Mapping[str, str] | None = None, steered: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a client needs to know before it asks; ``image`` is the first of ``images``, where there are any.

    Args:
        keys: of the cameras' frames in a request. steered: :func:`steered_by` of a policy that a critic steers.
    """
    from ptr_fast.checkpoint import weights_digest
    from ptr_fast.runtime.policy import Policy

    spec = policy.spec
    keys = keys or image_keys([camera.name for camera in spec.cameras])
    images = [
        {"key": keys[camera.name], "height": camera.height, "width": camera.width, "camera": camera.name}
        for camera in spec.cameras
    ]
    return {
        "policy": "ptr-fast",
        "checkpoint": "/".join(part for part in policy.info.path.resolve().parts[-3:] if part != "checkpoints"),
        "step": policy.info.step,
        "weights": weights_digest(policy.info),
        "mode": policy.mode,
        **(policy.act_config.told() if isinstance(policy, Policy) else {}),
        **({"steered": dict(steered)} if steered else {}),
        "control_hz": spec.control_hz,
        **({"image": images[0]} if images else {}),
        "images": images,
        "observations": policy.window.num_observations,
        "state": {"key": STATE, "names": list(spec.state.names), "units": list(spec.state.units)},
        "action": {
            "names": list(spec.action.names),
            "units": list(spec.action.units),
            "low": list(spec.action.low),
            "high": list(spec.action.high),
            "horizon": policy.window.num_actions,
        },
        "tasks": {"key": PROMPT, "names": list(spec.tasks.names)},
    }


def _tls(args: Args) -> ssl.SSLContext | None:
    if (args.tls_cert is None) != (args.tls_key is None):
        raise ValueError("tls-cert and tls-key belong together")
    if args.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(args.tls_cert, args.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{args.tls_cert}, {args.tls_key}: not a certificate and its key ({error})") from error
    return context

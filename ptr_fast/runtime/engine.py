"""What runs the nets when a policy acts on one frame: eager PyTorch, or a compiler's form of the same graph.

All of them take the module :class:`ptr_fast.runtime.graph.ActingGraph`; ONNX Runtime and OpenVINO take its ONNX form.
Before an engine is used its action is compared with the eager one.

Note "Choice of the engine". ``auto`` does not measure on the spot, so that two runs of a checkpoint act alike: it takes
the first of ``PREFERENCE`` that is installed, an order measured by ``benchmarks/bench_act.py``.

Note "A mask for oneDNN". OpenVINO 2026.4 asks the processor itself for its instructions, but its copy of oneDNN keeps
to ``ONEDNN_MAX_CPU_ISA``: where that names fewer, some nets are not compiled, and others end the process when they are
first run. So OpenVINO compiles as if there were no such variable; PyTorch's oneDNN keeps to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.learners.capabilities import ActsInTwo
from ptr_fast.runtime.export import OUTPUT, part_to_onnx, why_not_onnx
from ptr_fast.runtime.graph import ActingGraph, MainGraph, SideGraph

__all__ = [
    "BOUND",
    "ENGINES",
    "PREFERENCE",
    "RESIZES",
    "Engine",
    "first_choice",
    "make_engine",
    "native_executor",
    "needs_cpu",
    "why_not",
]

BOUND = 1e-3
"""Largest difference of an engine's action from the eager one, of the action's half range."""

PREFERENCE = {"cpu": ("onnxruntime", "openvino", "eager"), "cuda": ("cuda_graph", "eager")}

LARGE = 2**22
"""Parameters of an acting from which on ONNX Runtime takes two sessions: each then computes for milliseconds."""

RESIZES = ("cuda_graph",)
"""Engines that take the camera's frame as it is and resize in their graph, within 1 level of the host's resize."""


class Engine(Protocol):
    """Runs one graph on one frame at a time."""

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """``graph.input_names`` as arrays to actions float32 of ``graph.output_shape`` in raw units."""
        ...


class EagerEngine:
    """Op by op, with the kernels of this package; weights and frames are channels_last."""

    def __init__(self, graph: ActingGraph, model: Callable[[], bytes]) -> None:
        self._graph, self._device = graph, graph.low.device

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """See :class:`Engine`."""
        with torch.inference_mode():
            tensors = [
                torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self._device) for array in inputs
            ]
            return self._graph(*tensors).cpu().numpy()


class CompiledEngine:
    """``torch.compile`` of the exported program, weights frozen; takes a minute and needs a C++ compiler."""

    def __init__(self, graph: ActingGraph, model: Callable[[], bytes]) -> None:
        from torch._inductor import config

        with torch.no_grad(), dispatch.use_backend("reference"):
            module = torch.export.export(graph, graph.example(), strict=False).module()
        self._compiled = torch.compile(module)
        with torch.no_grad(), config.patch(freezing=True):
            self._compiled(*graph.example())

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """See :class:`Engine`."""
        with torch.no_grad():
            return self._compiled(*[torch.from_numpy(np.require(a, requirements=["C", "W"])) for a in inputs]).numpy()


class OnnxRuntimeEngine:
    """ONNX Runtime's CPU provider on as many threads as torch uses."""

    def __init__(self, graph: ActingGraph, model: Callable[[], bytes]) -> None:
        self._names = graph.input_names
        self._session = _onnxruntime_session(model(), torch.get_num_threads())

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """See :class:`Engine`."""
        return self._session.run([OUTPUT], dict(zip(self._names, inputs, strict=True)))[0]


class OnnxRuntimeInTwo:
    """An acting of two nets with both at once, each a session on half of the threads; joined by this package's ops."""

    def __init__(self, graph: ActingGraph, model: Callable[[], bytes]) -> None:
        assert isinstance(graph.acting, ActsInTwo)
        self._graph, self._acting = graph, graph.acting
        example = graph.example()
        num_threads = max(torch.get_num_threads() // 2, 1)
        self._names, self._frames = graph.input_names, graph.frame_names
        main = part_to_onnx(MainGraph(graph), example, self._names)
        side = part_to_onnx(SideGraph(graph), example[: len(self._frames)], self._frames)
        self._main, self._side = (_onnxruntime_session(model, num_threads) for model in (main, side))
        self._beside = ThreadPoolExecutor(1, "acting-side")

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """See :class:`Engine`."""
        given = dict(zip(self._names, inputs, strict=True))
        coming = self._beside.submit(self._side.run, None, {name: given[name] for name in self._frames})
        (main,) = self._main.run(None, given)
        (side,) = coming.result()
        past = self._graph.window.num_observations
        with torch.inference_mode():
            parts = [main, side, given["state"].reshape(1, past, -1), given["task_id"]]
            return self._graph.unscale(self._acting.join(*map(torch.from_numpy, parts))).numpy()


def _onnxruntime_session(model: bytes, num_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnxruntime(graph: ActingGraph, model: Callable[[], bytes]) -> Engine:
    """Two sessions for large nets on two threads or more; a small net is done before a thread has woken.

    ONNX Runtime's own parallel mode is slower than one thread.
    """
    is_large = sum(weights.numel() for weights in graph.acting.parameters()) > LARGE
    if isinstance(graph.acting, ActsInTwo) and graph.slot is None and is_large and torch.get_num_threads() > 1:
        return OnnxRuntimeInTwo(graph, model)
    return OnnxRuntimeEngine(graph, model)


class NotCompiledError(RuntimeError):
    """OpenVINO does not compile this policy on this processor."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(f"OpenVINO does not compile this policy here ({' '.join(str(error).split())})")


class OpenVinoEngine:
    """OpenVINO's CPU plugin in float32 on as many threads as torch uses."""

    def __init__(self, graph: ActingGraph, model: Callable[[], bytes]) -> None:
        import openvino

        core = openvino.Core()
        read = core.read_model(model())
        try:
            with _no_mask_for_onednn():
                compiled = core.compile_model(read, "CPU", dict(_openvino_properties()))
        except RuntimeError as error:
            raise NotCompiledError(error) from error
        self._request, self._names = compiled.create_infer_request(), graph.input_names

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """See :class:`Engine`."""
        answer = self._request.infer(dict(zip(self._names, inputs, strict=True)), share_inputs=True)
        return np.array(answer[OUTPUT])


@contextmanager
def _no_mask_for_onednn() -> Iterator[None]:
    """See note "A mask for oneDNN"; the variable is read when the first model is compiled."""
    mask = os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    try:
        yield
    finally:
        if mask is not None:
            os.environ["ONEDNN_MAX_CPU_ISA"] = mask


def _openvino_properties() -> list[tuple[str, str]]:
    threads = str(torch.get_num_threads())
    return [
        ("INFERENCE_NUM_THREADS", threads),
        ("NUM_STREAMS", "1"),
        ("PERFORMANCE_HINT", "LATENCY"),
        ("INFERENCE_PRECISION_HINT", "f32"),  # it would take bfloat16 where the processor has it
    ]


def _captured(graph: ActingGraph, model: Callable[[], bytes]) -> Engine:
    from ptr_fast.runtime.captured import CapturedEngine

    return CapturedEngine(graph)


ENGINES: dict[str, Callable[[ActingGraph, Callable[[], bytes]], Engine]] = {
    "eager": EagerEngine,
    "compile": CompiledEngine,
    "onnxruntime": _onnxruntime,
    "openvino": OpenVinoEngine,
    "cuda_graph": _captured,
}


def needs_cpu(name: str) -> bool:
    """Whether an engine, or an exported file, runs on the CPU alone."""
    return name in ("compile", "onnxruntime", "openvino") or name.endswith(".onnx")


def why_not(name: str, device: torch.device) -> str | None:
    """Why an engine cannot run on this device, or None.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected auto, one of {sorted(ENGINES)} or a file .onnx, got {name!r}")
    if name == "cuda_graph":
        return None if device.type == "cuda" else f"a CUDA graph needs a GPU, the policy is on the {device.type}"
    if needs_cpu(name) and device.type != "cpu":
        return f"it runs on the CPU, the policy is on the {device.type}"
    if name in ("onnxruntime", "openvino"):
        if find_spec(name) is None:
            return "not installed: pip install 'ptr-fast[export]'"
        return why_not_onnx()
    return None


def first_choice(name: str, device: torch.device) -> str:
    """The engine that ``auto`` tries first here, or the named one; OpenVINO for an exported file.

    Raises:
        ValueError: an unknown name.
        RuntimeError: the named engine cannot run.
    """
    if name == "auto":
        return next(one for one in PREFERENCE[device.type] if why_not(one, device) is None)
    if name.endswith(".onnx"):
        name = "openvino"
    if why := why_not(name, device):
        raise RuntimeError(f"engine {name!r} cannot run: {why}")
    return name


def make_engine(name: str, graph: ActingGraph, model: Callable[[], bytes]) -> tuple[str, Engine, list[str]]:
    """An engine for a graph, checked against the eager one.

    Args:
        name: of ``ENGINES``, or ``auto`` (note "Choice of the engine").
        model: makes the graph's ONNX form, where the engine wants it.

    Returns:
        Its name, the engine, and why the ones preferred to it were not taken.

    Raises:
        RuntimeError: the engine that was asked for cannot run, or acts differently.
    """
    device = graph.low.device
    reasons: list[str] = []
    for candidate in PREFERENCE[device.type] if name == "auto" else (name,):
        why = why_not(candidate, device)
        if why is None:
            try:
                engine = ENGINES[candidate](graph, model)
                if candidate == "eager":
                    return candidate, engine, reasons
                difference = _difference(engine, graph)
                if difference <= BOUND:
                    told = f"within {difference:.1e} of eager, of the action's half range"
                    return candidate, engine, [*reasons, told]
                told = f"by {difference:.2g} of the half range, allowed are {BOUND:g}"
                why = f"its action differs from the eager one {told}"
            except NotCompiledError as error:
                why = str(error)
        if name != "auto":
            raise RuntimeError(f"engine {name!r} cannot run: {why}")
        reasons.append(f"not {candidate}: {why}")
    raise AssertionError("the eager engine always runs")


def _difference(engine: Engine, graph: ActingGraph) -> float:
    """Of the engine's action on one made-up observation from the eager one's, of the action's half range."""
    rng = np.random.default_rng(0)
    inputs: list[np.ndarray] = []
    for name, example in zip(graph.input_names, graph.example(), strict=True):
        array: np.ndarray = example.cpu().numpy()
        if name in graph.frame_names:
            array = rng.integers(0, 256, array.shape, np.uint8)
        elif name == "noise":
            array = rng.standard_normal(array.shape, np.float32)
        inputs.append(array)
    expected = EagerEngine(graph, bytes).run(*inputs)
    difference = np.abs(engine.run(*inputs) - expected) / graph.half_range.cpu().numpy()
    return float(np.max(np.nan_to_num(difference, nan=np.inf)))


def native_executor(graph: ActingGraph, model: bytes, frame_sizes: Mapping[str, tuple[int, int]], slot: int = 0) -> Any:
    """OpenVINO behind the control loop's own interface: the loop then runs the policy without Python and its lock.

    Args:
        graph: what ``model`` was made of; not one that takes noise, which comes from Python.
        frame_sizes: camera -> height and width of its frames, pixels; resized where the graph takes others.
        slot: of the task, where the graph does not fix one.

    Returns:
        What :class:`ptr_fast.runtime.control.ControlLoop` takes as a policy.

    Raises:
        NotCompiledError: OpenVINO refuses the model.
        RuntimeError: OpenVINO or the native module is missing.
        ValueError: a graph that takes noise.
    """
    if graph.noise_shape is not None:
        raise ValueError("native executor: this acting mode draws its noise in Python; act by policy.act there")
    module = native.require()
    library = _openvino_library()
    if isinstance(library, str):
        raise RuntimeError(f"native executor: {library}")
    properties = [text for pair in _openvino_properties() for text in pair]
    cameras = [
        (name, frame_sizes[camera], size)
        for name, (camera, size) in zip(graph.frame_names, graph.frame_sizes.items(), strict=True)
    ]
    window = graph.window
    shape = (window.num_observations, graph.num_state, window.num_actions, graph.num_axes)
    try:
        with _no_mask_for_onednn():
            return module.OpenVinoExecutor(os.fspath(library), model, properties, cameras, *shape, slot)
    except RuntimeError as error:
        raise NotCompiledError(error) from error


def _openvino_library() -> Path | str:
    """OpenVINO's C library inside its wheel, or why there is none."""
    spec = find_spec("openvino")
    if spec is None or spec.origin is None:
        return "OpenVINO is not installed: pip install 'ptr-fast[export]'"
    found = sorted((Path(spec.origin).parent / "libs").glob("libopenvino_c.so*"))
    return found[0] if found else f"{Path(spec.origin).parent / 'libs'} has no libopenvino_c.so"

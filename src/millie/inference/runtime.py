"""What computes features: the encoder in torch, or the same one converted to OpenVINO or ONNX.

The conversion happens in memory, from the torch module and its weights; nothing is downloaded and
nothing is sent. OpenVINO runs EfficientNet-Lite0 several times as fast as torch
(docs/performance.md). This module owns threads and precision of the encoder; caching and streaming
are its callers' business.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from millie.bags.loading import to_tensor
from millie.config import PredictionConfig
from millie.engines.seam import available_cores
from millie.errors import BundleError, MissingPackageError, no_warnings
from millie.models.encoder import Encoder
from millie.models.weights import weights_digest
from millie.segmentation.network import import_openvino

_BATCH = 16
"""Crops that a compiled OpenVINO model takes at once; the last batch is filled up."""


class FeatureRuntime(Protocol):
    """Computes features of crops.

    Attributes:
        name: ``torch``, ``openvino`` or ``onnx``.
        dim: number of features D.
        digest: SHA-256 (hex) of the encoder's weights.
    """

    name: str
    dim: int
    digest: str

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (n, D) of crops uint8 RGB (n, S, S, 3).

        Raises:
            BundleError: a feature is not finite.
        """
        ...

    def prepare(self, size_px: int) -> None:
        """Do now what the first batch of crops of this side would otherwise wait for."""
        ...


def feature_runtime(encoder: Encoder, config: PredictionConfig) -> FeatureRuntime:
    """The runtime that the configuration asks for.

    Args:
        encoder: on the CPU or elsewhere; it is not changed.
        config: ``runtime`` auto, torch, openvino or onnx; auto is openvino where it is installed
            and the encoder lies on the CPU, else torch.

    Raises:
        MissingPackageError: openvino or onnx was asked for and is not installed.
    """
    wanted = config.runtime
    if wanted == "auto":
        on_cpu = encoder.device.type == "cpu"
        wanted = "openvino" if on_cpu and importlib.util.find_spec("openvino") else "torch"
    return _RUNTIMES[wanted](encoder)


class TorchRuntime:
    """The encoder as it is, in evaluation mode, on the device of its weights."""

    name = "torch"

    def __init__(self, encoder: Encoder) -> None:
        self.dim = encoder.dim
        self.digest = weights_digest(encoder)
        self._encoder = encoder
        self._device = encoder.device

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`FeatureRuntime`."""
        if len(images) == 0:
            return np.zeros((0, self.dim), np.float32)
        with _evaluating(self._encoder), torch.inference_mode():
            features = self._encoder(to_tensor(images).to(self._device))
        return _finite(features.float().cpu().numpy(), self.name)

    def prepare(self, size_px: int) -> None:
        """See :class:`FeatureRuntime`: nothing is left to do."""


class OpenVinoRuntime:
    """The encoder converted to OpenVINO, float32, on as many threads as there are cores.

    It is converted at the first batch, once for each size of crops, for batches of one length:
    OpenVINO would plan anew for each other length, half a second each.

    Raises:
        MissingPackageError: openvino is not installed.
    """

    name = "openvino"

    def __init__(self, encoder: Encoder) -> None:
        self.dim = encoder.dim
        self.digest = weights_digest(encoder)
        self._encoder = encoder
        self._openvino = _import_openvino()
        self._compiled: dict[int, Any] = {}

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`FeatureRuntime`."""
        if len(images) == 0:
            return np.zeros((0, self.dim), np.float32)
        size_px = images.shape[1]
        self.prepare(size_px)
        run = self._compiled[size_px]
        batch = np.zeros((_BATCH, *images.shape[1:]), np.uint8)
        features = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            batch[: len(part)] = part
            features[start : start + _BATCH] = run(batch)[0][: len(part)]
        return _finite(features, self.name)

    def prepare(self, size_px: int) -> None:
        """Convert and compile for crops of this side, once."""
        if size_px not in self._compiled:
            self._compiled[size_px] = self._compile(size_px)

    def _compile(self, size_px: int) -> Any:
        ov = self._openvino
        model = ov.convert_model(
            _trace(self._encoder, size_px), input=[ov.PartialShape([_BATCH, 3, size_px, size_px])]
        )
        steps = ov.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        steps.input().model().set_layout(ov.Layout("NCHW"))
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # on some CPUs the default is bfloat16
            "INFERENCE_NUM_THREADS": available_cores(),
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, all threads on it
        }
        return ov.Core().compile_model(steps.build(), "CPU", settings)


class OnnxRuntime:
    """The encoder exported to ONNX in memory, run by ONNX Runtime in float32 on all cores.

    As fast as OpenVINO; the export takes some seconds more, so it is the choice of machines for
    which there is no OpenVINO.

    Raises:
        MissingPackageError: onnx, onnxscript or onnxruntime is not installed.
    """

    name = "onnx"

    def __init__(self, encoder: Encoder) -> None:
        self.dim = encoder.dim
        self.digest = weights_digest(encoder)
        self._encoder = encoder
        self._onnxruntime = import_onnx()
        self._sessions: dict[int, Any] = {}

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`FeatureRuntime`."""
        if len(images) == 0:
            return np.zeros((0, self.dim), np.float32)
        size_px = images.shape[1]
        self.prepare(size_px)
        (features,) = self._sessions[size_px].run(None, {"images": to_tensor(images).numpy()})
        return _finite(np.array(features, np.float32), self.name)

    def prepare(self, size_px: int) -> None:
        """Export and load for crops of this side, once."""
        if size_px not in self._sessions:
            options = self._onnxruntime.SessionOptions()
            options.intra_op_num_threads = available_cores()
            self._sessions[size_px] = self._onnxruntime.InferenceSession(
                encoder_onnx(self._encoder, size_px), options, providers=["CPUExecutionProvider"]
            )


_RUNTIMES: dict[str, Callable[[Encoder], FeatureRuntime]] = {
    "torch": TorchRuntime,
    "openvino": OpenVinoRuntime,
    "onnx": OnnxRuntime,
}


def encoder_onnx(encoder: Encoder, size_px: int) -> bytes:
    """An encoder as ONNX: ``images`` float32 (n, 3, S, S) in 0 to 1 -> ``features`` (n, D).

    Raises:
        BundleError: it cannot be exported.
    """
    example = torch.zeros(2, 3, size_px, size_px, device=encoder.device)
    return onnx_bytes(encoder, ("images", example, 0), ["features"])


def onnx_bytes(
    module: nn.Module, given: tuple[str, torch.Tensor, int], outputs: Sequence[str]
) -> bytes:
    """A module of one input as ONNX.

    Args:
        module: evaluated as it is.
        given: name of the input, an example, and its axis of any length.
        outputs: names.

    Raises:
        BundleError: it cannot be exported.
    """
    name, example, axis = given
    with _evaluating(module), one_thread(), torch.no_grad(), no_warnings(), _no_log():
        # The exporter warns about its own future, and logs what it does without. Strict: len() of
        # a tensor stays open, which otherwise fixes the axis to the example's length.
        free = ({axis: torch.export.Dim("n")},)
        traced = torch.export.export(module, (example,), dynamic_shapes=free, strict=True)
        program = torch.onnx.export(
            traced, dynamo=True, verbose=False, input_names=[name], output_names=list(outputs)
        )
    if program is None:
        raise BundleError("the model could not be exported to ONNX: use prediction.runtime=torch")
    content: bytes = program.model_proto.SerializeToString()
    return content


def import_onnx() -> Any:
    """ONNX Runtime, with the packages that make its graphs at hand.

    Raises:
        MissingPackageError: the extra ``onnx`` is not installed.
    """
    try:
        with no_warnings():
            for needed in ("onnx", "onnxscript"):
                importlib.import_module(needed)
            return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingPackageError(
            f"runtime 'onnx' needs the package {error.name}: pip install 'millie[onnx]', or use "
            "--set prediction.runtime=openvino"
        ) from error


def _trace(encoder: Encoder, size_px: int) -> Any:
    example = torch.zeros(1, 3, size_px, size_px, device=encoder.device)
    with _evaluating(encoder), one_thread(), torch.no_grad(), no_warnings():
        # It warns that shape checks become constants: the size is fixed here.
        return torch.jit.trace(encoder, example, check_trace=False)  # type: ignore[no-untyped-call]


def _import_openvino() -> Any:
    try:
        return import_openvino()
    except ImportError as error:
        raise MissingPackageError(
            "runtime 'openvino' needs the package openvino: install it, or use "
            "--set prediction.runtime=torch"
        ) from error


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextmanager
def _no_log() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: small tensors give several nothing to share but waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _finite(features: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(features).all():
        raise BundleError(
            f"the encoder returned non-finite features (runtime {name}): its weights are damaged; "
            "download or train the model again"
        )
    return features

"""The winner in 8-bit integers, made of its ONNX file: quarter the bytes, and integer arithmetic where the runtime has it.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018, arXiv
1712.05877; here after training: ranges of activations are what calibration images show, each filter of a weight has a scale of
its own. torch's own quantiser (``torch.ao``) is deprecated.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pruners.errors import JobFailed, reason
from workers.data import Split
from workers.tasks import Metric

IMAGES = 256
"""Training images that calibrate: as many as recalibrate BatchNorm."""

_MOST_LOST = 0.02  # of a metric that is a share of inputs
_MOST_WORSE = 0.1  # of any other, as a share of itself


def export_int8(source: Path, path: Path, train: Split) -> None:
    """Writes a network with weights and activations in 8 bits.

    Args:
        source: the network, as ``export_onnx`` writes it.
        path: where to write.
        train: the first of these calibrate.

    Raises:
        JobFailed: onnxruntime cannot quantise it.
    """
    import onnx  # takes a while, as the next ones do
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Batches of training images by the name of the input."""

        def __init__(self, name: str) -> None:
            self._batches = ({name: images.numpy()} for images, _ in train.first(IMAGES).batches())

        def get_next(self) -> dict[str, Any] | None:
            """The next one; ``None`` at the end."""
            return next(self._batches, None)

    try:
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)  # BatchNorm goes into convolutions
            quantize_static(
                prepared,
                path,
                Reader(onnx.load(source).graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    except Exception as error:  # whatever the quantiser raises about the network or about itself
        raise JobFailed(f"There is no int8 file: the network cannot be quantised ({reason(error)}).") from error


def outputs_of(path: Path, split: Split, threads: int) -> Tensor:
    """What an ONNX file answers to a split, in onnxruntime, ``[n, …]``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    (name,) = [value.name for value in session.get_inputs()]
    return torch.cat([torch.from_numpy(session.run(None, {name: images.numpy()})[0]) for images, _ in split.batches()])


def check_int8(metric: Metric, found: float, network: float) -> None:
    """Raises ``JobFailed`` where the metric is too far from the network's."""
    worse = network - found if metric.higher_is_better else found - network
    allowed = _MOST_LOST if metric.share else _MOST_WORSE * abs(network)
    if not worse <= allowed:
        raise JobFailed(
            f"There is no int8 file: its {metric.title} on the test inputs is {found:.4f}, the network's {network:.4f}; "
            f"{allowed:.4f} less is allowed."
        )

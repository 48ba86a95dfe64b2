"""The winner in ONNX, for runtimes that know no torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import fx

from pruners.errors import JobFailed, reason

TOLERANCE = 1e-4  # relative to the largest output: another runtime's kernels add up in another order
_BATCHES = (1, 3)  # of the check, where the network takes any

_TALKATIVE = "torch.onnx._internal.exporter._registration"  # warns of every torchvision operator that is not there


def export_onnx(module: fx.GraphModule, program: Path, path: Path) -> None:
    """Writes a network with the dynamic dims of its program, and checks the file in onnxruntime.

    Args:
        module: the network, in eval mode.
        program: the ``.pt2`` file that ``export_pt2`` made of it.
        path: where to write.

    Raises:
        JobFailed: the network has an operator that ONNX lacks, or the file, run, does not compute what the network does.
    """
    import onnxruntime  # takes a while to import, as the exporter does

    logging.getLogger(_TALKATIVE).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(torch.export.load(program), dynamo=True, external_data=False, verbose=False)
            if written is not None:  # it is None only where a file is named
                written.save(path)
        session = onnxruntime.InferenceSession(path)
        names = [value.name for value in session.get_inputs()]
        random = np.random.default_rng(0)
        differences = []
        for batch in _BATCHES:
            examples = [value.example(batch) for value in module.meta["inputs"]]
            probe = [random.standard_normal(tuple(x.shape)).astype(x.numpy().dtype) for x in examples]
            (found, *_) = session.run(None, dict(zip(names, probe, strict=True)))
            with torch.inference_mode():
                expected = module(*map(torch.from_numpy, probe)).numpy()
            differences.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
    except Exception as error:  # whatever the exporter or the runtime raises about the network or about itself
        raise JobFailed(f"There is no ONNX file: the export failed ({reason(error)}).") from error
    if not max(differences) <= TOLERANCE:
        raise JobFailed(
            f"There is no ONNX file: it differs from the network by {max(differences):.1e} relative; {TOLERANCE} is allowed."
        )

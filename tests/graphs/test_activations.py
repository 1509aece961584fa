"""An activation that an emitter cannot write is refused, whatever operator has it: none stands in for another."""

import numpy as np
import pytest

from ofa_deploy.device.devices import get_device
from ofa_deploy.errors import MeasureError
from ofa_deploy.graphs import weights
from ofa_deploy.graphs.formats import FILE_FORMATS, FileFormat, format_of
from ofa_deploy.spaces import ops
from ofa_deploy.spaces.ops import Op

OPERATORS = {
    "conv": {"kernel": 3},
    "window of 7x7": {"kind": "mbconv", "c_mid": 8, "kernel": 7},
    "mbconv": {"c_mid": 24, "kernel": 5, "se": 8, "shortcut": True},
    "bottleneck": {"c_mid": 4, "kernel": 3, "shortcut": True},
    "linear": {},
    "linear with bias": {"kind": "linear", "bias": True},
}


@pytest.mark.parametrize("file_format", FILE_FORMATS.values(), ids=map("-".join, FILE_FORMATS))
@pytest.mark.parametrize("name", OPERATORS)
def test_an_activation_that_no_emitter_writes_is_refused(
    name: str, file_format: FileFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "ACTIVATIONS", (*ops.ACTIVATIONS, "gelu"))
    fields = {"kind": name, **OPERATORS[name]}
    op = Op(size=1 if fields["kind"] == "linear" else 8, c_in=8, c_out=8, act="gelu", **fields)  # type: ignore[arg-type]
    with pytest.raises(MeasureError, match=r"activation 'gelu' .* only none, relu, relu6, hswish; add it") as refusal:
        file_format.emit([("block", op)], {"block": weights.tiled(op, np.random.default_rng(0))})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("act", ops.ACTIVATIONS)
def test_every_activation_of_operators_is_written(act: str) -> None:
    op = Op("bottleneck", 8, 8, 8, 4, 3, act=act, shortcut=True)
    drawn, x = weights.draw(op, np.random.default_rng(0)), np.random.default_rng(1).standard_normal((1, 8, 8, 8))
    outputs = []
    for device in map(get_device, ("cpu", "tflite", "torch")):
        form = format_of(device)
        run = form.taking_nchw(device.session(form.emit([("block", op)], {"block": drawn}), 1))
        y = run(x.astype(np.float32))
        outputs.append(y if form.layout == "NCHW" else y.transpose(0, 3, 1, 2))
    for output in outputs[1:]:
        assert output == pytest.approx(outputs[0], abs=1e-5)

"""Networks that compute in int8: calibrated after training, or trained on as they will be rounded.

:func:`quantized` puts the rounding into a network: a :class:`QuantizedLayer` for every convolution, whose weights are
rounded per channel and whose input and output per tensor, where ONNX Runtime and XNNPACK need it to compute in
integers. :func:`calibrate` finds the ranges of all tensors from pictures. That network can be judged and trained on
(gradients pass the rounding, and the ranges are learnt); :func:`integer` then gives the one that is exported. So
training, both runtimes and calibration share one arithmetic.

Hard-swish, the product with a gate, pooling and resizing stay in float: they have no multiply-adds worth counting, and
rounding inside of them is what breaks MobileNetV3. What lies beyond an activation's reach, below -3 of hard-swish, gets
no levels.
"""

from densevision.quantize.integer import int8, integer
from densevision.quantize.layers import QuantizedLayer, Quantizer
from densevision.quantize.network import calibrate, quantized, quantizers

__all__ = ["QuantizedLayer", "Quantizer", "calibrate", "int8", "integer", "quantized", "quantizers"]

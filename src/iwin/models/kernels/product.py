"""The matrix product of the Triton kernels."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def dot(a, b):
    """Matrix product, added up in float32."""
    if INTERPRETED:  # the interpreter multiplies the bit patterns of bfloat16; float32 holds the same values
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")

// Depthwise 3x3 convolution of maps whose channels lie last, with zeros around them.
//
// A row of the result is made from left to right. Every column of the three rows around it is read once and added to the
// three results that it belongs to, which stay in registers until they are whole. Sums are fp32 throughout.

#include <algorithm>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

// The rows above, at and below row y of a map's frame; beside the frame they are zeros.
template <class N>
struct Rows {
  const N* at[3];
  Rows(const N* map, const N* zeros, const Frames& shape, long frame, long y) {
    for (long r = 0; r < 3; r++) {
      const long row = y + r - 1;
      at[r] = row < 0 || row >= shape.height ? zeros : map + (frame * shape.height + row) * shape.row();
    }
  }
};

// One row and `count` channels, GROUP * LANES or fewer, of: bias + taps * map + plus.
template <class T>
INLINE void convolve_row(const Rows<typename T::Number>& rows, const float* taps, const float* bias,
                     const typename T::Number* plus, typename T::Number* out, const Frames& shape, long count) {
  Floats weights[TAPS][GROUP], start[GROUP], before[GROUP], here[GROUP];
#pragma GCC unroll 2
  for (long g = 0; g < GROUP; g++) {
#pragma GCC unroll 9
    for (long t = 0; t < TAPS; t++) weights[t][g] = load(taps + t * shape.channels + g * LANES, count - g * LANES);
    start[g] = bias ? load(bias + g * LANES, count - g * LANES) : Floats{};
    before[g] = here[g] = start[g];
  }
  for (long x = 0; x <= shape.width; x++) {
    const long place = x * shape.channels;
#pragma GCC unroll 2
    for (long g = 0; g < GROUP; g++) {
      Floats next = start[g];
      if (x < shape.width) {
#pragma GCC unroll 3
        for (long r = 0; r < 3; r++) {
          const Floats value = T::load(rows.at[r] + place + g * LANES, count - g * LANES);
          before[g] = fmadd(weights[r * 3 + 2][g], value, before[g]);
          here[g] = fmadd(weights[r * 3 + 1][g], value, here[g]);
          next = fmadd(weights[r * 3][g], value, next);
        }
      }
      if (x > 0) {
        const long whole = place - shape.channels + g * LANES;
        const Floats sum = plus ? before[g] + T::load(plus + whole, count - g * LANES) : before[g];
        T::store(out + whole, sum, count - g * LANES);
      }
      before[g] = here[g];
      here[g] = next;
    }
  }
}

// sums[TAPS + 1][channels] += what one row of the gradient says of the taps and of the bias, for `count` channels, LANES
// or fewer.
template <class T>
INLINE void correlate(const Rows<typename T::Number>& rows, const typename T::Number* grad, float* sums,
                      const Frames& shape, long count) {
  Floats total[TAPS + 1];
#pragma GCC unroll 10
  for (long t = 0; t <= TAPS; t++) total[t] = load(sums + t * shape.channels, count);
  Floats before = Floats{}, here = T::load(grad, count);
  for (long x = 0; x < shape.width; x++) {
    const long place = x * shape.channels;
    const Floats next = x + 1 < shape.width ? T::load(grad + place + shape.channels, count) : Floats{};
#pragma GCC unroll 3
    for (long r = 0; r < 3; r++) {
      const Floats value = T::load(rows.at[r] + place, count);
      total[r * 3] = fmadd(next, value, total[r * 3]);
      total[r * 3 + 1] = fmadd(here, value, total[r * 3 + 1]);
      total[r * 3 + 2] = fmadd(before, value, total[r * 3 + 2]);
    }
    total[TAPS] = total[TAPS] + here;
    before = here;
    here = next;
  }
#pragma GCC unroll 10
  for (long t = 0; t <= TAPS; t++) store(sums + t * shape.channels, total[t], count);
}

}  // namespace

template <class T>
void convolve(const typename T::Number* map, const float* taps, const float* bias, const typename T::Number* plus,
             typename T::Number* out, const Frames& shape) {
  using N = typename T::Number;
  const std::vector<N> zeros(shape.row());
#pragma omp parallel for collapse(2) schedule(static)
  for (long frame = 0; frame < shape.frames; frame++) {
    for (long y = 0; y < shape.height; y++) {
      const Rows<N> rows(map, zeros.data(), shape, frame, y);
      const long place = (frame * shape.height + y) * shape.row();
      for (long c = 0; c < shape.channels; c += GROUP * LANES) {
        Rows<N> part = rows;
        for (const N*& row : part.at) row += c;
        const auto convolve = [&](long count) __attribute__((always_inline)) {
          convolve_row<T>(part, taps + c, bias ? bias + c : nullptr, plus ? plus + place + c : nullptr, out + place + c,
                          shape, count);
        };
        if (shape.channels - c >= GROUP * LANES) convolve(GROUP * LANES);
        else convolve(shape.channels - c);
      }
    }
  }
}

template <class T>
void convolution_gradients(const typename T::Number* map, const typename T::Number* grad, float* result, const Frames& shape) {
  using N = typename T::Number;
  const std::vector<N> zeros(shape.row());
  const long numbers = (TAPS + 1) * shape.channels;
  std::vector<float> sums(shape.frames * numbers);  // each frame's own, so that any number of threads gives the same
#pragma omp parallel for schedule(static)
  for (long frame = 0; frame < shape.frames; frame++) {
    for (long y = 0; y < shape.height; y++) {
      const Rows<N> rows(map, zeros.data(), shape, frame, y);
      const long place = (frame * shape.height + y) * shape.row();
      along(shape.channels, [&](long c, long, long count) __attribute__((always_inline)) {
        Rows<N> part = rows;
        for (const N*& row : part.at) row += c;
        correlate<T>(part, grad + place + c, sums.data() + frame * numbers + c, shape, count);
      });
    }
  }
  std::fill_n(result, numbers, 0.0f);
  for (long frame = 0; frame < shape.frames; frame++)
    for (long n = 0; n < numbers; n++) result[n] += sums[frame * numbers + n];
}

#define EXPORT(T, NAME)                                                                                                \
  template decltype(convolve<T>) convolve<T>;                                                                          \
  template decltype(convolution_gradients<T>) convolution_gradients<T>;                                                \
  extern "C" int convolve_##NAME(const T::Number* map, const float* taps, const float* bias, const T::Number* plus,    \
                                 T::Number* out, const Frames* shape) {                                                \
    return done([=] { convolve<T>(map, taps, bias, plus, out, *shape); });                                             \
  }                                                                                                                    \
  extern "C" int convolution_gradients_##NAME(const T::Number* map, const T::Number* grad, float* result,              \
                                              const Frames* shape) {                                                   \
    return done([=] { convolution_gradients<T>(map, grad, result, *shape); });                                         \
  }

EXPORT(Fp32, fp32)
#ifdef __AVX512BF16__
EXPORT(Bf16, bf16)
#endif

}  // namespace iwin

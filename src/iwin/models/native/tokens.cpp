// What is done to each token between the products of a block: LayerNorm, with the residual sum before it, GELU, the
// gradients of both, and sums. Maps are contiguous, their channels divide by 8. All is computed in fp32.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

constexpr long STEP = GROUP * LANES;
constexpr long PARTS = 64;  // of rows, whose sums are made apart, so that any number of threads gives the same

// |x| up to where no number is left beyond it, so that neither its square nor a product with 0 overflows.
INLINE Floats size(Floats x) { return min(repeat(100.0f), abs(x)); }

// The normal distribution beyond x >= 0, which is erfc(x / sqrt 2) / 2 (Abramowitz and Stegun, 7.1.26, to 1e-7), and
// exp(-x^2 / 2), of which it is made.
template <class T>
INLINE Floats tail(Floats x, Floats& bell) {
  const Floats one = repeat(1.0f);
  const Floats divisor = fmadd(x, repeat(float(0.3275911 * M_SQRT1_2)), one);
  const Floats t = T::reciprocal(divisor);
  Floats series = repeat(1.061405429f / 2);
  series = fmadd(series, t, repeat(-1.453152027f / 2));
  series = fmadd(series, t, repeat(1.421413741f / 2));
  series = fmadd(series, t, repeat(-0.284496736f / 2));
  series = fmadd(series, t, repeat(0.254829592f / 2));
  bell = exp2<T>(x * x * repeat(float(-0.5 * M_LOG2E)));
  return series * t * bell;
}

// Calls work(at, count) for each register of so many numbers, on all threads.
template <class Work>
INLINE void everywhere(long numbers, const Work& work) {
#pragma omp parallel for schedule(static)
  for (long n = 0; n < numbers / STEP; n++)
#pragma GCC unroll 2
    for (long g = 0; g < GROUP; g++) work(n * STEP + g * LANES, LANES);
  for (long at = numbers / STEP * STEP; at < numbers; at += LANES) work(at, std::min(LANES, numbers - at));
}

// Does `work` for each row on all threads, with room for sums[numbers] over the rows: those of a part of them.
template <class Work>
INLINE void in_parts(long rows, long numbers, float* sums, const Work& work) {
  std::vector<float> parts(PARTS * numbers);
#pragma omp parallel for schedule(dynamic)
  for (long part = 0; part < PARTS; part++)
    for (long row = rows * part / PARTS; row < rows * (part + 1) / PARTS; row++) work(row, &parts[part * numbers]);
  std::fill_n(sums, numbers, 0.0f);
  for (long part = 0; part < PARTS; part++)
    for (long n = 0; n < numbers; n++) sums[n] += parts[part * numbers + n];
}

INLINE Floats gelu(Floats x, Floats beyond) {
  return fnmadd(size(x), beyond, max(x, Floats{}));
}

}  // namespace

template <class T>
void gelu(const typename T::Number* x, typename T::Number* out, long numbers) {
  everywhere(numbers, [=](long at, long count) __attribute__((always_inline)) {
    Floats bell;
    const Floats value = T::load(x + at, count);
    T::store(out + at, gelu(value, tail<T>(size(value), bell)), count);
  });
}

// The slope of GELU is the distribution up to x, plus x times its density.
template <class T>
void gelu_backward(const typename T::Number* x, typename T::Number* grad, typename T::Number* out, long numbers) {
  const Floats density = repeat(float(M_2_SQRTPI * M_SQRT1_2 / 2));
  everywhere(numbers, [=](long at, long count) __attribute__((always_inline)) {
    Floats bell;
    const Floats value = T::load(x + at, count), beyond = tail<T>(size(value), bell);
    const Floats up_to = where_positive(value, repeat(1.0f) - beyond, beyond);
    const Floats rise = size(value) * density * bell;
    const Floats slope = where_positive(value, up_to + rise, up_to - rise);
    T::store(out + at, gelu(value, beyond), count);
    T::store(grad + at, slope * T::load(grad + at, count), count);
  });
}

template <class X, class T>
void norm(const typename X::Number* map, const typename T::Number* plus, const float* weight, const float* bias,
          float eps, typename X::Number* sum, typename T::Number* out, float* stats, long rows, long channels) {
#pragma omp parallel
  {
    std::vector<float> row(channels);
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++) {
      const long start = r * channels;
      Floats total[GROUP] = {}, squares[GROUP] = {};
      along(channels, [&](long at, long g, long count) __attribute__((always_inline)) {
        Floats value = X::load(map + start + at, count);
        if (plus) {
          X::store(sum + start + at, value + T::load(plus + start + at, count), count);
          value = X::load(sum + start + at, count);  // as it was rounded
        }
        total[g] = total[g] + value;
        store(&row[at], value, count);
      });
      const float middle = reduce_add(total[0] + total[1]) / channels;
      const Floats mean = repeat(middle);
      along(channels, [&](long at, long g, long count) __attribute__((always_inline)) {
        const Floats value = load(&row[at], count, mean) - mean;
        squares[g] = fmadd(value, value, squares[g]);
      });
      const float variance = reduce_add(squares[0] + squares[1]) / channels;
      const float factor = 1 / std::sqrt(variance + eps);
      const Floats scale = repeat(factor);
      if (stats) {
        stats[2 * r] = middle;
        stats[2 * r + 1] = factor;
      }
      along(channels, [&](long at, long, long count) __attribute__((always_inline)) {
        const Floats value = (load(&row[at], count) - mean) * scale;
        T::store(out + start + at, fmadd(value, load(weight + at, count), load(bias + at, count)), count);
      });
    }
  }
}

template <class X, class T>
void norm_backward(const typename X::Number* map, const float* stats, const float* weight,
                   const typename T::Number* grad, const typename X::Number* plus, typename X::Number* of_map,
                   float* of_weights, long rows, long channels) {
  in_parts(rows, 2 * channels, of_weights, [=](long row, float* of_weight) {
    float* of_bias = of_weight + channels;
    const long start = row * channels;
    const Floats mean = repeat(stats[2 * row]), scale = repeat(stats[2 * row + 1]);
    Floats total[GROUP] = {}, bent[GROUP] = {};
    along(channels, [&](long at, long g, long count) __attribute__((always_inline)) {
      const Floats value = (X::load(map + start + at, count) - mean) * scale;
      const Floats slope = T::load(grad + start + at, count), weighted = slope * load(weight + at, count);
      total[g] = total[g] + weighted;
      bent[g] = fmadd(weighted, value, bent[g]);
      store(of_weight + at, fmadd(slope, value, load(of_weight + at, count)), count);
      store(of_bias + at, slope + load(of_bias + at, count), count);
    });
    const Floats level = repeat(reduce_add(total[0] + total[1]) / channels);
    const Floats tilt = repeat(reduce_add(bent[0] + bent[1]) / channels);
    along(channels, [&](long at, long, long count) __attribute__((always_inline)) {
      const Floats value = (X::load(map + start + at, count) - mean) * scale;
      const Floats weighted = T::load(grad + start + at, count) * load(weight + at, count);
      const Floats more = plus ? X::load(plus + start + at, count) : Floats{};
      const Floats slope = fnmadd(tilt, value, weighted - level);
      X::store(of_map + start + at, fmadd(slope, scale, more), count);
    });
  });
}

template <class X, class T>
void add(const typename X::Number* map, const typename T::Number* plus, typename X::Number* out, long numbers) {
  everywhere(numbers, [=](long at, long count) __attribute__((always_inline)) {
    X::store(out + at, X::load(map + at, count) + T::load(plus + at, count), count);
  });
}

template <class X, class T>
void scale(const typename X::Number* map, float factor, typename T::Number* out, long numbers) {
  everywhere(numbers, [=](long at, long count) __attribute__((always_inline)) {
    T::store(out + at, repeat(factor) * X::load(map + at, count), count);
  });
}

#define EXPORT(T, NAME)                                                                                                \
  template decltype(gelu<T>) gelu<T>;                                                                                  \
  template decltype(gelu_backward<T>) gelu_backward<T>;                                                                \
  extern "C" int gelu_##NAME(const T::Number* x, T::Number* out, long numbers) {                                       \
    return done([=] { gelu<T>(x, out, numbers); });                                                                    \
  }                                                                                                                    \
  extern "C" int gelu_backward_##NAME(const T::Number* x, T::Number* grad, T::Number* out, long numbers) {             \
    return done([=] { gelu_backward<T>(x, grad, out, numbers); });                                                     \
  }

#define EXPORT_TWO(X, T, NAME)                                                                                         \
  template decltype(norm<X, T>) norm<X, T>;                                                                            \
  template decltype(norm_backward<X, T>) norm_backward<X, T>;                                                          \
  template decltype(add<X, T>) add<X, T>;                                                                              \
  template decltype(scale<X, T>) scale<X, T>;                                                                          \
  extern "C" int norm_##NAME(const X::Number* map, const T::Number* plus, const float* weight, const float* bias,      \
                             float eps, X::Number* sum, T::Number* out, float* stats, long rows, long channels) {      \
    return done([=] { norm<X, T>(map, plus, weight, bias, eps, sum, out, stats, rows, channels); });                   \
  }                                                                                                                    \
  extern "C" int norm_backward_##NAME(const X::Number* map, const float* stats, const float* weight,                   \
                                      const T::Number* grad, const X::Number* plus, X::Number* of_map,                 \
                                      float* of_weights, long rows, long channels) {                                   \
    return done([=] { norm_backward<X, T>(map, stats, weight, grad, plus, of_map, of_weights, rows, channels); });     \
  }                                                                                                                    \
  extern "C" int add_##NAME(const X::Number* map, const T::Number* plus, X::Number* out, long numbers) {               \
    return done([=] { add<X, T>(map, plus, out, numbers); });                                                          \
  }

EXPORT(Fp32, fp32)
EXPORT_TWO(Fp32, Fp32, fp32_fp32)
#ifdef __AVX512BF16__
EXPORT(Bf16, bf16)
EXPORT_TWO(Fp32, Bf16, fp32_bf16)
EXPORT_TWO(Bf16, Bf16, bf16_bf16)
template decltype(norm<Bf16, Fp32>) norm<Bf16, Fp32>;
template decltype(norm_backward<Bf16, Fp32>) norm_backward<Bf16, Fp32>;
#endif

}  // namespace iwin

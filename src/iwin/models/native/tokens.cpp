// What is done to each token between the products of a block, for CPUs with AVX-512: LayerNorm, with the residual sum
// before it, GELU, the gradients of both, and sums. Maps are contiguous, their channels divide by 32. All is computed in
// fp32.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

constexpr long GROUP = 2;  // registers that go together, so that one's additions need not wait for each other
constexpr long STEP = GROUP * LANES;
constexpr long PARTS = 64;  // of rows, whose sums are made apart, so that any number of threads gives the same

// |x| up to where no number is left beyond it, so that neither its square nor a product with 0 overflows.
INLINE __m512 size(__m512 x) { return _mm512_min_ps(_mm512_set1_ps(100.0f), _mm512_abs_ps(x)); }

// The normal distribution beyond x >= 0, which is erfc(x / sqrt 2) / 2 (Abramowitz and Stegun, 7.1.26, to 1e-7), and
// exp(-x^2 / 2), of which it is made.
template <class T>
INLINE __m512 tail(__m512 x, __m512& bell) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 divisor = _mm512_fmadd_ps(x, _mm512_set1_ps(float(0.3275911 * M_SQRT1_2)), one);
  const __m512 t = T::EXACT ? _mm512_div_ps(one, divisor) : _mm512_rcp14_ps(divisor);
  __m512 series = _mm512_set1_ps(1.061405429f / 2);
  series = _mm512_fmadd_ps(series, t, _mm512_set1_ps(-1.453152027f / 2));
  series = _mm512_fmadd_ps(series, t, _mm512_set1_ps(1.421413741f / 2));
  series = _mm512_fmadd_ps(series, t, _mm512_set1_ps(-0.284496736f / 2));
  series = _mm512_fmadd_ps(series, t, _mm512_set1_ps(0.254829592f / 2));
  bell = exp2<T>(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(float(-0.5 * M_LOG2E))));
  return _mm512_mul_ps(_mm512_mul_ps(series, t), bell);
}

// Does `work` for each register of so many numbers, on all threads.
template <class Work>
INLINE void everywhere(long numbers, const Work& work) {
#pragma omp parallel for schedule(static)
  for (long n = 0; n < numbers; n += STEP)
#pragma GCC unroll 2
    for (long at = n; at < n + STEP; at += LANES) work(at);
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

INLINE __m512 gelu(__m512 x, __m512 beyond) {
  return _mm512_fnmadd_ps(size(x), beyond, _mm512_max_ps(x, _mm512_setzero_ps()));
}

}  // namespace

template <class T>
void gelu(const typename T::Number* x, typename T::Number* out, long numbers) {
  everywhere(numbers, [=](long at) {
    __m512 bell;
    const __m512 value = T::load(x + at);
    T::store(out + at, gelu(value, tail<T>(size(value), bell)));
  });
}

// The slope of GELU is the distribution up to x, plus x times its density.
template <class T>
void gelu_backward(const typename T::Number* x, typename T::Number* grad, typename T::Number* out, long numbers) {
  const __m512 density = _mm512_set1_ps(float(M_2_SQRTPI * M_SQRT1_2 / 2));
  everywhere(numbers, [=](long at) {
    __m512 bell;
    const __m512 value = T::load(x + at), beyond = tail<T>(size(value), bell);
    const __mmask16 positive = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __m512 up_to = _mm512_mask_sub_ps(beyond, positive, _mm512_set1_ps(1.0f), beyond);
    const __m512 rise = _mm512_mul_ps(_mm512_mul_ps(size(value), density), bell);
    const __m512 slope = _mm512_mask_sub_ps(_mm512_add_ps(up_to, rise), (__mmask16)~positive, up_to, rise);
    T::store(out + at, gelu(value, beyond));
    T::store(grad + at, _mm512_mul_ps(slope, T::load(grad + at)));
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
      __m512 total[GROUP] = {}, squares[GROUP] = {};
      for (long c = 0; c < channels; c += STEP)
#pragma GCC unroll 2
        for (long g = 0; g < GROUP; g++) {
          const long at = c + g * LANES;
          __m512 value = X::load(map + start + at);
          if (plus) {
            X::store(sum + start + at, _mm512_add_ps(value, T::load(plus + start + at)));
            value = X::load(sum + start + at);  // as it was rounded
          }
          total[g] = _mm512_add_ps(total[g], value);
          _mm512_storeu_ps(&row[at], value);
        }
      const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1])) / channels);
      for (long c = 0; c < channels; c += STEP)
#pragma GCC unroll 2
        for (long g = 0; g < GROUP; g++) {
          const __m512 value = _mm512_sub_ps(_mm512_loadu_ps(&row[c + g * LANES]), mean);
          squares[g] = _mm512_fmadd_ps(value, value, squares[g]);
        }
      const float variance = _mm512_reduce_add_ps(_mm512_add_ps(squares[0], squares[1])) / channels;
      const __m512 scale = _mm512_set1_ps(1 / std::sqrt(variance + eps));
      if (stats) {
        stats[2 * r] = _mm512_cvtss_f32(mean);
        stats[2 * r + 1] = _mm512_cvtss_f32(scale);
      }
      for (long c = 0; c < channels; c += LANES) {
        const __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(&row[c]), mean), scale);
        T::store(out + start + c, _mm512_fmadd_ps(value, _mm512_loadu_ps(weight + c), _mm512_loadu_ps(bias + c)));
      }
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
    const __m512 mean = _mm512_set1_ps(stats[2 * row]), scale = _mm512_set1_ps(stats[2 * row + 1]);
    __m512 total[GROUP] = {}, along[GROUP] = {};
    for (long c = 0; c < channels; c += STEP)
#pragma GCC unroll 2
      for (long g = 0; g < GROUP; g++) {
        const long at = c + g * LANES;
        const __m512 value = _mm512_mul_ps(_mm512_sub_ps(X::load(map + start + at), mean), scale);
        const __m512 slope = T::load(grad + start + at), weighted = _mm512_mul_ps(slope, _mm512_loadu_ps(weight + at));
        total[g] = _mm512_add_ps(total[g], weighted);
        along[g] = _mm512_fmadd_ps(weighted, value, along[g]);
        _mm512_storeu_ps(of_weight + at, _mm512_fmadd_ps(slope, value, _mm512_loadu_ps(of_weight + at)));
        _mm512_storeu_ps(of_bias + at, _mm512_add_ps(slope, _mm512_loadu_ps(of_bias + at)));
      }
    const __m512 level = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1])) / channels);
    const __m512 tilt = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(along[0], along[1])) / channels);
    for (long c = 0; c < channels; c += LANES) {
      const __m512 value = _mm512_mul_ps(_mm512_sub_ps(X::load(map + start + c), mean), scale);
      const __m512 weighted = _mm512_mul_ps(T::load(grad + start + c), _mm512_loadu_ps(weight + c));
      const __m512 more = plus ? X::load(plus + start + c) : _mm512_setzero_ps();
      const __m512 slope = _mm512_fnmadd_ps(tilt, value, _mm512_sub_ps(weighted, level));
      X::store(of_map + start + c, _mm512_fmadd_ps(slope, scale, more));
    }
  });
}

template <class X, class T>
void add(const typename X::Number* map, const typename T::Number* plus, typename X::Number* out, long numbers) {
  everywhere(numbers, [=](long at) { X::store(out + at, _mm512_add_ps(X::load(map + at), T::load(plus + at))); });
}

template <class X, class T>
void scale(const typename X::Number* map, float factor, typename T::Number* out, long numbers) {
  everywhere(numbers, [=](long at) { T::store(out + at, _mm512_mul_ps(_mm512_set1_ps(factor), X::load(map + at))); });
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

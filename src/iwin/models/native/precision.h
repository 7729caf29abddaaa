// What the kernels share: the two precisions of maps in memory, of which registers hold fp32, the words that products are
// made of, powers of two, and room for numbers.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#define INLINE inline __attribute__((always_inline))

namespace iwin {

constexpr long LANES = 16;  // numbers of a register

// In bf16 two numbers that follow each other along the summed axis, in fp32 one.
using Word = int32_t;

struct Fp32 {
  using Number = float;
  static constexpr bool EXACT = true;
  static constexpr long PACK = 1;  // numbers of a word
  static __m512 load(const float* numbers) { return _mm512_loadu_ps(numbers); }
  static void store(float* numbers, __m512 values) { _mm512_storeu_ps(numbers, values); }
  static __m512 add_product(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static __m512i pack(const __m512* rows) { return _mm512_castps_si512(rows[0]); }
};

#ifdef __AVX512BF16__
struct Bf16 {
  using Number = uint16_t;
  static constexpr bool EXACT = false;
  static constexpr long PACK = 2;
  static __m512 load(const uint16_t* numbers) {
    const __m256i halves = _mm256_loadu_si256((const __m256i*)numbers);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static void store(uint16_t* numbers, __m512 values) {
    _mm256_storeu_si256((__m256i*)numbers, (__m256i)_mm512_cvtneps_pbh(values));
  }
  static __m512 add_product(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  // 16 words from two rows of fp32: the first row's numbers are the words' lower halves. Halves round away from 0, which
  // takes fewer instructions than to even.
  static __m512i pack(const __m512* rows) {
    const __m512i half = _mm512_set1_epi32(0x8000), lower = _mm512_set1_epi32(0xFFFF);
    const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(rows[0]), half), 16);
    const __m512i high = _mm512_add_epi32(_mm512_castps_si512(rows[1]), half);
    return _mm512_ternarylogic_epi32(lower, low, high, 0xCA);  // lower ? low : high
  }
};
#endif

// 2^x: within 3e-7 of its value in fp32, 2e-4 in bf16 (whose own step is 4e-3). The last two factors are exact at 0.
template <class T>
INLINE __m512 exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p;
  if constexpr (T::EXACT) {
    p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
  } else {
    p = _mm512_set1_ps(5.5876024e-2f);
  }
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

// Room for numbers, by cache lines. Throws where there is none.
template <class N>
class Room {
 public:
  explicit Room(long numbers) : at_((N*)std::aligned_alloc(64, (numbers * sizeof(N) / 64 + 1) * 64), std::free) {
    if (!at_) throw std::bad_alloc();
  }
  operator N*() const { return at_.get(); }

 private:
  std::unique_ptr<N, decltype(&std::free)> at_;
};

// Whether there was memory for it. What a kernel throws must not leave it: whoever calls it from Python cannot catch it.
template <class Work>
int done(const Work& work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

// Calls work(n) for all n below `count`, each on one thread, and throws where there was no memory for one: what is thrown
// must not leave a thread either. Kernels that `work` calls have one thread, the caller's.
template <class Work>
void on_threads(long count, const Work& work) {
  bool enough = true;
#pragma omp parallel for schedule(dynamic) reduction(&& : enough)
  for (long n = 0; n < count; n++) enough = enough && done([&] { work(n); });
  if (!enough) throw std::bad_alloc();
}

}  // namespace iwin

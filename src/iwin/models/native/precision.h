// What the kernels share: the two precisions of maps in memory, of which registers hold fp32, the words that products are
// made of, powers of two, and room for numbers.

#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "registers.h"

namespace iwin {

struct Fp32 {
  using Number = float;
  static constexpr bool EXACT = true;
  static constexpr long PACK = 1;  // numbers of a word, which follow each other along the summed axis
  static Floats load(const float* numbers, long count = LANES) { return iwin::load(numbers, count); }
  static void store(float* numbers, Floats values, long count = LANES) { iwin::store(numbers, values, count); }
  static Floats add_product(Floats sum, Ints a, Ints b) { return fmadd(as_floats(a), as_floats(b), sum); }
  static Ints pack(const Floats* rows) { return as_ints(rows[0]); }
  static Floats reciprocal(Floats x) { return repeat(1.0f) / x; }
};

#ifdef __AVX512BF16__
struct Bf16 {
  using Number = uint16_t;
  static constexpr bool EXACT = false;
  static constexpr long PACK = 2;
  // 16 numbers as they are, the first `count` of them, and zeros.
  static __m256i read(const uint16_t* numbers, long count = LANES) {
    if (count < LANES) return _mm256_maskz_loadu_epi16(below(count), numbers);
    return _mm256_loadu_si256((const __m256i*)numbers);
  }
  static Floats load(const uint16_t* numbers, long count = LANES) {
    return as_floats(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read(numbers, count)), 16));
  }
  static void store(uint16_t* numbers, Floats values, long count = LANES) {
    const __m256i halves = (__m256i)_mm512_cvtneps_pbh(values);
    if (count < LANES) _mm256_mask_storeu_epi16(numbers, below(count), halves);
    else _mm256_storeu_si256((__m256i*)numbers, halves);
  }
  static Floats add_product(Floats sum, Ints a, Ints b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  static Floats reciprocal(Floats x) { return _mm512_rcp14_ps(x); }
  // 16 words from the numbers of two rows.
  static Ints pair(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
  }
  // 16 words from two rows of fp32: the first row's numbers are the words' lower halves. Halves round away from 0, which
  // takes fewer instructions than to even.
  static Ints pack(const Floats* rows) {
    const Ints half = repeat(0x8000), lower = repeat(0xFFFF);
    const Ints low = _mm512_srli_epi32(_mm512_add_epi32(as_ints(rows[0]), half), 16);
    const Ints high = _mm512_add_epi32(as_ints(rows[1]), half);
    return _mm512_ternarylogic_epi32(lower, low, high, 0xCA);  // lower ? low : high
  }
};
#endif

// 2^x: within 3e-7 of its value in fp32, 2e-4 in bf16 (whose own step is 4e-3). The last two factors are exact at 0.
template <class T>
INLINE Floats exp2(Floats x) {
  const Floats whole = round(x), f = x - whole;
  Floats p;
  if constexpr (T::EXACT) {
    p = repeat(1.5403530e-4f);
    p = fmadd(p, f, repeat(1.3333558e-3f));
    p = fmadd(p, f, repeat(9.6181291e-3f));
    p = fmadd(p, f, repeat(5.5504109e-2f));
  } else {
    p = repeat(5.5876024e-2f);
  }
  p = fmadd(p, f, repeat(2.4022651e-1f));
  p = fmadd(p, f, repeat(6.9314718e-1f));
  p = fmadd(p, f, repeat(1.0f));
  return times_power(p, whole);
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

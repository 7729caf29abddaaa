// Registers of 16 numbers, and what the kernels do with them. With AVX-512 that is one of a CPU's registers, with AVX2 and
// FMA a pair.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#define INLINE inline __attribute__((always_inline))

namespace iwin {

constexpr long LANES = 16;  // numbers of a register

using Word = int32_t;

#ifdef __AVX512F__

constexpr bool MANY = true;  // whether there are 32 of them, or 8 pairs

using Floats = __m512;  // of fp32, with operators for sums and products
using Ints = __m512i;   // of words

INLINE Floats load(const float* numbers) { return _mm512_loadu_ps(numbers); }
INLINE Ints load(const Word* words) { return _mm512_loadu_si512(words); }
INLINE void store(float* numbers, Floats x) { _mm512_storeu_ps(numbers, x); }
INLINE void store(Word* words, Ints x) { _mm512_storeu_si512(words, x); }
INLINE Floats repeat(float number) { return _mm512_set1_ps(number); }
INLINE Ints repeat(Word word) { return _mm512_set1_epi32(word); }
INLINE Ints as_ints(Floats x) { return _mm512_castps_si512(x); }
INLINE Floats as_floats(Ints x) { return _mm512_castsi512_ps(x); }

INLINE Floats fmadd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
INLINE Floats fmsub(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }    // a b - c
INLINE Floats fnmadd(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }                     // b where one is no number
INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
INLINE Floats abs(Floats x) { return _mm512_abs_ps(x); }
INLINE float reduce_add(Floats x) { return _mm512_reduce_add_ps(x); }

INLINE bool any_greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
// Of each number `a` where x > 0, else `b`.
INLINE Floats where_positive(Floats x, Floats a, Floats b) {
  return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), a);
}

INLINE Floats round(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE Floats times_power(Floats x, Floats whole) { return _mm512_scalef_ps(x, whole); }  // x 2^whole

// x = m 2^exponent for x > 0, with m from 3/4 to 3/2.
INLINE Floats split(Floats x, Floats& exponent) {
  const Floats m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  exponent = _mm512_getexp_ps(_mm512_div_ps(x, m));
  return m;
}

INLINE __mmask16 below(long count) { return (1u << std::clamp(count, 0L, LANES)) - 1; }
INLINE Floats load_some(const float* numbers, long count, Floats rest) {
  return _mm512_mask_loadu_ps(rest, below(count), numbers);
}
INLINE void store_some(float* numbers, Floats x, long count) { _mm512_mask_storeu_ps(numbers, below(count), x); }

// What is read once for several products, where the compiler would read it for each.
INLINE Ints held(Ints x) { return x; }

// Transposes 16 registers of 16 words.
INLINE void transpose(Ints* rows) {
  Ints made[LANES];
#pragma GCC unroll 8
  for (int i = 0; i < LANES; i += 2) {
    made[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    made[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < LANES; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      rows[i + 2 * j] = _mm512_unpacklo_epi64(made[i + j], made[i + j + 2]);
      rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(made[i + j], made[i + j + 2]);
    }
#pragma GCC unroll 2
  for (int i = 0; i < LANES; i += 8)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      made[i + j] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0x88);
      made[i + j + 4] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0xDD);
    }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    rows[i] = _mm512_shuffle_i32x4(made[i], made[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(made[i], made[i + 8], 0xDD);
  }
}

#else

constexpr bool MANY = false;

struct Floats {
  __m256 low, high;
};
struct Ints {
  __m256i low, high;
};

INLINE Floats load(const float* numbers) { return {_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers + 8)}; }
INLINE void store(float* numbers, Floats x) {
  _mm256_storeu_ps(numbers, x.low);
  _mm256_storeu_ps(numbers + 8, x.high);
}
INLINE Ints load(const Word* words) {
  return {_mm256_loadu_si256((const __m256i*)words), _mm256_loadu_si256((const __m256i*)(words + 8))};
}
INLINE void store(Word* words, Ints x) {
  _mm256_storeu_si256((__m256i*)words, x.low);
  _mm256_storeu_si256((__m256i*)(words + 8), x.high);
}
INLINE Floats repeat(float number) { return {_mm256_set1_ps(number), _mm256_set1_ps(number)}; }
INLINE Ints repeat(Word word) { return {_mm256_set1_epi32(word), _mm256_set1_epi32(word)}; }
INLINE Ints as_ints(Floats x) { return {_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)}; }
INLINE Floats as_floats(Ints x) { return {_mm256_castsi256_ps(x.low), _mm256_castsi256_ps(x.high)}; }

INLINE Floats operator+(Floats a, Floats b) { return {a.low + b.low, a.high + b.high}; }
INLINE Floats operator-(Floats a, Floats b) { return {a.low - b.low, a.high - b.high}; }
INLINE Floats operator*(Floats a, Floats b) { return {a.low * b.low, a.high * b.high}; }
INLINE Floats operator/(Floats a, Floats b) { return {a.low / b.low, a.high / b.high}; }
INLINE Floats fmadd(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
INLINE Floats fmsub(Floats a, Floats b, Floats c) {
  return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
INLINE Floats fnmadd(Floats a, Floats b, Floats c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
INLINE Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
INLINE Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
INLINE Floats abs(Floats x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.low), _mm256_andnot_ps(sign, x.high)};
}
INLINE float reduce_add(Floats x) {
  const __m256 eight = x.low + x.high;
  const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return two[0] + two[1];
}

INLINE bool any_greater(Floats a, Floats b) {
  return _mm256_movemask_ps(
      _mm256_or_ps(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ)));
}
INLINE Floats where_positive(Floats x, Floats a, Floats b) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(b.low, a.low, _mm256_cmp_ps(x.low, zero, _CMP_GT_OQ)),
          _mm256_blendv_ps(b.high, a.high, _mm256_cmp_ps(x.high, zero, _CMP_GT_OQ))};
}

INLINE Floats round(Floats x) {
  constexpr int HOW = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, HOW), _mm256_round_ps(x.high, HOW)};
}
// 0 below the numbers that have all their digits, infinity beyond the largest.
INLINE Floats times_power(Floats x, Floats whole) {
  const Floats within = min(repeat(128.0f), max(repeat(-127.0f), whole));
  const __m256i bias = _mm256_set1_epi32(127);
  const Ints power = {_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(within.low), bias), 23),
                      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(within.high), bias), 23)};
  return x * as_floats(power);
}

INLINE __m256 split(__m256 x, __m256& exponent) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i whole = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3F400000)), 23);  // from 3/4
  exponent = _mm256_cvtepi32_ps(whole);
  const __m256 m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(whole, 23)));
  return _mm256_blendv_ps(m, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));  // what is no number stays that
}
INLINE Floats split(Floats x, Floats& exponent) { return {split(x.low, exponent.low), split(x.high, exponent.high)}; }

INLINE __m256i below(long count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE __m256 load_some(const float* numbers, long count, __m256 rest) {
  return _mm256_blendv_ps(rest, _mm256_maskload_ps(numbers, below(count)), _mm256_castsi256_ps(below(count)));
}
INLINE Floats load_some(const float* numbers, long count, Floats rest) {
  return {load_some(numbers, count, rest.low), load_some(numbers + 8, count - 8, rest.high)};
}
INLINE void store_some(float* numbers, Floats x, long count) {
  _mm256_maskstore_ps(numbers, below(count), x.low);
  _mm256_maskstore_ps(numbers + 8, below(count - 8), x.high);
}

INLINE Ints held(Ints x) {
  asm("" : "+x"(x.low), "+x"(x.high));
  return x;
}

// The transpose of 8 rows of 8 words.
INLINE void transpose(const __m256i (&rows)[8], __m256i (&made)[8]) {
  __m256i pairs[8], fours[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
      fours[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    made[i] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
    made[i + 4] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
  }
}
INLINE void transpose(Ints* rows) {
  __m256i quarters[2][2][8], turned[2][2][8];
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
      quarters[i][0][r] = rows[i * 8 + r].low;
      quarters[i][1][r] = rows[i * 8 + r].high;
    }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) transpose(quarters[i][j], turned[j][i]);
#pragma GCC unroll 2
  for (int j = 0; j < 2; j++)
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) rows[j * 8 + r] = {turned[j][0][r], turned[j][1][r]};
}

#endif

// The first `count` numbers, or all that a register takes, and `rest` for the others, whose memory is not touched.
INLINE Floats load(const float* numbers, long count, Floats rest = Floats{}) {
  return count >= LANES ? load(numbers) : load_some(numbers, count, rest);
}
INLINE void store(float* numbers, Floats x, long count) {
  if (count >= LANES) store(numbers, x);
  else store_some(numbers, x, count);
}

constexpr long GROUP = 2;  // registers that go together, so that one's additions need not wait for each other

// Calls work(at, g, count) for the registers of a row of numbers, GROUP by GROUP, each by its place g in one, with how many
// numbers it has: LANES, which the compiler knows beforehand, or in the last what is left.
template <class Work>
INLINE void along(long numbers, const Work& work) {
  long at = 0;
  for (; at + GROUP * LANES <= numbers; at += GROUP * LANES)
#pragma GCC unroll 2
    for (long g = 0; g < GROUP; g++) work(at + g * LANES, g, LANES);
  for (; at < numbers; at += LANES) work(at, 0, std::min(LANES, numbers - at));
}

}  // namespace iwin

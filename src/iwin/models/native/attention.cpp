// Attention within interleaved windows at head dimension 32, for CPUs with AVX-512.
//
// q, k and v are read from the projection in image order and the result is written in image order, by strides: no
// window is ever gathered in memory as a whole. The softmax runs along blocks of keys and the backward pass computes
// it again from one number a query (FlashAttention, arXiv 2205.14135, 2307.08691).
//
// Every matrix product, forward and backward, is the one tile below: 8 rows by 32 columns, summed over "words". In
// bf16 a word is two numbers that follow each other along the summed axis, and VDPBF16PS sums both at once; in fp32 a
// word is one number. Scores stand with keys as rows and queries as columns, so that a maximum over keys is a maximum
// of registers. Sums are fp32 throughout.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr long D = 32;      // channels of a head; columns of a tile
constexpr long ROWS = 8;    // rows of a tile
constexpr long BLOCK = 32;  // queries that go together; columns of a tile
constexpr long KEYS = 128;  // keys between two looks at the maximum; their scores stay in the first-level cache

// For keys and queries that only fill up a tile: 2^x underflows to 0 as for infinity, of which a difference is no number.
constexpr float FAR = 1e30f;

using Word = int32_t;

struct Fp32 {
  using Number = float;
  static constexpr long PACK = 1;  // numbers of a word
  static __m512 add_product(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static __m512i pack(const float* row) { return _mm512_loadu_si512(row); }
  static void store(Word* words, __m512 low, __m512 high) {
    _mm512_storeu_ps(words, low);
    _mm512_storeu_ps(words + 16, high);
  }
  static float read(float x) { return x; }
  static float round(float x) { return x; }
};

#ifdef __AVX512BF16__
struct Bf16 {
  using Number = uint16_t;
  static constexpr long PACK = 2;
  static __m512 add_product(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  // 16 words from two rows of fp32: the first row's numbers are the words' lower halves.
  static __m512i pack(const float* row) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row)));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row + 32)));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
  static void store(Word* words, __m512 low, __m512 high) {
    _mm512_storeu_si512(words, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
  static float read(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static uint16_t round(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return x == x ? uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) : uint16_t(0x7FC0);
  }
};
#endif

// sums[8][32] = a b, or += a b: a's words stand at a[row * row_stride + step * step_stride], b's at b[step][32].
template <class T>
void tile(float* sums, const Word* a, long row_stride, long step_stride, const Word* b, long steps, bool add) {
  __m512 low[ROWS], high[ROWS];
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r++) {
    low[r] = add ? _mm512_loadu_ps(sums + r * 32) : _mm512_setzero_ps();
    high[r] = add ? _mm512_loadu_ps(sums + r * 32 + 16) : _mm512_setzero_ps();
  }
  for (long s = 0; s < steps; s++) {
    const __m512i b_low = _mm512_loadu_si512(b + s * 32), b_high = _mm512_loadu_si512(b + s * 32 + 16);
#pragma GCC unroll 8
    for (long r = 0; r < ROWS; r++) {
      const __m512i word = _mm512_set1_epi32(a[r * row_stride + s * step_stride]);
      low[r] = T::add_product(low[r], word, b_low);
      high[r] = T::add_product(high[r], word, b_high);
    }
  }
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r++) {
    _mm512_storeu_ps(sums + r * 32, low[r]);
    _mm512_storeu_ps(sums + r * 32 + 16, high[r]);
  }
}

// 2^x: within 3e-7 of its value in fp32, 2e-4 in bf16 (whose own step is 4e-3). The last two factors are exact at 0.
template <class T>
__m512 exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p;
  if constexpr (T::PACK == 1) {
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

struct Shape {
  long batch, steps, height, width, heads, windows_down, windows_across;
  long channels() const { return heads * D; }
  long tokens() const { return steps * (height / windows_down) * (width / windows_across); }
  long padded() const { return (tokens() + ROWS - 1) / ROWS * ROWS; }
  long tasks() const { return batch * windows_down * windows_across * heads; }
};

// One head of one window: where its tokens stand in image order.
struct Task {
  long head;
  std::vector<long> place;

  Task(const Shape& s, long task) : head(task % s.heads) {
    const long window = task / s.heads, j = window % s.windows_across, i = window / s.windows_across % s.windows_down;
    const long b = window / (s.windows_across * s.windows_down);
    place.reserve(s.tokens());
    for (long t = 0; t < s.steps; t++)
      for (long row = i; row < s.height; row += s.windows_down)
        for (long column = j; column < s.width; column += s.windows_across)
          place.push_back(((b * s.steps + t) * s.height + row) * s.width + column);
  }

  // rows[count][D] from a map with `stride` numbers a position; what remains up to `padded` is 0.
  template <class N>
  void gather(N* rows, const N* map, long stride, long offset, long first, long count, long padded) const {
    for (long n = 0; n < count; n++) std::memcpy(rows + n * D, map + place[first + n] * stride + offset, D * sizeof(N));
    std::fill(rows + count * D, rows + padded * D, N(0));
  }
};

template <class T>
const Word* words(const std::vector<typename T::Number>& rows, long first) {
  return reinterpret_cast<const Word*>(rows.data() + first * D);
}

// [count / PACK][D] words, each of numbers from PACK rows, of rows[count][D].
template <class T>
void pair_rows(std::vector<Word>& to, const std::vector<typename T::Number>& rows, long count) {
  auto* numbers = reinterpret_cast<typename T::Number*>(to.data());
  for (long n = 0; n < count; n += T::PACK)
    for (long d = 0; d < D; d++)
      for (long p = 0; p < T::PACK; p++) numbers[n * D + d * T::PACK + p] = rows[(n + p) * D + d];
}

// [D / PACK][BLOCK] words, each of PACK neighbouring channels, of rows[BLOCK][D].
template <class T>
void transpose(std::vector<Word>& to, const std::vector<typename T::Number>& rows) {
  const Word* from = words<T>(rows, 0);
  for (long s = 0; s < D / T::PACK; s++)
    for (long n = 0; n < BLOCK; n++) to[s * BLOCK + n] = from[n * (D / T::PACK) + s];
}

// [count / PACK][32] words of rows[count][32] of fp32: what a sum over the rows reads.
template <class T>
void pack_rows(std::vector<Word>& to, const std::vector<float>& rows, long count) {
  for (long n = 0; n < count; n += T::PACK)
    for (long h = 0; h < 32; h += 16) _mm512_storeu_si512(&to[n / T::PACK * 32 + h], T::pack(&rows[n * 32 + h]));
}

template <class T>
void forward(const typename T::Number* qkv, typename T::Number* out, float* lse, const Shape& shape, float scale) {
  using Number = typename T::Number;
  constexpr long WIDTH = D / T::PACK;  // words of a row
  const long tokens = shape.tokens(), padded = shape.padded(), C = shape.channels();
  const __m512 factor = _mm512_set1_ps(scale * float(M_LOG2E));
#pragma omp parallel
  {
    std::vector<Number> q(BLOCK * D), k(padded * D), v(padded * D);
    std::vector<Word> q_words(WIDTH * BLOCK), v_words(padded * WIDTH), p_words(KEYS / T::PACK * BLOCK);
    std::vector<float> s(KEYS * BLOCK), o(D * BLOCK);
#pragma omp for schedule(dynamic)
    for (long index = 0; index < shape.tasks(); index++) {
      const Task task(shape, index);
      const long offset = task.head * D;
      task.gather(k.data(), qkv, 3 * C, C + offset, 0, tokens, padded);
      task.gather(v.data(), qkv, 3 * C, 2 * C + offset, 0, tokens, padded);
      pair_rows<T>(v_words, v, padded);
      for (long first = 0; first < tokens; first += BLOCK) {
        const long count = std::min(BLOCK, tokens - first);
        task.gather(q.data(), qkv, 3 * C, offset, first, count, BLOCK);
        transpose<T>(q_words, q);
        __m512 most[2] = {_mm512_set1_ps(-FAR), _mm512_set1_ps(-FAR)};
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (long key = 0; key < tokens; key += KEYS) {
          const long rows = std::min(KEYS, padded - key);
          for (long r = 0; r < rows; r += ROWS)
            tile<T>(&s[r * BLOCK], words<T>(k, key + r), WIDTH, 1, q_words.data(), WIDTH, false);
          for (long r = tokens - key; r < rows; r++) std::fill_n(&s[r * BLOCK], BLOCK, -FAR);
          for (long h = 0; h < 2; h++) {
            __m512 now = most[h];
            for (long r = 0; r < rows; r++) now = _mm512_max_ps(now, _mm512_loadu_ps(&s[r * BLOCK + h * 16]));
            const __m512 shrink = exp2<T>(_mm512_mul_ps(_mm512_sub_ps(most[h], now), factor));
            __m512 part = _mm512_setzero_ps();
            for (long r = 0; r < rows; r++) {
              float* score = &s[r * BLOCK + h * 16];
              const __m512 p = exp2<T>(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(score), now), factor));
              _mm512_storeu_ps(score, p);
              part = _mm512_add_ps(part, p);
            }
            sum[h] = _mm512_fmadd_ps(sum[h], shrink, part);
            most[h] = now;
            for (long d = 0; d < D && key > 0; d++) {
              float* sums = &o[d * BLOCK + h * 16];
              _mm512_storeu_ps(sums, _mm512_mul_ps(shrink, _mm512_loadu_ps(sums)));
            }
          }
          pack_rows<T>(p_words, s, rows);
          for (long d = 0; d < D; d += ROWS)
            tile<T>(&o[d * BLOCK], &v_words[key / T::PACK * D + d], 1, D, p_words.data(), rows / T::PACK, key > 0);
        }
        float total[BLOCK], top[BLOCK];
        for (long h = 0; h < 2; h++) {
          _mm512_storeu_ps(total + h * 16, sum[h]);
          _mm512_storeu_ps(top + h * 16, _mm512_mul_ps(most[h], factor));
        }
        for (long n = 0; n < count; n++) {
          lse[index * tokens + first + n] = top[n] + std::log2(total[n]);
          Number* to = out + task.place[first + n] * C + offset;
          for (long d = 0; d < D; d++) to[d] = T::round(o[d * BLOCK + n] / total[n]);
        }
      }
    }
  }
}

template <class T>
void backward(const typename T::Number* qkv, const typename T::Number* out, const float* lse,
              const typename T::Number* grad_out, typename T::Number* grad_qkv, const Shape& shape, float scale) {
  using Number = typename T::Number;
  constexpr long WIDTH = D / T::PACK, STEPS = BLOCK / T::PACK;  // words of a row; of a block of queries
  const long tokens = shape.tokens(), padded = shape.padded(), C = shape.channels();
  const __m512 factor = _mm512_set1_ps(scale * float(M_LOG2E)), scales = _mm512_set1_ps(scale);
#pragma omp parallel
  {
    std::vector<Number> q(BLOCK * D), g(BLOCK * D), y(BLOCK * D), k(padded * D), v(padded * D);
    std::vector<Word> q_words(WIDTH * BLOCK), g_words(WIDTH * BLOCK), q_pairs(STEPS * D), g_pairs(STEPS * D);
    std::vector<Word> k_pairs(padded * WIDTH), ds_words(KEYS / T::PACK * BLOCK), p_rows(KEYS * STEPS), ds_rows(KEYS * STEPS);
    std::vector<float> s(KEYS * BLOCK), ds(KEYS * BLOCK), dq(D * BLOCK), dk(padded * D), dv(padded * D);
#pragma omp for schedule(dynamic)
    for (long index = 0; index < shape.tasks(); index++) {
      const Task task(shape, index);
      const long offset = task.head * D;
      task.gather(k.data(), qkv, 3 * C, C + offset, 0, tokens, padded);
      task.gather(v.data(), qkv, 3 * C, 2 * C + offset, 0, tokens, padded);
      pair_rows<T>(k_pairs, k, padded);
      std::fill(dk.begin(), dk.end(), 0.0f);
      std::fill(dv.begin(), dv.end(), 0.0f);
      for (long first = 0; first < tokens; first += BLOCK) {
        const long count = std::min(BLOCK, tokens - first);
        task.gather(q.data(), qkv, 3 * C, offset, first, count, BLOCK);
        task.gather(g.data(), grad_out, C, offset, first, count, BLOCK);
        task.gather(y.data(), out, C, offset, first, count, BLOCK);
        transpose<T>(q_words, q);
        transpose<T>(g_words, g);
        pair_rows<T>(q_pairs, q, BLOCK);
        pair_rows<T>(g_pairs, g, BLOCK);
        float log_sum[BLOCK], delta[BLOCK];
        for (long n = 0; n < BLOCK; n++) {
          log_sum[n] = n < count ? lse[index * tokens + first + n] : FAR;
          delta[n] = 0;
          for (long d = 0; d < D; d++) delta[n] += T::read(g[n * D + d]) * T::read(y[n * D + d]);
        }
        for (long key = 0; key < tokens; key += KEYS) {
          const long rows = std::min(KEYS, padded - key);
          for (long r = 0; r < rows; r += ROWS) {
            tile<T>(&s[r * BLOCK], words<T>(k, key + r), WIDTH, 1, q_words.data(), WIDTH, false);
            tile<T>(&ds[r * BLOCK], words<T>(v, key + r), WIDTH, 1, g_words.data(), WIDTH, false);
          }
          for (long r = tokens - key; r < rows; r++) std::fill_n(&s[r * BLOCK], BLOCK, -FAR);
          for (long r = 0; r < rows; r++) {
            __m512 p[2], d[2];
            for (long h = 0; h < 2; h++) {
              const long at = r * BLOCK + h * 16;
              p[h] = exp2<T>(_mm512_fmsub_ps(_mm512_loadu_ps(&s[at]), factor, _mm512_loadu_ps(log_sum + h * 16)));
              d[h] = _mm512_sub_ps(_mm512_loadu_ps(&ds[at]), _mm512_loadu_ps(delta + h * 16));
              d[h] = _mm512_mul_ps(_mm512_mul_ps(p[h], scales), d[h]);
              _mm512_storeu_ps(&ds[at], d[h]);
            }
            T::store(&p_rows[r * STEPS], p[0], p[1]);
            T::store(&ds_rows[r * STEPS], d[0], d[1]);
          }
          pack_rows<T>(ds_words, ds, rows);
          for (long r = 0; r < rows; r += ROWS) {
            tile<T>(&dv[(key + r) * D], &p_rows[r * STEPS], STEPS, 1, g_pairs.data(), STEPS, true);
            tile<T>(&dk[(key + r) * D], &ds_rows[r * STEPS], STEPS, 1, q_pairs.data(), STEPS, true);
          }
          for (long d = 0; d < D; d += ROWS)
            tile<T>(&dq[d * BLOCK], &k_pairs[key / T::PACK * D + d], 1, D, ds_words.data(), rows / T::PACK, key > 0);
        }
        for (long n = 0; n < count; n++) {
          Number* to = grad_qkv + task.place[first + n] * 3 * C + offset;
          for (long d = 0; d < D; d++) to[d] = T::round(dq[d * BLOCK + n]);
        }
      }
      for (long n = 0; n < tokens; n++) {
        Number* to = grad_qkv + task.place[n] * 3 * C + offset;
        for (long d = 0; d < D; d++) {
          to[C + d] = T::round(dk[n * D + d]);
          to[2 * C + d] = T::round(dv[n * D + d]);
        }
      }
    }
  }
}

}  // namespace

// A symbol for each precision. Maps are contiguous: qkv (B, T, H, W, 3, heads, D), out (B, T, H, W, heads, D), lse, the
// logarithm to base 2 of each softmax's sum, (windows, heads, tokens).
#define EXPORT(T, NAME)                                                                                                \
  extern "C" void forward_##NAME(const T::Number* qkv, T::Number* out, float* lse, const Shape* shape, float scale) {  \
    forward<T>(qkv, out, lse, *shape, scale);                                                                          \
  }                                                                                                                    \
  extern "C" void backward_##NAME(const T::Number* qkv, const T::Number* out, const float* lse,                        \
                                  const T::Number* grad_out, T::Number* grad_qkv, const Shape* shape, float scale) {   \
    backward<T>(qkv, out, lse, grad_out, grad_qkv, *shape, scale);                                                     \
  }

EXPORT(Fp32, fp32)
#ifdef __AVX512BF16__
EXPORT(Bf16, bf16)
#endif

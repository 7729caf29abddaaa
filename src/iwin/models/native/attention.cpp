// Attention within interleaved windows at head dimension 32, for CPUs with AVX-512.
//
// q, k and v are read from the projection in image order and the result is written in image order, by strides: no
// window is ever gathered in memory as a whole. The softmax runs along blocks of keys and the backward pass computes
// it again from one number a query (FlashAttention, arXiv 2205.14135, 2307.08691).
//
// Every matrix product, forward and backward, is the one tile below: 8 rows by 32 columns, summed over "words". In
// bf16 a word is two numbers that follow each other along the summed axis, and VDPBF16PS sums both at once; in fp32 a
// word is one number. Scores stand with keys as rows and queries as columns, so that a maximum over keys is a maximum
// of registers. A tile of scores becomes weights before it leaves the registers. Sums are fp32 throughout.

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
constexpr long KEYS = 256;  // keys whose weights wait for their product with the values, in the first-level cache

// How far, in powers of two, a score may rise above the one that weights are relative to before that one moves. It must
// leave room for sums below fp32's end, and spares nearly all tiles the multiplication of what has been summed so far.
constexpr float RISE = 8;

// For keys and queries that only fill up a tile: 2^x underflows to 0 as for infinity, of which a difference is no number.
constexpr float FAR = 1e30f;

using Word = int32_t;

#define INLINE inline __attribute__((always_inline))

struct Fp32 {
  using Number = float;
  static constexpr long PACK = 1;  // numbers of a word
  static __m512 add_product(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static __m512i pack(const __m512* rows) { return _mm512_castps_si512(rows[0]); }
  static void store(Word* words, __m512 low, __m512 high) {
    _mm512_storeu_ps(words, low);
    _mm512_storeu_ps(words + 16, high);
  }
  static float read(float x) { return x; }
};

#ifdef __AVX512BF16__
struct Bf16 {
  using Number = uint16_t;
  static constexpr long PACK = 2;
  static __m512 add_product(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  // 16 words from two rows of fp32: the first row's numbers are the words' lower halves. Halves round away from 0, which
  // takes fewer instructions than to even.
  static __m512i pack(const __m512* rows) {
    const __m512i half = _mm512_set1_epi32(0x8000), lower = _mm512_set1_epi32(0xFFFF);
    const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(rows[0]), half), 16);
    const __m512i high = _mm512_add_epi32(_mm512_castps_si512(rows[1]), half);
    return _mm512_ternarylogic_epi32(lower, low, high, 0xCA);  // lower ? low : high
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
};
#endif

// Sums of 8 rows and 32 columns, in registers.
struct Tile {
  __m512 low[ROWS], high[ROWS];
};

INLINE void clear(Tile& sums) {
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r++) sums.low[r] = sums.high[r] = _mm512_setzero_ps();
}

// sums += a b: a's words stand at a[row * row_stride + step * step_stride], b's at b[step][32].
template <class T>
INLINE void multiply(Tile& sums, const Word* a, long row_stride, long step_stride, const Word* b, long steps) {
  for (long s = 0; s < steps; s++) {
    const __m512i b_low = _mm512_loadu_si512(b + s * 32), b_high = _mm512_loadu_si512(b + s * 32 + 16);
#pragma GCC unroll 8
    for (long r = 0; r < ROWS; r++) {
      const __m512i word = _mm512_set1_epi32(a[r * row_stride + s * step_stride]);
      sums.low[r] = T::add_product(sums.low[r], word, b_low);
      sums.high[r] = T::add_product(sums.high[r], word, b_high);
    }
  }
}

// The same with sums[8][32] in memory.
template <class T>
void multiply(float* sums, const Word* a, long row_stride, long step_stride, const Word* b, long steps) {
  Tile tile;
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r++) {
    tile.low[r] = _mm512_loadu_ps(sums + r * 32);
    tile.high[r] = _mm512_loadu_ps(sums + r * 32 + 16);
  }
  multiply<T>(tile, a, row_stride, step_stride, b, steps);
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r++) {
    _mm512_storeu_ps(sums + r * 32, tile.low[r]);
    _mm512_storeu_ps(sums + r * 32 + 16, tile.high[r]);
  }
}

// Scores of rows that only fill up the tile, from `first` on.
INLINE void hide(Tile& scores, long first) {
  for (long r = first; r < ROWS; r++) scores.low[r] = scores.high[r] = _mm512_set1_ps(-FAR);
}

// 2^x: within 3e-7 of its value in fp32, 2e-4 in bf16 (whose own step is 4e-3). The last two factors are exact at 0.
template <class T>
INLINE __m512 exp2(__m512 x) {
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

// The largest of each column of 8 rows.
INLINE __m512 highest(const __m512* rows) {
  __m512 top = rows[0];
#pragma GCC unroll 8
  for (long r = 1; r < ROWS; r++) top = _mm512_max_ps(top, rows[r]);
  return top;
}

// Half a tile of scores as weights relative to the score `most`: words of PACK rows each. Adds them to `sum`.
template <class T>
INLINE void weigh(Word* words, const __m512* scores, __m512 most, __m512 factor, __m512& sum) {
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r += T::PACK) {
    __m512 weights[T::PACK];
#pragma GCC unroll 2
    for (long i = 0; i < T::PACK; i++) {
      weights[i] = exp2<T>(_mm512_mul_ps(_mm512_sub_ps(scores[r + i], most), factor));
      sum = _mm512_add_ps(sum, weights[i]);
    }
    _mm512_storeu_si512(words + r / T::PACK * BLOCK, T::pack(weights));
  }
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

  // To `count` rows of a map, what stands in columns[D][BLOCK].
  template <class T>
  void scatter(typename T::Number* map, long stride, long offset, long first, long count, const float* columns) const {
    constexpr long WIDTH = D / T::PACK;
    Word packed[WIDTH * BLOCK], row[WIDTH];
    for (long s = 0; s < WIDTH; s++)
      for (long h = 0; h < BLOCK; h += 16) {
        __m512 numbers[T::PACK];
        for (long i = 0; i < T::PACK; i++) numbers[i] = _mm512_loadu_ps(columns + (s * T::PACK + i) * BLOCK + h);
        _mm512_storeu_si512(packed + s * BLOCK + h, T::pack(numbers));
      }
    for (long n = 0; n < count; n++) {
      for (long s = 0; s < WIDTH; s++) row[s] = packed[s * BLOCK + n];
      std::memcpy(map + place[first + n] * stride + offset, row, sizeof row);
    }
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

template <class T>
void forward(const typename T::Number* qkv, typename T::Number* out, float* lse, const Shape& shape, float scale) {
  using Number = typename T::Number;
  constexpr long WIDTH = D / T::PACK;  // words of a row
  const long tokens = shape.tokens(), padded = shape.padded(), C = shape.channels();
  const __m512 factor = _mm512_set1_ps(scale * float(M_LOG2E)), rise = _mm512_set1_ps(RISE);
#pragma omp parallel
  {
    std::vector<Number> q(BLOCK * D), k(padded * D), v(padded * D);
    std::vector<Word> q_words(WIDTH * BLOCK), v_words(padded * WIDTH), p_words(KEYS / T::PACK * BLOCK);
    std::vector<float> o(D * BLOCK);
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
        std::fill(o.begin(), o.end(), 0.0f);
        __m512 most[2] = {_mm512_set1_ps(-FAR), _mm512_set1_ps(-FAR)};
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        long begin = 0;  // the first key whose weight waits
        const auto add_values = [&](long end) {
          const long steps = (end - begin) / T::PACK;
          for (long d = 0; d < D; d += ROWS)
            multiply<T>(&o[d * BLOCK], &v_words[begin / T::PACK * D + d], 1, D, p_words.data(), steps);
          begin = end;
        };
        for (long key = 0; key < padded; key += ROWS) {
          Tile s;
          clear(s);
          multiply<T>(s, words<T>(k, key), WIDTH, 1, q_words.data(), WIDTH);
          if (tokens - key < ROWS) hide(s, tokens - key);
          const __m512 top[2] = {highest(s.low), highest(s.high)};
          __mmask16 risen = key == 0;
          for (long h = 0; h < 2; h++)
            risen |= _mm512_cmp_ps_mask(_mm512_mul_ps(_mm512_sub_ps(top[h], most[h]), factor), rise, _CMP_GT_OQ);
          if (risen) {
            add_values(key);
            for (long h = 0; h < 2; h++) {
              const __m512 now = _mm512_max_ps(most[h], top[h]);
              const __m512 shrink = exp2<T>(_mm512_mul_ps(_mm512_sub_ps(most[h], now), factor));
              most[h] = now;
              sum[h] = _mm512_mul_ps(sum[h], shrink);
              for (long d = 0; d < D; d++) {
                float* sums = &o[d * BLOCK + h * 16];
                _mm512_storeu_ps(sums, _mm512_mul_ps(_mm512_loadu_ps(sums), shrink));
              }
            }
          }
          Word* weights = &p_words[(key - begin) / T::PACK * BLOCK];
          weigh<T>(weights, s.low, most[0], factor, sum[0]);
          weigh<T>(weights + 16, s.high, most[1], factor, sum[1]);
          if (key + ROWS - begin == KEYS || key + ROWS == padded) add_values(key + ROWS);
        }
        float total[BLOCK], top[BLOCK];
        for (long h = 0; h < 2; h++) {
          _mm512_storeu_ps(total + h * 16, sum[h]);
          _mm512_storeu_ps(top + h * 16, _mm512_mul_ps(most[h], factor));
          for (long d = 0; d < D; d++) {
            float* sums = &o[d * BLOCK + h * 16];
            _mm512_storeu_ps(sums, _mm512_div_ps(_mm512_loadu_ps(sums), sum[h]));
          }
        }
        for (long n = 0; n < count; n++) lse[index * tokens + first + n] = top[n] + std::log2(total[n]);
        task.scatter<T>(out, C, offset, first, count, o.data());
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
    std::vector<Word> k_pairs(padded * WIDTH), ds_words(KEYS / T::PACK * BLOCK);
    std::vector<Word> p_rows(ROWS * STEPS), ds_rows(ROWS * STEPS);
    std::vector<float> p(ROWS * BLOCK), dq(D * BLOCK), dk(padded * D), dv(padded * D);
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
        std::fill(dq.begin(), dq.end(), 0.0f);
        long begin = 0;  // the first key whose dS waits for its product with k
        for (long key = 0; key < padded; key += ROWS) {
          Tile s;
          clear(s);
          multiply<T>(s, words<T>(k, key), WIDTH, 1, q_words.data(), WIDTH);
          if (tokens - key < ROWS) hide(s, tokens - key);
#pragma GCC unroll 8
          for (long r = 0; r < ROWS; r++) {
            s.low[r] = exp2<T>(_mm512_fmsub_ps(s.low[r], factor, _mm512_loadu_ps(log_sum)));
            s.high[r] = exp2<T>(_mm512_fmsub_ps(s.high[r], factor, _mm512_loadu_ps(log_sum + 16)));
            T::store(&p_rows[r * STEPS], s.low[r], s.high[r]);
            _mm512_storeu_ps(&p[r * BLOCK], _mm512_mul_ps(s.low[r], scales));
            _mm512_storeu_ps(&p[r * BLOCK + 16], _mm512_mul_ps(s.high[r], scales));
          }
          Tile ds;
          clear(ds);
          multiply<T>(ds, words<T>(v, key), WIDTH, 1, g_words.data(), WIDTH);
#pragma GCC unroll 8
          for (long r = 0; r < ROWS; r++) {
            ds.low[r] = _mm512_sub_ps(ds.low[r], _mm512_loadu_ps(delta));
            ds.high[r] = _mm512_sub_ps(ds.high[r], _mm512_loadu_ps(delta + 16));
            ds.low[r] = _mm512_mul_ps(ds.low[r], _mm512_loadu_ps(&p[r * BLOCK]));
            ds.high[r] = _mm512_mul_ps(ds.high[r], _mm512_loadu_ps(&p[r * BLOCK + 16]));
            T::store(&ds_rows[r * STEPS], ds.low[r], ds.high[r]);
          }
#pragma GCC unroll 8
          for (long r = 0; r < ROWS; r += T::PACK) {
            Word* to = &ds_words[(key - begin + r) / T::PACK * BLOCK];
            _mm512_storeu_si512(to, T::pack(&ds.low[r]));
            _mm512_storeu_si512(to + 16, T::pack(&ds.high[r]));
          }
          multiply<T>(&dv[key * D], p_rows.data(), STEPS, 1, g_pairs.data(), STEPS);
          multiply<T>(&dk[key * D], ds_rows.data(), STEPS, 1, q_pairs.data(), STEPS);
          const long end = key + ROWS;
          if (end - begin < KEYS && end < padded) continue;
          for (long d = 0; d < D; d += ROWS)
            multiply<T>(&dq[d * BLOCK], &k_pairs[begin / T::PACK * D + d], 1, D, ds_words.data(), (end - begin) / T::PACK);
          begin = end;
        }
        task.scatter<T>(grad_qkv, 3 * C, offset, first, count, dq.data());
      }
      for (long n = 0; n < tokens; n++) {
        Word row[2][WIDTH];
        T::store(row[0], _mm512_loadu_ps(&dk[n * D]), _mm512_loadu_ps(&dk[n * D + 16]));
        T::store(row[1], _mm512_loadu_ps(&dv[n * D]), _mm512_loadu_ps(&dv[n * D + 16]));
        Number* to = grad_qkv + task.place[n] * 3 * C + offset;
        for (long i = 0; i < 2; i++) std::memcpy(to + (i + 1) * C, row[i], sizeof row[i]);
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

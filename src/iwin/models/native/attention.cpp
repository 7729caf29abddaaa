// Attention within interleaved windows, by heads of up to 32 channels. Those of fewer are filled up by zeros.
//
// q, k and v are read from the projection in image order and the result is written in image order, by strides: no
// window is ever gathered in memory as a whole. The softmax runs along blocks of keys and the backward pass computes
// it again from two numbers a query (FlashAttention, arXiv 2205.14135, 2307.08691): a score near the largest, and the
// logarithm of the sum of weights relative to it. Their sum would be one number, of too few digits for large scores.
//
// A window that reaches past the map is filled up by positions whose keys and values are all the same. They are one key,
// whose score is higher by the logarithm of their number; as queries they are nobody's.
//
// Every matrix product, forward and backward, is the one tile below: ROWS by BLOCK or D, summed over "words". In
// bf16 a word is two numbers that follow each other along the summed axis, and VDPBF16PS sums both at once; in fp32 a
// word is one number. Scores stand with keys as rows and queries as columns, so that a maximum over keys is a maximum
// of registers. A tile of scores becomes weights before it leaves the registers. Sums are fp32 throughout.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

constexpr long D = HEAD_DIM;  // of rows in memory here
constexpr long ROWS = MANY ? 8 : 4;  // rows of a tile
constexpr long BLOCK = MANY ? 32 : 16;  // queries that go together; columns of a tile, of which the last few take LANES
constexpr long KEYS = 256;  // keys whose weights wait for their product with the values, in the first-level cache

// How far, in powers of two, a score may rise above the one that weights are relative to before that one moves. It must
// leave room for sums below fp32's end, and spares nearly all tiles the multiplication of what has been summed so far.
constexpr float RISE = 8;

// For keys and queries that only fill up a tile: 2^x underflows to 0 as for infinity, of which a difference is no number.
constexpr float FAR = 1e30f;

// Sums of ROWS rows and one or two times LANES columns, in registers.
template <long HALVES>
struct Tile {
  Floats sums[HALVES][ROWS];
};

template <long HALVES>
INLINE void clear(Tile<HALVES>& tile) {
#pragma GCC unroll 2
  for (long h = 0; h < HALVES; h++)
#pragma GCC unroll 8
    for (long r = 0; r < ROWS; r++) tile.sums[h][r] = Floats{};
}

// sums += a b: a's words stand at a[row * row_stride + step * step_stride], b's at b[step][STRIDE].
template <class T, long STRIDE, long HALVES>
INLINE void multiply(Tile<HALVES>& tile, const Word* a, long row_stride, long step_stride, const Word* b, long steps) {
  for (long s = 0; s < steps; s++) {
    Ints columns[HALVES];
#pragma GCC unroll 2
    for (long h = 0; h < HALVES; h++) columns[h] = held(load(b + s * STRIDE + h * LANES));
#pragma GCC unroll 8
    for (long r = 0; r < ROWS; r++) {
      const Ints word = repeat(a[r * row_stride + s * step_stride]);
#pragma GCC unroll 2
      for (long h = 0; h < HALVES; h++) tile.sums[h][r] = T::add_product(tile.sums[h][r], word, columns[h]);
    }
  }
}

// The same with sums[ROWS][STRIDE] in memory.
template <class T, long STRIDE, long HALVES>
void multiply(float* sums, const Word* a, long row_stride, long step_stride, const Word* b, long steps) {
  Tile<HALVES> tile;
#pragma GCC unroll 2
  for (long h = 0; h < HALVES; h++)
#pragma GCC unroll 8
    for (long r = 0; r < ROWS; r++) tile.sums[h][r] = load(sums + r * STRIDE + h * LANES);
  multiply<T, STRIDE>(tile, a, row_stride, step_stride, b, steps);
#pragma GCC unroll 2
  for (long h = 0; h < HALVES; h++)
#pragma GCC unroll 8
    for (long r = 0; r < ROWS; r++) store(sums + r * STRIDE + h * LANES, tile.sums[h][r]);
}

// The largest of each column of a tile's rows.
INLINE Floats highest(const Floats* rows) {
  Floats top = rows[0];
#pragma GCC unroll 8
  for (long r = 1; r < ROWS; r++) top = max(top, rows[r]);
  return top;
}

// Half a tile of scores as weights relative to the score `most`: words of PACK rows each. Adds them to `sum`.
template <class T>
INLINE void weigh(Word* words, const Floats* scores, Floats most, Floats factor, Floats& sum) {
#pragma GCC unroll 8
  for (long r = 0; r < ROWS; r += T::PACK) {
    Floats weights[T::PACK];
#pragma GCC unroll 2
    for (long i = 0; i < T::PACK; i++) {
      weights[i] = exp2<T>((scores[r + i] - most) * factor);
      sum = sum + weights[i];
    }
    store(words + r / T::PACK * BLOCK, T::pack(weights));
  }
}

// to[columns][to_stride] = the transpose of from[rows][from_stride]; both divide by 16.
INLINE void transpose(Word* to, long to_stride, const Word* from, long from_stride, long rows, long columns) {
  for (long r = 0; r < rows; r += LANES)
    for (long c = 0; c < columns; c += LANES) {
      Ints square[LANES];
#pragma GCC unroll 16
      for (long i = 0; i < LANES; i++) square[i] = load(from + (r + i) * from_stride + c);
      iwin::transpose(square);
#pragma GCC unroll 16
      for (long i = 0; i < LANES; i++) store(to + (c + i) * to_stride + r, square[i]);
    }
}

// Logarithm to base 2 of a positive number, within 2e-7.
INLINE Floats log2(Floats x) {
  Floats exponent;
  const Floats m = split(x, exponent);
  // log2(m) = 2 / ln 2 artanh(t), t = (m - 1) / (m + 1) up to 1/5
  const Floats one = repeat(1.0f), t = (m - one) / (m + one);
  const Floats square = t * t;
  Floats p = repeat(float(2 * M_LOG2E / 9));
  p = fmadd(p, square, repeat(float(2 * M_LOG2E / 7)));
  p = fmadd(p, square, repeat(float(2 * M_LOG2E / 5)));
  p = fmadd(p, square, repeat(float(2 * M_LOG2E / 3)));
  p = fmadd(p, square, repeat(float(2 * M_LOG2E)));
  return fmadd(p, t, exponent);
}

// Keys of a window that go through tiles at most.
long keys_of(const WindowedMap& map) { return (map.tokens() + 1 + ROWS - 1) / ROWS * ROWS; }

// Copies a row of a head's numbers; most heads have D.
template <class N>
INLINE void copy_row(N* to, const N* from, long count) {
  if (count == D) std::memcpy(to, from, D * sizeof(N));
  else std::memcpy(to, from, count * sizeof(N));
}

// One head of one window: where its tokens stand in image order, and how many positions lie beyond the map.
struct Task {
  long head, head_dim, beyond;
  std::vector<long> place;

  Task(const WindowedMap& s, long task) : head(task % s.heads), head_dim(s.head_dim) {
    place.reserve(s.tokens());
    s.visit_places(task / s.heads, [&](long at) { place.push_back(at); });
    beyond = s.steps * s.rows * s.columns - tokens();
  }

  long tokens() const { return place.size(); }
  long keys() const { return tokens() + (beyond > 0); }  // the last one stands for what lies beyond the map
  long padded() const { return (keys() + ROWS - 1) / ROWS * ROWS; }

  // rows[count][D] from a map with `stride` numbers a position; what remains up to `padded` is 0. Beyond a head's channels
  // rows stay as they are, which must be 0.
  template <class N>
  void gather(N* rows, const N* map, long stride, long offset, long first, long count, long padded) const {
    for (long n = 0; n < count; n++) copy_row(rows + n * D, map + place[first + n] * stride + offset, head_dim);
    std::fill(rows + count * D, rows + padded * D, N(0));
  }

  // rows[padded()][D], all keys or all values: `fill` has those of a position beyond the map.
  template <class N>
  void gather_keys(N* rows, const N* map, const N* fill, long stride, long offset) const {
    gather(rows, map, stride, offset, 0, tokens(), padded());
    if (beyond > 0) copy_row(rows + tokens() * D, fill + offset, head_dim);
  }

  // Of a tile of scores from `key` on: hides rows that only fill it up, and raises the one that stands for several keys.
  template <long HALVES>
  INLINE void finish(Tile<HALVES>& scores, long key, float factor) const {
    if (key + ROWS < keys()) return;
    const Floats far = repeat(-FAR), rise = repeat(std::log2(float(beyond)) / factor);
    const unsigned hidden = 0xFFu << (keys() - key), raised = beyond > 0 ? 1u << (tokens() - key) : 0;
#pragma GCC unroll 2
    for (long h = 0; h < HALVES; h++)
#pragma GCC unroll 8
      for (long r = 0; r < ROWS; r++) {
        Floats& row = scores.sums[h][r];
        if (raised >> r & 1) row = row + rise;
        if (hidden >> r & 1) row = far;
      }
  }

  // To `count` rows of a map, what stands in columns[D][BLOCK].
  template <class T>
  void scatter(typename T::Number* map, long stride, long offset, long first, long count, const float* columns) const {
    constexpr long WIDTH = D / T::PACK;
    Word packed[WIDTH * BLOCK], rows[BLOCK * WIDTH];
    for (long s = 0; s < WIDTH; s++)
      for (long h = 0; h < BLOCK; h += LANES) {
        Floats numbers[T::PACK];
        for (long i = 0; i < T::PACK; i++) numbers[i] = load(columns + (s * T::PACK + i) * BLOCK + h);
        store(packed + s * BLOCK + h, T::pack(numbers));
      }
    transpose(rows, WIDTH, packed, BLOCK, WIDTH, BLOCK);
    for (long n = 0; n < count; n++)
      copy_row(map + place[first + n] * stride + offset, (const typename T::Number*)(rows + n * WIDTH), head_dim);
  }
};

template <class T>
const Word* words(const std::vector<typename T::Number>& rows, long first) {
  return reinterpret_cast<const Word*>(rows.data() + first * D);
}

// [count / PACK][D] words, each of numbers from PACK rows, of rows[count][D].
template <class T>
void pair_rows(std::vector<Word>& to, const std::vector<typename T::Number>& rows, long count) {
  constexpr long WIDTH = D / T::PACK;
  if constexpr (T::PACK == 1) {
    std::memcpy(to.data(), rows.data(), count * WIDTH * sizeof(Word));
  } else {
    for (long n = 0; n < count; n += 2)
      for (long d = 0; d < D; d += LANES)
        store(&to[n * WIDTH + d], T::pair(T::read(&rows[n * D + d]), T::read(&rows[(n + 1) * D + d])));
  }
}

// [D / PACK][BLOCK] words, each of PACK neighbouring channels, of rows[BLOCK][D].
template <class T>
void transpose(std::vector<Word>& to, const std::vector<typename T::Number>& rows) {
  constexpr long WIDTH = D / T::PACK;
  transpose(to.data(), BLOCK, words<T>(rows, 0), WIDTH, BLOCK, WIDTH);
}

template <class T>
struct Forward {
  using Number = typename T::Number;
  static constexpr long WIDTH = D / T::PACK;  // words of a row

  const Attention<T>& maps;
  const WindowedMap& shape;
  const float factor;  // from scores to exponents of 2
  std::vector<Number> q, k, v;
  std::vector<Word> q_words, v_words, p_words;
  std::vector<float> o;

  Forward(const Attention<T>& maps, const WindowedMap& shape, float scale)
      : maps(maps),
        shape(shape),
        factor(scale * float(M_LOG2E)),
        q(BLOCK * D),
        k(keys_of(shape) * D),
        v(keys_of(shape) * D),
        q_words(WIDTH * BLOCK),
        v_words(keys_of(shape) * WIDTH),
        p_words(KEYS / T::PACK * BLOCK),
        o(D * BLOCK) {}

  void run(long index) {
    const Task task(shape, index);
    const long C = shape.channels(), offset = task.head * shape.head_dim;
    task.gather_keys(k.data(), maps.qkv, maps.fill, 3 * C, C + offset);
    task.gather_keys(v.data(), maps.qkv, maps.fill, 3 * C, 2 * C + offset);
    pair_rows<T>(v_words, v, task.padded());
    float* softmax = maps.softmax + index * 2 * shape.tokens();
    std::fill_n(softmax, 2 * shape.tokens(), 0.0f);
    for (long first = 0; first < task.tokens(); first += BLOCK) {
      const long count = std::min(BLOCK, task.tokens() - first);
      task.gather(q.data(), maps.qkv, 3 * C, offset, first, count, BLOCK);
      transpose<T>(q_words, q);
      if (count > LANES) attend<BLOCK / LANES>(task, count, softmax + first);
      else attend<1>(task, count, softmax + first);
      task.template scatter<T>(maps.out, C, offset, first, count, o.data());
    }
  }

  // Lets `count` queries attend to all keys: fills o and `softmax`.
  template <long HALVES>
  INLINE void attend(const Task& task, long count, float* softmax) {
    const Floats factors = repeat(factor), rise = repeat(RISE);
    std::fill(o.begin(), o.end(), 0.0f);
    Floats most[HALVES], sum[HALVES];
    for (long h = 0; h < HALVES; h++) {
      most[h] = repeat(-FAR);
      sum[h] = Floats{};
    }
    long begin = 0;  // the first key whose weight waits
    const auto add_values = [&](long end) {
      for (long d = 0; d < shape.head_dim; d += ROWS)
        multiply<T, BLOCK, HALVES>(&o[d * BLOCK], &v_words[begin / T::PACK * D + d], 1, D, p_words.data(),
                                   (end - begin) / T::PACK);
      begin = end;
    };
    for (long key = 0; key < task.padded(); key += ROWS) {
      Tile<HALVES> s;
      clear(s);
      multiply<T, BLOCK>(s, words<T>(k, key), WIDTH, 1, q_words.data(), WIDTH);
      task.finish(s, key, factor);
      Floats top[HALVES];
      bool risen = key == 0;
#pragma GCC unroll 2
      for (long h = 0; h < HALVES; h++) {
        top[h] = highest(s.sums[h]);
        risen |= any_greater((top[h] - most[h]) * factors, rise);
      }
      if (risen) {
        add_values(key);
        for (long h = 0; h < HALVES; h++) {
          const Floats now = max(most[h], top[h]);
          const Floats shrink = exp2<T>((most[h] - now) * factors);
          most[h] = now;
          sum[h] = sum[h] * shrink;
          for (long d = 0; d < shape.head_dim; d++) {
            float* sums = &o[d * BLOCK + h * LANES];
            store(sums, load(sums) * shrink);
          }
        }
      }
      Word* weights = &p_words[(key - begin) / T::PACK * BLOCK];
#pragma GCC unroll 2
      for (long h = 0; h < HALVES; h++) weigh<T>(weights + h * LANES, s.sums[h], most[h], factors, sum[h]);
      if (key + ROWS - begin == KEYS || key + ROWS == task.padded()) add_values(key + ROWS);
    }
    for (long h = 0; h < HALVES; h++) {
      store(softmax + h * LANES, most[h], count - h * LANES);
      store(softmax + shape.tokens() + h * LANES, log2(sum[h]), count - h * LANES);
      for (long d = 0; d < shape.head_dim; d++) {
        float* sums = &o[d * BLOCK + h * LANES];
        store(sums, load(sums) / sum[h]);
      }
    }
  }
};

template <class T>
struct Backward {
  using Number = typename T::Number;
  static constexpr long WIDTH = D / T::PACK, STEPS = BLOCK / T::PACK;  // words of a row; of a block of queries

  const Attention<T>& maps;
  const Number* const grad_out;
  Number* const grad_qkv;
  float* const grad_fill;  // (windows, heads, 2, head_dim), of keys and values beyond the map
  const WindowedMap& shape;
  const float scale, factor;
  std::vector<Number> q, g, y, k, v;
  std::vector<Word> q_words, g_words, y_words, q_pairs, g_pairs, k_pairs, ds_words;
  std::vector<Number> p_rows, ds_rows;
  std::vector<float> p, dq, dk, dv;

  Backward(const Attention<T>& maps, const Number* grad_out, Number* grad_qkv, float* grad_fill, const WindowedMap& shape,
           float scale)
      : maps(maps),
        grad_out(grad_out),
        grad_qkv(grad_qkv),
        grad_fill(grad_fill),
        shape(shape),
        scale(scale),
        factor(scale * float(M_LOG2E)),
        q(BLOCK * D),
        g(BLOCK * D),
        y(BLOCK * D),
        k(keys_of(shape) * D),
        v(keys_of(shape) * D),
        q_words(WIDTH * BLOCK),
        g_words(WIDTH * BLOCK),
        y_words(WIDTH * BLOCK),
        q_pairs(STEPS * D),
        g_pairs(STEPS * D),
        k_pairs(keys_of(shape) * WIDTH),
        ds_words(KEYS / T::PACK * BLOCK),
        p_rows(ROWS * BLOCK),
        ds_rows(ROWS * BLOCK),
        p(ROWS * BLOCK),
        dq(D * BLOCK),
        dk(keys_of(shape) * D),
        dv(keys_of(shape) * D) {}

  void run(long index) {
    const Task task(shape, index);
    const long C = shape.channels(), offset = task.head * shape.head_dim;
    task.gather_keys(k.data(), maps.qkv, maps.fill, 3 * C, C + offset);
    task.gather_keys(v.data(), maps.qkv, maps.fill, 3 * C, 2 * C + offset);
    pair_rows<T>(k_pairs, k, task.padded());
    std::fill(dk.begin(), dk.end(), 0.0f);
    std::fill(dv.begin(), dv.end(), 0.0f);
    for (long first = 0; first < task.tokens(); first += BLOCK) {
      const long count = std::min(BLOCK, task.tokens() - first);
      const float* softmax = maps.softmax + index * 2 * shape.tokens() + first;
      task.gather(q.data(), maps.qkv, 3 * C, offset, first, count, BLOCK);
      task.gather(g.data(), grad_out, C, offset, first, count, BLOCK);
      task.gather(y.data(), maps.out, C, offset, first, count, BLOCK);
      transpose<T>(q_words, q);
      transpose<T>(g_words, g);
      transpose<T>(y_words, y);
      pair_rows<T>(q_pairs, q, BLOCK);
      pair_rows<T>(g_pairs, g, BLOCK);
      if (count > LANES) differentiate<BLOCK / LANES>(task, count, softmax);
      else differentiate<1>(task, count, softmax);
      task.template scatter<T>(grad_qkv, 3 * C, offset, first, count, dq.data());
    }
    for (long n = 0; n < task.tokens(); n++) {
      Number* to = grad_qkv + task.place[n] * 3 * C + offset;
      give(to + C, &dk[n * D]);
      give(to + 2 * C, &dv[n * D]);
    }
    float* fill = grad_fill + index * 2 * shape.head_dim;
    std::fill(fill, fill + 2 * shape.head_dim, 0.0f);
    if (task.beyond == 0) return;
    std::copy_n(&dk[task.tokens() * D], shape.head_dim, fill);
    std::copy_n(&dv[task.tokens() * D], shape.head_dim, fill + shape.head_dim);
  }

  // A head's numbers of a row, in the precision of maps.
  void give(Number* to, const float* row) const {
    Number numbers[D];
    for (long d = 0; d < D; d += LANES) T::store(numbers + d, load(row + d));
    copy_row(to, numbers, shape.head_dim);
  }

  // Of `count` queries: fills dq, and adds to dk and dv what they say of all keys and values.
  template <long HALVES>
  INLINE void differentiate(const Task& task, long count, const float* softmax) {
    const Floats factors = repeat(factor), scales = repeat(scale);
    Floats most[HALVES], log_sum[HALVES], delta[HALVES];
    for (long h = 0; h < HALVES; h++) {
      most[h] = load(softmax + h * LANES, count - h * LANES);
      log_sum[h] = load(softmax + shape.tokens() + h * LANES, count - h * LANES, repeat(FAR));
      delta[h] = Floats{};
      for (long s = 0; s < WIDTH; s++) {
        const long place = s * BLOCK + h * LANES;
        delta[h] = T::add_product(delta[h], load(&g_words[place]), load(&y_words[place]));
      }
    }
    std::fill(dq.begin(), dq.end(), 0.0f);
    long begin = 0;  // the first key whose dS waits for its product with k
    for (long key = 0; key < task.padded(); key += ROWS) {
      Tile<HALVES> s;
      clear(s);
      multiply<T, BLOCK>(s, words<T>(k, key), WIDTH, 1, q_words.data(), WIDTH);
      task.finish(s, key, factor);
#pragma GCC unroll 2
      for (long h = 0; h < HALVES; h++)
#pragma GCC unroll 8
        for (long r = 0; r < ROWS; r++) {
          const Floats score = s.sums[h][r] - most[h];
          const Floats weights = exp2<T>(fmsub(score, factors, log_sum[h]));
          T::store(&p_rows[r * BLOCK + h * LANES], weights);
          store(&p[r * BLOCK + h * LANES], weights * scales);
        }
      Tile<HALVES> ds;
      clear(ds);
      multiply<T, BLOCK>(ds, words<T>(v, key), WIDTH, 1, g_words.data(), WIDTH);
#pragma GCC unroll 2
      for (long h = 0; h < HALVES; h++) {
#pragma GCC unroll 8
        for (long r = 0; r < ROWS; r++) {
          Floats& value = ds.sums[h][r];
          value = (value - delta[h]) * load(&p[r * BLOCK + h * LANES]);
          T::store(&ds_rows[r * BLOCK + h * LANES], value);
        }
#pragma GCC unroll 8
        for (long r = 0; r < ROWS; r += T::PACK)
          store(&ds_words[(key - begin + r) / T::PACK * BLOCK + h * LANES], T::pack(&ds.sums[h][r]));
      }
      constexpr long STEPS_HERE = HALVES * LANES / T::PACK;
      for (long d = 0; d < shape.head_dim; d += BLOCK) {
        multiply<T, D, BLOCK / LANES>(&dv[key * D + d], words<T>(p_rows, 0), STEPS, 1, &g_pairs[d], STEPS_HERE);
        multiply<T, D, BLOCK / LANES>(&dk[key * D + d], words<T>(ds_rows, 0), STEPS, 1, &q_pairs[d], STEPS_HERE);
      }
      const long end = key + ROWS;
      if (end - begin < KEYS && end < task.padded()) continue;
      for (long d = 0; d < shape.head_dim; d += ROWS)
        multiply<T, BLOCK, HALVES>(&dq[d * BLOCK], &k_pairs[begin / T::PACK * D + d], 1, D, ds_words.data(),
                            (end - begin) / T::PACK);
      begin = end;
    }
  }
};

// Runs all tasks, each by one thread, which makes a job with buffers of its own.
template <class Make>
void run(long tasks, const Make& make) {
  bool enough = true;
#pragma omp parallel reduction(&& : enough)
  {
    std::optional<decltype(make())> own;
    enough = done([&] { own.emplace(make()); });
#pragma omp for schedule(dynamic)
    for (long index = 0; index < tasks; index++) enough = enough && done([&] { own->run(index); });
  }
  if (!enough) throw std::bad_alloc();
}

}  // namespace

template <class T>
void attend(const Attention<T>& maps, const WindowedMap& map, float scale) {
  run(map.tasks(), [&] { return Forward<T>(maps, map, scale); });
}

template <class T>
void attend_backward(const Attention<T>& maps, const typename T::Number* grad, typename T::Number* of_qkv,
                     float* of_fill, const WindowedMap& map, float scale) {
  run(map.tasks(), [&] { return Backward<T>(maps, grad, of_qkv, of_fill, map, scale); });
}

#define EXPORT(T, NAME)                                                                                                \
  template decltype(attend<T>) attend<T>;                                                                              \
  template decltype(attend_backward<T>) attend_backward<T>;                                                            \
  extern "C" int attend_##NAME(const Attention<T>* maps, const WindowedMap* map, float scale) {                        \
    return done([=] { attend(*maps, *map, scale); });                                                                  \
  }                                                                                                                    \
  extern "C" int attend_backward_##NAME(const Attention<T>* maps, const T::Number* grad, T::Number* of_qkv,            \
                                        float* of_fill, const WindowedMap* map, float scale) {                         \
    return done([=] { attend_backward(*maps, grad, of_qkv, of_fill, *map, scale); });                                  \
  }

EXPORT(Fp32, fp32)
#ifdef __AVX512BF16__
EXPORT(Bf16, bf16)
#endif

}  // namespace iwin

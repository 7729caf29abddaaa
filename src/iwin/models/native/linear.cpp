// The products of linear layers and of their gradients.
//
// Each is made of tiles of ROWS rows and PANEL columns, whose sums stay in registers along the whole summed axis; that
// axis goes by words (precision.h). One operand is read where it lies, a word at a time for all columns. Of the other one,
// panels of columns are turned to words side by side, and rounded to bf16 where that is the precision, so that weights in
// fp32 need no copy in bf16. A sum is the same whatever the number of rows, columns and threads around it.

#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace iwin {
namespace {

constexpr long ROWS = MANY ? 8 : 6, REGISTERS = MANY ? 3 : 1, PANEL = REGISTERS * LANES;  // of a tile
constexpr long STEPS = 8;        // words of the summed axis that go together
constexpr long CHUNK = 1 << 17;  // numbers of an operand that go through all panels together, in the second-level cache
constexpr long TOKENS = 512;     // whose products are summed in registers for a weight's gradient

// ---------------------------------------------------------------------------------------- panels

// Makes registers of 16 words: `along` of so many numbers that follow each other in a row, `across` of so many columns, a
// word of each.
template <class T>
struct Words;

template <>
struct Words<Fp32> {
  static Ints along(const float* numbers, long count) { return as_ints(load(numbers, count)); }
  static Ints across(const float* numbers, long, long, long count) { return as_ints(load(numbers, count)); }
};

#ifdef __AVX512BF16__
template <>
struct Words<Bf16> {
  static Ints along(const float* numbers, long count) {
    const Floats low = load(numbers, count), high = load(numbers + LANES, count - LANES);
    return (Ints)_mm512_cvtne2ps_pbh(high, low);
  }
  static Ints along(const uint16_t* numbers, long count) {
    return _mm512_maskz_loadu_epi16((1ull << std::min(2 * LANES, count)) - 1, numbers);
  }
  // From two rows, or from the first alone where there is no other.
  static Ints across(const float* numbers, long stride, long rows, long count) {
    const Floats second = rows > 1 ? load(numbers + stride, count) : Floats{};
    const Ints both = (Ints)_mm512_cvtne2ps_pbh(second, load(numbers, count));
    return Bf16::pair(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
  }
  static Ints across(const uint16_t* numbers, long stride, long rows, long count) {
    const __m256i second = rows > 1 ? Bf16::read(numbers + stride, count) : _mm256_setzero_si256();
    return Bf16::pair(Bf16::read(numbers, count), second);
  }
};
#endif

INLINE long ceil_divide(long a, long b) { return (a + b - 1) / b; }

// panel[steps][16 * registers] of words, for `columns` of them, from rows of numbers along the summed axis: `depth` in each.
// What remains of the last register is 0.
template <class T, class W>
void pack_rows(const W* numbers, long depth, long columns, Word* panel) {
  const long registers = ceil_divide(columns, LANES);
  for (long reg = 0; reg < registers; reg++)
    for (long at = 0; at < depth; at += LANES * T::PACK) {
      const long count = depth - at, columns_left = columns - reg * LANES;
      Ints rows[LANES] = {};
      if (columns_left >= LANES) {
#pragma GCC unroll 16
        for (long r = 0; r < LANES; r++) rows[r] = Words<T>::along(numbers + (reg * LANES + r) * depth + at, count);
      } else {
        for (long r = 0; r < columns_left; r++) rows[r] = Words<T>::along(numbers + (reg * LANES + r) * depth + at, count);
      }
      transpose(rows);
      Word* place = panel + at / T::PACK * registers * LANES + reg * LANES;
#pragma GCC unroll 16
      for (long s = 0; s < LANES; s++)
        if (s * T::PACK < count) store(place + s * registers * LANES, rows[s]);
    }
}

// The same from columns along the summed axis: numbers[depth][stride].
template <class T, class W>
void pack_columns(const W* numbers, long stride, long depth, long columns, Word* panel) {
  for (long at = 0; at < depth; at += T::PACK)
    for (long c = 0; c < columns; c += LANES, panel += LANES)
      store(panel, Words<T>::across(numbers + at * stride + c, stride, depth - at, columns - c));
}

// ---------------------------------------------------------------------------------------- tiles

// Numbers that are wanted soon, fetched a few cache lines at a time: `lines` in each of some rows, `left` in all.
struct Ahead {
  const char* row = nullptr;
  long stride = 0, lines = 0, left = 0, each = 0;

  INLINE void fetch() {
    for (long i = 0; i < each && left > 0; i++, left--) {
      _mm_prefetch(row + line * 64, _MM_HINT_T1);
      if (++line == lines) line = 0, row += stride;
    }
  }

  long line = 0;
};

// Gives out(row, register, sums) the sums of a's words at a[row * row_stride + step * step_stride], times those of a panel
// b[step][16 * V].
template <class T, int R, int V, class Out>
INLINE void tile(const Word* a, long row_stride, long step_stride, const Word* b, long steps, Ahead& ahead,
                 const Out& out) {
  Floats sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) sums[r][v] = Floats{};
  const auto add = [&](long s) __attribute__((always_inline)) {
    Ints columns[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) columns[v] = held(load(b + (s * V + v) * LANES));
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      Word word;
      std::memcpy(&word, a + r * row_stride + s * step_stride, sizeof word);
#pragma GCC unroll 3
      for (int v = 0; v < V; v++) sums[r][v] = T::add_product(sums[r][v], repeat(word), columns[v]);
    }
  };
  long step = 0;
  for (; step + STEPS <= steps; step += STEPS) {
    ahead.fetch();
#pragma GCC unroll 8
    for (int s = 0; s < STEPS; s++) add(step + s);
  }
  for (; step < steps; step++) add(step);
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) out(r, v, sums[r][v]);
}

template <class T, int R, class Out>
INLINE void tile(long registers, const Word* a, long row_stride, long step_stride, const Word* b, long steps,
                 Ahead& ahead, const Out& out) {
  if constexpr (REGISTERS > 1) {
    if (registers == 3) return tile<T, R, 3>(a, row_stride, step_stride, b, steps, ahead, out);
    if (registers == 2) return tile<T, R, 2>(a, row_stride, step_stride, b, steps, ahead, out);
  }
  tile<T, R, 1>(a, row_stride, step_stride, b, steps, ahead, out);
}

// R rows, or what is left of them.
template <class T, int R, class Out>
void rows_of_tile(long rows, long registers, const Word* a, long row_stride, long step_stride, const Word* b, long steps,
                  Ahead& ahead, const Out& out) {
  if constexpr (R > 1)
    if (rows < R) return rows_of_tile<T, R - 1>(rows, registers, a, row_stride, step_stride, b, steps, ahead, out);
  tile<T, R>(registers, a, row_stride, step_stride, b, steps, ahead, out);
}

INLINE long columns_of(long panel, long columns) { return std::min(PANEL, columns - panel * PANEL); }
INLINE long registers_of(long panel, long columns) { return ceil_divide(columns_of(panel, columns), LANES); }

// ---------------------------------------------------------------------------------------- products

// Panel number p of a weight.
template <class T, class W>
void pack(const W* weight, long p, bool turned, long depth, long columns, Word* panel) {
  if (turned) pack_columns<T>(weight + p * PANEL, columns, depth, columns_of(p, columns), panel);
  else pack_rows<T>(weight + p * PANEL * depth, depth, columns_of(p, columns), panel);
}

// The columns of panel number p, of rows from `from` to `to`.
template <class T>
void multiply(const typename T::Number* x, const Word* panel, long p, const float* bias, typename T::Number* out,
              long from, long to, long depth, long columns, Ahead ahead) {
  const long steps = depth / T::PACK;
  for (long row = from; row < to; row += ROWS)
    rows_of_tile<T, ROWS>(to - row, registers_of(p, columns), (const Word*)(x + row * depth), steps, 1, panel, steps,
                          ahead, [=](long r, long v, Floats sums) {
                            const long column = p * PANEL + v * LANES;
                            const Floats start = bias ? load(bias + column, columns - column) : Floats{};
                            T::store(out + (row + r) * columns + column, sums + start, columns - column);
                          });
}

// Rows that go through all panels together.
INLINE long chunk_of(long depth) { return std::max(ROWS, CHUNK / depth / ROWS * ROWS); }

}  // namespace

template <class T, class W>
void linear(const typename T::Number* x, const typename W::Number* weight, const float* bias, typename T::Number* out,
            bool turned, long rows, long depth, long columns) {
  if (!rows) return;
  const long panels = ceil_divide(columns, PANEL), steps = depth / T::PACK, threads = omp_get_max_threads();
  if (rows > FEW || panels < std::min(threads, ceil_divide(rows, ROWS))) {
    const Room<Word> packed(panel_numbers(depth, columns) / T::PACK);
    make_panels<T, W>(weight, packed, turned, depth, columns);
    const long chunks = ceil_divide(rows, chunk_of(depth) * threads) * threads;
    const long chunk = ceil_divide(ceil_divide(rows, chunks), ROWS) * ROWS;
#pragma omp parallel for schedule(dynamic)
    for (long from = 0; from < rows; from += chunk)
      multiply_panels<T>(x + from * depth, packed, bias, out + from * columns, std::min(chunk, rows - from), depth, columns);
    return;
  }
  const long width = ceil_divide(PANEL * sizeof(*weight), 64);
  const long lines = turned ? width * depth : ceil_divide(PANEL * depth * sizeof(*weight), 64);
  const long each = ceil_divide(lines, ceil_divide(rows, ROWS) * std::max(1L, steps / STEPS));
  const Room<Word> kept(threads * steps * PANEL);
  Word* all = kept;
#pragma omp parallel for schedule(static)
  for (long p = 0; p < panels; p++) {
    Word* panel = all + omp_get_thread_num() * steps * PANEL;
    pack<T>(weight, p, turned, depth, columns, panel);
    Ahead ahead;
    if (p + 1 < panels) {
      if (turned) ahead = Ahead{(const char*)(weight + (p + 1) * PANEL), long(columns * sizeof(*weight)), width, lines, each};
      else ahead = Ahead{(const char*)(weight + (p + 1) * PANEL * depth), 0, lines, lines, each};
    }
    multiply<T>(x, panel, p, bias, out, 0, rows, depth, columns, ahead);
  }
}

template <class T, class W>
void make_panels(const typename W::Number* weight, Word* panels, bool turned, long depth, long columns) {
#pragma omp parallel for schedule(static)
  for (long p = 0; p < ceil_divide(columns, PANEL); p++)
    pack<T>(weight, p, turned, depth, columns, panels + p * PANEL * (depth / T::PACK));
}

template <class T>
void multiply_panels(const typename T::Number* x, const Word* panels, const float* bias, typename T::Number* out,
                     long rows, long depth, long columns) {
  const long chunk = chunk_of(depth);
  for (long from = 0; from < rows; from += chunk)
    for (long p = 0; p < ceil_divide(columns, PANEL); p++)
      multiply<T>(x, panels + p * PANEL * (depth / T::PACK), p, bias, out, from, std::min(rows, from + chunk), depth,
                  columns, Ahead{});
}

// Each range of tokens is turned to words anew. The thread that reads the larger operand's words makes them, since another
// core's cache is far away: both loops share out alike.
template <class T>
void weight_gradient(const typename T::Number* x, const typename T::Number* grad, float* of_weight, float* of_bias,
                     bool more, long rows, long ins, long outs) {
  const long steps = TOKENS / T::PACK, panels = ceil_divide(ins, PANEL);
  const long words_of_x = panel_numbers(TOKENS, ins) / T::PACK, words_of_grad = panel_numbers(TOKENS, outs) / T::PACK;
  const Room<Word> kept(words_of_x + words_of_grad);
  Word *of_x = kept, *of_grad = of_x + words_of_x;  // the latter in panels of a register
  if (!more) std::fill_n(of_bias, outs, 0.0f);
#pragma omp parallel
  for (long from = 0; from < std::max(rows, 1L); from += TOKENS) {
    const long tokens = std::min(TOKENS, rows - from), now = ceil_divide(tokens, T::PACK);
    const auto multiply = [=](long p, long column) {
      Ahead none;
      const long last = std::min(LANES, outs - column);
      for (long row = 0; row < last; row += ROWS)
        rows_of_tile<T, ROWS>(last - row, registers_of(p, ins), of_grad + column * steps + row, 1, LANES,
                              of_x + p * PANEL * steps, now, none, [=](long r, long v, Floats sums) {
                                const long at = p * PANEL + v * LANES;
                                float* place = of_weight + (column + row + r) * ins + at;
                                store(place, more || from ? sums + load(place, ins - at) : sums, ins - at);
                              });
    };
#pragma omp for schedule(static) nowait
    for (long p = 0; p < panels; p++)
      pack_columns<T>(x + from * ins + p * PANEL, ins, tokens, columns_of(p, ins), of_x + p * PANEL * steps);
#pragma omp for schedule(static)
    for (long column = 0; column < outs; column += LANES) {
      Word* words = of_grad + column * steps;
      Floats total = Floats{};
      for (long s = 0; s < now; s++) {
        const typename T::Number* numbers = grad + (from + s * T::PACK) * outs + column;
        const long left = tokens - s * T::PACK;
        store(words + s * LANES, Words<T>::across(numbers, outs, left, outs - column));
        for (long i = 0; i < std::min(T::PACK, left); i++) total = total + T::load(numbers + i * outs, outs - column);
      }
      store(of_bias + column, total + load(of_bias + column, outs - column), outs - column);
    }
    if (outs < ins) {
#pragma omp for schedule(static)
      for (long p = 0; p < panels; p++)
        for (long column = 0; column < outs; column += LANES) multiply(p, column);
    } else {
      for (long p = 0; p < panels; p++)
#pragma omp for schedule(static) nowait
        for (long column = 0; column < outs; column += LANES) multiply(p, column);
#pragma omp barrier
    }
  }
}

#define EXPORT(T, W, NAME)                                                                                             \
  template decltype(linear<T, W>) linear<T, W>;                                                                        \
  template decltype(make_panels<T, W>) make_panels<T, W>;                                                              \
  extern "C" int linear_##NAME(const T::Number* x, const W::Number* weight, const float* bias, T::Number* out,         \
                               long turned, long rows, long depth, long columns) {                                     \
    return done([=] { linear<T, W>(x, weight, bias, out, turned, rows, depth, columns); });                            \
  }

#define EXPORT_GRADIENT(T, NAME)                                                                                       \
  template decltype(weight_gradient<T>) weight_gradient<T>;                                                            \
  template decltype(multiply_panels<T>) multiply_panels<T>;                                                            \
  extern "C" int weight_gradient_##NAME(const T::Number* x, const T::Number* grad, float* of_weight, float* of_bias,   \
                                        long rows, long ins, long outs) {                                              \
    return done([=] { weight_gradient<T>(x, grad, of_weight, of_bias, false, rows, ins, outs); });                     \
  }

EXPORT(Fp32, Fp32, fp32_fp32)
EXPORT_GRADIENT(Fp32, fp32)
#ifdef HAS_BF16_PRODUCTS
EXPORT(Bf16, Fp32, fp32_bf16)
EXPORT(Bf16, Bf16, bf16_bf16)
EXPORT_GRADIENT(Bf16, bf16)
#endif

}  // namespace iwin

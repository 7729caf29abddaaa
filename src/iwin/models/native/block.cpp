// All of a block of the model in one call, forward and backward: the other kernels one after another. Each call from Python
// takes some tens of microseconds more, as long as many a kernel on a small map.

#include <omp.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

constexpr long SLICE_BACK = 1024;  // tokens of each thread that go back through the MLP together
constexpr long TOGETHER = 16384;   // tokens of whole samples that go together, where nothing is kept of them
constexpr size_t STAYS = 1 << 27;  // bytes of room at most that a thread keeps from call to call

// What a block's layers are, but for their parameters.
struct Settings {
  WindowedMap map;
  long hidden;  // channels within the MLP
  float scale, eps1, eps2;
  const float* shares;  // (2, batch): what each sample's branches are multiplied by; missing where that is 1
};

// In the model's order. Biases may be missing, and the convolution.
template <class W>
struct Parameters {
  const typename W::Number *norm1, *norm1_bias, *qkv, *qkv_bias, *proj, *proj_bias, *conv, *conv_bias;
  const typename W::Number *norm2, *norm2_bias, *wide, *wide_bias, *narrow, *narrow_bias;
};

// Of the parameters, in pairs: both are there, or neither where nobody wants them.
struct Gradients {
  float *norm1, *norm1_bias, *qkv, *qkv_bias, *proj, *proj_bias, *conv, *conv_bias;
  float *norm2, *norm2_bias, *wide, *wide_bias, *narrow, *narrow_bias;
};

// What the forward pass makes on its way and the backward pass reads. What normalising makes is made once more instead.
template <class X, class T>
struct Kept {
  typename T::Number *qkv, *attended;
  float *softmax, *stats;
  typename X::Number* sum;  // of the map and its first branch
  float* stats_of_sum;
  typename T::Number* hidden;
};

// Parameters in fp32: as they are, or a copy.
template <class W>
class InFp32 {
 public:
  InFp32(const typename W::Number* numbers, long count) : at_(nullptr) {
    if (!numbers) return;
    if constexpr (W::EXACT) {
      at_ = numbers;
    } else {
      copy_.resize(count);
      along(count, [&](long n, long, long some) { store(&copy_[n], W::load(numbers + n, some), some); });
      at_ = copy_.data();
    }
  }
  operator const float*() const { return at_; }

 private:
  std::vector<float> copy_;
  const float* at_;
};

// Room that stays with its thread from call to call: the system takes as long to find memory anew, and to clear it, as
// many a kernel to fill it. What is asked to be empty is given back.
char* staying_room(long bytes) {
  thread_local Room<char> room(0);
  thread_local long size = 0;
  if (bytes > size || bytes == 0) {
    size = 0;
    room = Room<char>(0);  // gives back what is too little before there is more
    room = Room<char>(bytes);
    size = bytes;
  }
  return room;
}

// Room for a call: if it may, and up to a size, that which stays.
template <class N>
class Workspace {
 public:
  Workspace(long numbers, bool may_stay) : stays_(may_stay && numbers * sizeof(N) <= STAYS), own_(stays_ ? 0 : numbers) {
    at_ = stays_ ? (N*)staying_room(numbers * sizeof(N)) : (N*)own_;
  }
  operator N*() const { return at_; }

 private:
  const bool stays_;
  const Room<N> own_;
  N* at_;
};

template <class X, class T, class W>
class Block {
  using N = typename T::Number;
  using M = typename X::Number;

 public:
  Block(const Parameters<W>& p, const Settings& settings)
      : p(p),
        s(settings),
        map(settings.map),
        frames{map.batch * map.steps, map.height, map.width, map.channels()},
        places(map.places()),
        C(map.channels()),
        fill(map.fits() ? 0 : 3 * C) {
    const InFp32<W> bias(p.qkv_bias, 3 * C);
    if (!p.qkv_bias || map.fits()) return;
    along(3 * C, [&](long c, long, long count) { T::store(&fill[c], load(bias + c, count), count); });
  }

  void forward(const M* x, const Kept<X, T>* kept, M* out) const {
    const long count = slice_rows(), slice = count * (C + s.hidden), threads = omp_get_max_threads();
    const bool alone = count < places;  // each slice on a thread of its own, with weights put in order for all
    const long panels = alone ? panel_numbers(C, s.hidden) + panel_numbers(s.hidden, C) : 0;
    const long mlp = panels + (alone ? threads : 1) * slice;
    const bool by_windows = !kept && alone && windows_busy();
    const long whole = kept ? 0 : 3 * places * C;  // what attention takes where it goes through the map at once
    const Workspace<N> room(places * C + std::max(by_windows ? room_by_windows() : whole, mlp), !kept);
    N *normed = (N*)out, *mixed = room, *rest = room + places * C;
    Kept<X, T> to{};
    if (kept) to = *kept;
    else to.sum = out;
    normalise(x, normed, to.stats);
    if (by_windows) {
      attend_by_windows(normed, mixed, rest);
    } else {
      const Room<float> softmax(kept ? 0 : map.tasks() * 2 * map.tokens());
      if (!kept) {
        to.qkv = room;  // nobody reads it any more when `mixed` takes its place
        to.attended = rest + 2 * places * C;
        to.softmax = softmax;
      }
      multiply(normed, p.qkv, p.qkv_bias, to.qkv, places, C, 3 * C);
      attend<T>({to.qkv, fill.data(), to.attended, to.softmax}, map, s.scale);
      multiply(to.attended, p.proj, p.proj_bias, mixed, places, C, C);
    }
    if (p.conv) convolve<T>(normed, taps(false).data(), InFp32<W>(p.conv_bias, C), mixed, mixed, frames);
    if (s.shares) share<T>(0, mixed, 0, places, mixed);

    const InFp32<W> norm2(p.norm2, C), norm2_bias(p.norm2_bias, C);
    const Layer wide(p.wide, p.wide_bias, C, s.hidden, alone ? rest : nullptr);
    const Layer narrow(p.narrow, p.narrow_bias, s.hidden, C, alone ? rest + panel_numbers(C, s.hidden) : nullptr);
    const auto finish = [&](long from, N* branch) {
      const long rows = std::min(count, places - from), at = from * C;
      N* active = branch + count * C;
      N* hidden = kept ? to.hidden + from * s.hidden : active;
      M* sum = to.sum + at;
      norm<X, T>(x + at, mixed + at, norm2, norm2_bias, s.eps2, sum, branch, kept ? to.stats_of_sum + 2 * from : nullptr,
                 rows, C);
      wide(branch, hidden, rows);
      gelu<T>(hidden, active, rows * s.hidden);
      narrow(active, branch, rows);
      if (s.shares) share<T>(1, branch, from, rows, branch);
      add<X, T>(sum, branch, out + at, rows * C);
    };
    if (!alone) return finish(0, rest);
    on_threads((places - 1) / count + 1,
               [&](long n) { finish(n * count, rest + panels + omp_get_thread_num() * slice); });
  }

  void backward(const M* x, const Kept<X, T>& kept, const M* grad, M* of_x, const Gradients& of) const {
    const bool same = std::is_same_v<X, T> && !s.shares;  // of a branch, and of the map it is added to
    const long count = std::min(places, SLICE_BACK * omp_get_max_threads()), slice = 2 * count * (s.hidden + C);
    const long most = std::max(4 * places * C, slice);
    const Room<N> room(most + (same ? 1 : 2) * places * C);
    N *more = room + most, *shared = more + places * C;
    std::vector<float> of_norm(2 * C);

    N* of_normed = more;
    for (long from = 0; from < places; from += count) {
      const long rows = std::min(count, places - from);
      N *of_hidden = room, *active = of_hidden + count * s.hidden, *normed = active + count * s.hidden;
      const N* of_branch = (const N*)grad + from * C;
      if (!same) of_branch = share<X>(1, grad + from * C, from, rows, normed + count * C);
      multiply_back(of_branch, p.narrow, of_hidden, rows, C, s.hidden);
      gelu_backward<T>(kept.hidden + from * s.hidden, of_hidden, active, rows * s.hidden);
      if (of.narrow) weight_gradient<T>(active, of_branch, of.narrow, of.narrow_bias, from > 0, rows, s.hidden, C);
      if (of.wide) {
        norm<X, T>(kept.sum + from * C, nullptr, InFp32<W>(p.norm2, C), InFp32<W>(p.norm2_bias, C), s.eps2, nullptr,
                   normed, nullptr, rows, C);
        weight_gradient<T>(normed, of_hidden, of.wide, of.wide_bias, from > 0, rows, C, s.hidden);
      }
      multiply_back(of_hidden, p.wide, of_normed + from * C, rows, s.hidden, C);
    }
    norm_backward<X, T>(kept.sum, kept.stats_of_sum, InFp32<W>(p.norm2, C), of_normed, grad, of_x, of_norm.data(),
                        places, C);
    give(of_norm, of.norm2, of.norm2_bias);

    const N* of_branch = same ? (const N*)of_x : share<X>(0, of_x, 0, places, shared);
    N *of_qkv = room, *of_attended = room + 3 * places * C, *normed = more;
    multiply_back(of_branch, p.proj, of_attended, places, C, C);
    if (of.proj) weight_gradient<T>(kept.attended, of_branch, of.proj, of.proj_bias, false, places, C, C);
    const Room<float> of_fill(map.tasks() * 2 * map.head_dim);
    attend_backward<T>({kept.qkv, fill.data(), kept.attended, kept.softmax}, of_attended, of_qkv, of_fill, map, s.scale);
    if (of.qkv || of.conv) normalise(x, normed, nullptr);
    if (of.qkv) {
      weight_gradient<T>(normed, of_qkv, of.qkv, of.qkv_bias, false, places, C, 3 * C);
      if (!map.fits()) add_fill(of_fill, of.qkv_bias);
    }
    of_normed = of_attended;
    multiply_back(of_qkv, p.qkv, of_normed, places, 3 * C, C);
    if (p.conv) convolve<T>(of_branch, taps(true).data(), nullptr, of_normed, of_normed, frames);
    if (of.conv) {
      std::vector<float> sums((TAPS + 1) * C);
      convolution_gradients<T>(normed, of_branch, sums.data(), frames);
      for (long c = 0; c < C; c++)
        for (long t = 0; t < TAPS; t++) of.conv[c * TAPS + t] = sums[t * C + c];
      std::copy_n(&sums[TAPS * C], C, of.conv_bias);
    }
    norm_backward<X, T>(x, kept.stats, InFp32<W>(p.norm1, C), of_normed, of_x, of_x, of_norm.data(), places, C);
    give(of_norm, of.norm1, of.norm1_bias);
  }

 private:
  // A linear layer on all threads, or where there is room for its panels, on the one that calls.
  class Layer {
   public:
    Layer(const typename W::Number* weight, const typename W::Number* bias, long depth, long columns, N* room)
        : weight(weight), bias(bias, columns), depth(depth), columns(columns), panels((Word*)room) {
      if (panels) make_panels<T, W>(weight, panels, false, depth, columns);
    }
    void operator()(const N* given, N* out, long rows) const {
      if (panels) multiply_panels<T>(given, panels, bias, out, rows, depth, columns);
      else linear<T, W>(given, weight, bias, out, false, rows, depth, columns);
    }

   private:
    const typename W::Number* weight;
    const InFp32<W> bias;
    const long depth, columns;
    Word* panels;
  };

  // Whether there are windows for all threads all the time, and more than are there at once.
  bool windows_busy() const {
    const long threads = omp_get_max_threads(), windows = map.windows();
    return windows >= 2 * threads && (windows % threads == 0 || windows >= 16 * threads);
  }

  // mixed = what a map becomes by attention and its projections, each window on a thread of its own: all that is made of
  // one on the way stays in the caches. The room has the weights in order, and for each thread four activations.
  void attend_by_windows(const N* normed, N* mixed, N* room) const {
    const Layer to_qkv(p.qkv, p.qkv_bias, C, 3 * C, room), proj(p.proj, p.proj_bias, C, C, room + panel_numbers(C, 3 * C));
    const long most = map.tokens() * C, scores = map.heads * 2 * map.tokens();
    const Room<float> softmax(omp_get_max_threads() * scores);
    on_threads(map.windows(), [&](long window) {
      const WindowedMap own = map.only(window);
      N *rows = room + panels_by_windows() + omp_get_thread_num() * 4 * most, *qkv = rows + most, *next = rows;
      map.visit_places(window, [&](long place) { next = std::copy_n(normed + place * C, C, next); });
      to_qkv(rows, qkv, own.places());
      attend<T>({qkv, fill.data(), rows, softmax + omp_get_thread_num() * scores}, own, s.scale);
      proj(rows, qkv, own.places());
      next = qkv;
      map.visit_places(window, [&](long place) {
        std::copy_n(next, C, mixed + place * C);
        next += C;
      });
    });
  }

  long panels_by_windows() const { return panel_numbers(C, 3 * C) + panel_numbers(C, C); }
  long room_by_windows() const { return panels_by_windows() + omp_get_max_threads() * 4 * map.tokens() * C; }

  // Tokens that go through the MLP together: of a map of few all of them, else as many for each thread.
  long slice_rows() const {
    const long threads = omp_get_max_threads(), rounds = (places - 1) / (threads * SLICE) + 1;
    return places <= FEW ? places : (places - 1) / (threads * rounds) + 1;
  }

  void normalise(const M* x, N* normed, float* stats) const {
    norm<X, T>(x, nullptr, InFp32<W>(p.norm1, C), InFp32<W>(p.norm1_bias, C), s.eps1, nullptr, normed, stats, places, C);
  }

  void multiply(const N* given, const typename W::Number* weight, const typename W::Number* bias, N* out, long rows,
                long depth, long columns) const {
    linear<T, W>(given, weight, InFp32<W>(bias, columns), out, false, rows, depth, columns);
  }

  void multiply_back(const N* grad, const typename W::Number* weight, N* out, long rows, long depth, long columns) const {
    linear<T, W>(grad, weight, nullptr, out, true, rows, depth, columns);
  }

  // The convolution's weights (C, 9) as its kernel reads them; turned around, for the gradient of its map.
  std::vector<float> taps(bool turned) const {
    const InFp32<W> weights(p.conv, TAPS * C);
    std::vector<float> made(TAPS * C);
    for (long c = 0; c < C; c++)
      for (long t = 0; t < TAPS; t++) made[t * C + c] = weights[c * TAPS + (turned ? TAPS - 1 - t : t)];
    return made;
  }

  // out = `rows` of a map, from one of its places on, times the share that their sample has of a branch.
  template <class From>
  const N* share(long branch, const typename From::Number* rows_of_map, long from, long rows, N* out) const {
    const long each = places / map.batch;
    for (long at = from; at < from + rows;) {
      const long sample = at / each, end = std::min(from + rows, (sample + 1) * each), start = (at - from) * C;
      scale<From, T>(rows_of_map + start, s.shares ? s.shares[branch * map.batch + sample] : 1, out + start, (end - at) * C);
      at = end;
    }
    return out;
  }

  void give(const std::vector<float>& of_norm, float* of_weight, float* of_bias) const {
    if (!of_weight) return;
    std::copy_n(of_norm.data(), C, of_weight);
    std::copy_n(of_norm.data() + C, C, of_bias);
  }

  // Adds what the keys and values beyond the map say of the bias that they are.
  void add_fill(const float* of_fill, float* of_bias) const {
    for (long task = 0; task < map.tasks(); task++)
      for (long kind = 0; kind < 2; kind++)
        for (long d = 0; d < map.head_dim; d++)
          of_bias[(1 + kind) * C + task % map.heads * map.head_dim + d] += of_fill[(task * 2 + kind) * map.head_dim + d];
  }

  const Parameters<W>& p;
  const Settings& s;
  const WindowedMap& map;
  const Frames frames;
  const long places, C;
  std::vector<N> fill;  // what windows hold beyond the map: what a projection makes of zeros
};

// Where nothing is kept, samples go through a block in parts, which take less room.
template <class X, class T, class W>
void forward(const typename X::Number* x, const Parameters<W>& parameters, const Kept<X, T>* kept,
             typename X::Number* out, const Settings& settings) {
  const WindowedMap& map = settings.map;
  const long each = map.places() / map.batch, together = std::max(1L, TOGETHER / each);
  if (kept || settings.shares) return Block<X, T, W>(parameters, settings).forward(x, kept, out);
  for (long b = 0; b < map.batch; b += together) {
    Settings part = settings;
    part.map.batch = std::min(together, map.batch - b);
    const long start = b * each * map.channels();
    Block<X, T, W>(parameters, part).forward(x + start, nullptr, out + start);
  }
}

}  // namespace

#define EXPORT(X, T, W, NAME)                                                                                          \
  extern "C" int block_##NAME(const X::Number* x, const Parameters<W>* parameters, const Kept<X, T>* kept,             \
                              X::Number* out, const Settings* settings) {                                              \
    return done([=] { forward<X, T, W>(x, *parameters, kept, out, *settings); });                                      \
  }                                                                                                                    \
  extern "C" int block_backward_##NAME(const X::Number* x, const Parameters<W>* parameters, const Kept<X, T>* kept,    \
                                       const X::Number* grad, X::Number* of_x, const Gradients* of_parameters,         \
                                       const Settings* settings) {                                                     \
    return done([=] { Block<X, T, W>(*parameters, *settings).backward(x, *kept, grad, of_x, *of_parameters); });       \
  }

FOR_ALL_PRECISIONS(EXPORT)

extern "C" int forget_room() {
  return done([] { staying_room(0); });
}

}  // namespace iwin

// The way from one stage to the next, forward and backward: a norm, then a 3x3 convolution of stride 2 as a product with
// what it reads, of which there are never more than some lines at once.

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

constexpr long TOGETHER = 2048;  // positions of whole frames that go back together

// A map (frames, height, width, C), which becomes (frames, lines, columns, K). Beyond its lower and right end are zeros.
struct Halving {
  long frames, height, width, C, K;
  long lines() const { return (height + 1) / 2; }
  long columns() const { return (width + 1) / 2; }
  long depth() const { return 9 * C; }  // numbers of a patch, which are those of 3 x 3 places
};

// Of the norm, and of the convolution: weight[K][3][3][C].
template <class W>
struct Layers {
  const float *norm, *norm_bias;
  const typename W::Number* weight;
  const float* bias;
};

struct Gradients {
  float *norm, *norm_bias, *weight, *bias;
};

template <class X, class T, class W>
class Downsample {
  using N = typename T::Number;
  using M = typename X::Number;

 public:
  Downsample(const M* map, const Layers<W>& layers, float eps, const Halving& shape)
      : map(map), layers(layers), eps(eps), s(shape), C(s.C), line_size((2 * s.columns() + 1) * C) {}

  void forward(N* out) const {
    const long lines = s.frames * s.lines(), columns = s.columns(), depth = s.depth();
    if (lines * columns <= FEW) {
      const Room<N> patches(lines * columns * depth);
#pragma omp parallel for schedule(static)
      for (long line = 0; line < lines; line++) gather(line, 1, patches + line * columns * depth, nullptr);
      linear<T, W>(patches, layers.weight, layers.bias, out, false, lines * columns, depth, s.K);
      return;
    }
    const long count = (SLICE - 1) / columns + 1, room = count * columns * depth;
    const Room<N> panels(panel_numbers(depth, s.K)), patches(omp_get_max_threads() * room);
    make_panels<T, W>(layers.weight, (Word*)(N*)panels, false, depth, s.K);
#pragma omp parallel for schedule(dynamic)
    for (long line = 0; line < lines; line += count) {
      const long now = std::min(count, lines - line);
      N* own = patches + omp_get_thread_num() * room;
      gather(line, now, own, nullptr);
      multiply_panels<T>(own, (const Word*)(const N*)panels, layers.bias, out + line * columns * s.K, now * columns, depth, s.K);
    }
  }

  void backward(const N* grad, M* of_map, const Gradients& of) const {
    const long each = s.lines() * s.columns(), depth = s.depth(), places = s.height * s.width;
    const long together = std::min(s.frames, (TOGETHER - 1) / each + 1);
    const Room<N> patches(together * each * depth), of_normed(together * places * C);
    const Room<float> stats(together * places * 2);
    std::vector<float> of_norms(2 * C);
    std::fill_n(of.norm, C, 0.0f);
    std::fill_n(of.norm_bias, C, 0.0f);
    for (long frame = 0; frame < s.frames; frame += together) {
      const long now = std::min(together, s.frames - frame);
      const N* of_out = grad + frame * each * s.K;
#pragma omp parallel for schedule(static)
      for (long line = 0; line < now * s.lines(); line++)
        gather(frame * s.lines() + line, 1, patches + line * s.columns() * depth,
               stats + (line / s.lines() * s.height + line % s.lines() * 2) * s.width * 2);
      weight_gradient<T>(patches, of_out, of.weight, of.bias, frame > 0, now * each, depth, s.K);
      linear<T, W>(of_out, layers.weight, nullptr, patches, true, now * each, s.K, depth);
#pragma omp parallel for schedule(static)
      for (long line = 0; line < now * s.height; line++)
        add_up(patches + line / s.height * each * depth, line % s.height, of_normed + line * s.width * C);
      norm_backward<X, T>(map + frame * places * C, stats, layers.norm, of_normed, nullptr, of_map + frame * places * C,
                          of_norms.data(), now * places, C);
      for (long c = 0; c < C; c++) {
        of.norm[c] += of_norms[c];
        of.norm_bias[c] += of_norms[C + c];
      }
    }
  }

 private:
  // patches[count * columns][depth], what the convolution reads for so many lines of its result. The norm's numbers of the
  // two lines that each begins with go to `stats`, if there is room for them.
  void gather(long line, long count, N* patches, float* stats) const {
    std::vector<N> room(3 * line_size);
    N* lines[3] = {room.data(), room.data() + line_size, room.data() + 2 * line_size};
    for (long n = 0; n < count; n++) {
      const long frame = (line + n) / s.lines(), y = (line + n) % s.lines() * 2;
      const bool next = n > 0 && y > 0;  // the third of the lines before is the first of these
      if (next) std::swap(lines[0], lines[2]);
      for (long i = next; i < 3; i++) {
        if (y + i >= s.height) {
          std::fill_n(lines[i], s.width * C, N(0));
          continue;
        }
        norm<X, T>(map + (frame * s.height + y + i) * s.width * C, nullptr, layers.norm, layers.norm_bias, eps, nullptr,
                   lines[i], stats && i < 2 ? stats + i * s.width * 2 : nullptr, s.width, C);
      }
      for (long column = 0; column < s.columns(); column++, patches += s.depth())
        for (long i = 0; i < 3; i++) std::memcpy(patches + i * 3 * C, lines[i] + column * 2 * C, 3 * C * sizeof(N));
    }
  }

  // Of line y of a frame, the sum of what all patches that reach there have.
  void add_up(const N* patches, long y, N* out) const {
    for (long x = 0; x < s.width; x++, out += C)
      along(C, [&](long c, long, long count) __attribute__((always_inline)) {
        Floats sum = Floats{};
        for (long line = std::max(0L, (y - 1) / 2); line <= y / 2; line++)
          for (long column = std::max(0L, (x - 1) / 2); column <= x / 2; column++) {
            const long place = (y - 2 * line) * 3 + x - 2 * column;
            sum = sum + T::load(patches + (line * s.columns() + column) * s.depth() + place * C + c, count);
          }
        T::store(out + c, sum, count);
      });
  }

  const M* map;
  const Layers<W>& layers;
  const float eps;
  const Halving& s;
  const long C, line_size;
};

}  // namespace

#define EXPORT(X, T, W, NAME)                                                                                          \
  extern "C" int downsample_##NAME(const X::Number* map, const Layers<W>* layers, float eps, T::Number* out,           \
                                   const Halving* shape) {                                                             \
    return done([=] { Downsample<X, T, W>(map, *layers, eps, *shape).forward(out); });                                 \
  }                                                                                                                    \
  extern "C" int downsample_backward_##NAME(const X::Number* map, const Layers<W>* layers, float eps,                  \
                                            const T::Number* grad, X::Number* of_map, const Gradients* of,             \
                                            const Halving* shape) {                                                    \
    return done([=] { Downsample<X, T, W>(map, *layers, eps, *shape).backward(grad, of_map, *of); });                  \
  }

FOR_ALL_PRECISIONS(EXPORT)

}  // namespace iwin

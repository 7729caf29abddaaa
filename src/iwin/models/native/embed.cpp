// The patch embedding, forward and backward: a clip's patches through a linear layer and a norm, a row of patches at a
// time, so that there never is a map of patches.

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace iwin {
namespace {

// Clips (batch, planes, frames, height, width), cut into patches of t x h x w, the last of which may reach beyond the
// clip, where there are zeros; each becomes `channels` numbers.
struct Clips {
  long batch, planes, frames, height, width, t, h, w, channels;
  long steps() const { return (frames + t - 1) / t; }
  long rows() const { return (height + h - 1) / h; }
  long columns() const { return (width + w - 1) / w; }
  long depth() const { return planes * t * h * w; }
  long maps() const { return batch * steps(); }
};

// A linear layer's weight[channels][depth], whose numbers are in the order of a patch's, and bias; a norm's weight; and
// what is added to its result, its bias among it: shift[steps][channels]. Or the gradients of all that.
template <class N>
struct Layers {
  N *weight, *bias, *norm, *shift;
};

template <class X, class T>
class Embedding {
  using N = typename T::Number;
  using M = typename X::Number;

 public:
  Embedding(const M* clips, const Layers<const float>& layers, float eps, const Clips& shape)
      : clips(clips),
        layers(layers),
        eps(eps),
        s(shape),
        C(shape.channels),
        depth(shape.depth()),
        columns(shape.columns()),
        panels(panel_numbers(depth, C)) {
    make_panels<T, Fp32>(layers.weight, (Word*)(N*)panels, false, depth, C);
  }

  void forward(M* out) const {
    const long threads = omp_get_max_threads();
    const Room<N> patches(threads * columns * depth), products(threads * columns * C);
#pragma omp parallel for schedule(static)
    for (long row = 0; row < s.maps() * s.rows(); row++) {
      const long thread = omp_get_thread_num(), map = row / s.rows();
      N *given = patches + thread * columns * depth, *made = products + thread * columns * C;
      gather(map, row % s.rows(), given);
      multiply(given, made);
      norm<T, X>(made, nullptr, layers.norm, shift(map), eps, nullptr, out + row * columns * C, nullptr, columns, C);
    }
  }

  void backward(const M* grad, const Layers<float>& of) const {
    const long places = s.rows() * columns;
    const Room<N> patches(places * depth), products(places * C);
    const Room<float> stats(places * 2);
    const Room<M> unread(omp_get_max_threads() * columns * C);
    std::vector<float> of_norms(2 * C);
    std::fill_n(of.norm, C, 0.0f);
    std::fill_n(of.shift, s.steps() * C, 0.0f);
    for (long map = 0; map < s.maps(); map++) {
#pragma omp parallel for schedule(static)
      for (long row = 0; row < s.rows(); row++) {
        N *given = patches + row * columns * depth, *made = products + row * columns * C;
        gather(map, row, given);
        multiply(given, made);
        norm<T, X>(made, nullptr, layers.norm, shift(map), eps, nullptr,
                   unread + omp_get_thread_num() * columns * C, stats + row * columns * 2, columns, C);
      }
      norm_backward<T, X>(products, stats, layers.norm, grad + map * places * C, nullptr, products, of_norms.data(), places, C);
      float* of_step = of.shift + map % s.steps() * C;
      for (long c = 0; c < C; c++) {
        of.norm[c] += of_norms[c];
        of_step[c] += of_norms[C + c];
      }
      weight_gradient<T>(patches, products, of.weight, of.bias, map > 0, places, depth, C);
    }
  }

 private:
  // patches[columns][depth] of a row of patches of one map.
  void gather(long map, long row, N* patches) const {
    const long b = map / s.steps(), step = map % s.steps();
    std::vector<N> line(columns * s.w);
    for (long plane = 0, at = 0; plane < s.planes; plane++)
      for (long frame = step * s.t; frame < (step + 1) * s.t; frame++)
        for (long y = row * s.h; y < (row + 1) * s.h; y++, at += s.w) {
          if (frame < s.frames && y < s.height) {
            turn(clips + (((b * s.planes + plane) * s.frames + frame) * s.height + y) * s.width, line.data());
          } else {
            std::fill(line.begin(), line.end(), N(0));
          }
          if (s.w == 4) spread<4>(line.data(), patches + at);
          else spread<0>(line.data(), patches + at);
        }
  }

  // A line of a clip in the precision of products.
  void turn(const M* line, N* to) const {
    along(s.width, [&](long at, long, long count) __attribute__((always_inline)) {
      T::store(to + at, X::load(line + at, count), count);
    });
  }

  // A line's numbers, `w` to each patch; W is the same where it is known beforehand.
  template <long W>
  INLINE void spread(const N* line, N* patches) const {
    const long w = W ? W : s.w;
    for (long column = 0; column < columns; column++) std::memcpy(patches + column * depth, line + column * w, w * sizeof(N));
  }

  void multiply(const N* patches, N* products) const {
    multiply_panels<T>(patches, (const Word*)(const N*)panels, layers.bias, products, columns, depth, C);
  }

  const float* shift(long map) const { return layers.shift + map % s.steps() * C; }

  const M* clips;
  const Layers<const float>& layers;
  const float eps;
  const Clips& s;
  const long C, depth, columns;
  const Room<N> panels;
};

}  // namespace

#define EXPORT(X, T, NAME)                                                                                             \
  extern "C" int embed_##NAME(const X::Number* clips, const Layers<const float>* layers, float eps, X::Number* out,    \
                              const Clips* shape) {                                                                    \
    return done([=] { Embedding<X, T>(clips, *layers, eps, *shape).forward(out); });                                   \
  }                                                                                                                    \
  extern "C" int embed_backward_##NAME(const X::Number* clips, const Layers<const float>* layers, float eps,           \
                                       const X::Number* grad, const Layers<float>* of_layers, const Clips* shape) {    \
    return done([=] { Embedding<X, T>(clips, *layers, eps, *shape).backward(grad, *of_layers); });                     \
  }

// By the precisions of clips and maps, and of products.
EXPORT(Fp32, Fp32, fp32_fp32)
#ifdef HAS_BF16_PRODUCTS
EXPORT(Fp32, Bf16, fp32_bf16)
EXPORT(Bf16, Bf16, bf16_bf16)
#endif

}  // namespace iwin

// The kernels as each other's callers see them. T is the precision of products and of what they read and make, W that of
// weights, X that of the maps that blocks add to; where nothing else is said, maps are contiguous (rows, channels).

#pragma once

#include "precision.h"

// In bf16 linear layers are oneDNN's where a CPU has matrix units, which it multiplies by.
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define HAS_BF16_PRODUCTS
#endif

namespace iwin {

// ---------------------------------------------------------------------------------------- attention.cpp

constexpr long HEAD_DIM = 32;  // channels of a head at most

// A map (batch, steps, height, width) and its windows of rows x columns positions, some of which may lie beyond the map.
struct WindowedMap {
  long batch, steps, height, width, heads, head_dim, windows_down, windows_across, rows, columns;
  long places() const { return batch * steps * height * width; }
  long channels() const { return heads * head_dim; }
  long windows() const { return batch * windows_down * windows_across; }
  long tasks() const { return windows() * heads; }
  long tokens() const {  // of the window that has most within the map
    return steps * ((height - 1) / windows_down + 1) * ((width - 1) / windows_across + 1);
  }
  bool fits() const { return height == windows_down * rows && width == windows_across * columns; }

  long first_row(long window) const { return window / windows_across % windows_down; }
  long first_column(long window) const { return window % windows_across; }

  // What of a window lies within the map, as a map of its own.
  WindowedMap only(long window) const {
    const long down = (height - 1 - first_row(window)) / windows_down + 1;
    const long across = (width - 1 - first_column(window)) / windows_across + 1;
    return {1, steps, down, across, heads, head_dim, 1, 1, rows, columns};
  }

  // Calls visit(place) for all places of the map that are a window's, in the order of time, row and column.
  template <class Visit>
  void visit_places(long window, const Visit& visit) const {
    const long b = window / (windows_across * windows_down);
    for (long t = 0; t < steps; t++)
      for (long row = first_row(window); row < height; row += windows_down)
        for (long column = first_column(window); column < width; column += windows_across)
          visit(((b * steps + t) * height + row) * width + column);
  }
};

// What is attended to, and how: qkv (B, T, H, W, 3, heads, D), fill (3, heads, D), which is what qkv has beyond the map,
// out (B, T, H, W, heads, D), and softmax (windows, heads, 2, tokens): of each query a score and the logarithm to base 2
// of the sum of weights relative to it.
template <class T>
struct Attention {
  const typename T::Number *qkv, *fill;
  typename T::Number* out;
  float* softmax;
};

template <class T>
void attend(const Attention<T>& maps, const WindowedMap& map, float scale);

// From the gradient of `out` to that of qkv, and to those of keys and values beyond the map: of_fill (windows, heads, 2, D).
template <class T>
void attend_backward(const Attention<T>& maps, const typename T::Number* grad, typename T::Number* of_qkv,
                     float* of_fill, const WindowedMap& map, float scale);

// ---------------------------------------------------------------------------------------- depthwise.cpp

constexpr long TAPS = 9;

// A map (frames, height, width, channels); channels divide by 8.
struct Frames {
  long frames, height, width, channels;
  long row() const { return width * channels; }
};

// out = the convolution of a map by taps[9][channels], plus bias[channels], if there is one, plus another map, if there is
// one, which may be `out` itself.
template <class T>
void convolve(const typename T::Number* map, const float* taps, const float* bias, const typename T::Number* plus,
              typename T::Number* out, const Frames& shape);

// result[10][channels] = the gradients of the taps and of the bias.
template <class T>
void convolution_gradients(const typename T::Number* map, const typename T::Number* grad, float* result,
                           const Frames& shape);

// ---------------------------------------------------------------------------------------- linear.cpp

constexpr long FEW = 1024;   // rows up to which all threads work at them together
constexpr long SLICE = 256;  // rows of more that a thread takes by itself through several layers, to stay in its caches

// out[rows][columns] = the product of x[rows][depth] and weight[columns][depth], or weight[depth][columns] where it is
// `turned`, and bias[columns], if there is one. Sizes divide by 8.
template <class T, class W>
void linear(const typename T::Number* x, const typename W::Number* weight, const float* bias, typename T::Number* out,
            bool turned, long rows, long depth, long columns);

// How many of T's numbers the panels of a weight take.
inline long panel_numbers(long depth, long columns) { return depth * ((columns - 1) / LANES + 1) * LANES; }

// The same in two calls, for a weight that is read many times: its panels, and a product with them, on the thread that
// calls.
template <class T, class W>
void make_panels(const typename W::Number* weight, Word* panels, bool turned, long depth, long columns);

template <class T>
void multiply_panels(const typename T::Number* x, const Word* panels, const float* bias, typename T::Number* out,
                     long rows, long depth, long columns);

// of_weight[outs][ins] = grad[rows][outs]^T x[rows][ins]; of_bias[outs] = the sum of grad over its rows. With `more`, both
// are added to what is there: of 512 rows, or a multiple, at a time, that gives the same as of all at once.
template <class T>
void weight_gradient(const typename T::Number* x, const typename T::Number* grad, float* of_weight, float* of_bias,
                     bool more, long rows, long ins, long outs);

// ---------------------------------------------------------------------------------------- tokens.cpp; sizes divide by 8

// out may be x.
template <class T>
void gelu(const typename T::Number* x, typename T::Number* out, long numbers);

// out = gelu(x) once more; grad, of gelu(x), becomes that of x.
template <class T>
void gelu_backward(const typename T::Number* x, typename T::Number* grad, typename T::Number* out, long numbers);

// out = the norm of map + plus; the sum goes to `sum`. Without `plus`, of the map alone. Each row's mean and scale go to
// stats[rows][2], if that is asked for.
template <class X, class T>
void norm(const typename X::Number* map, const typename T::Number* plus, const float* weight, const float* bias,
          float eps, typename X::Number* sum, typename T::Number* out, float* stats, long rows, long channels);

// of_map = the gradient of a map from that of its norm, and `plus`, if there is one, which may be of_map itself;
// of_weights[2][channels] = those of weight and bias.
template <class X, class T>
void norm_backward(const typename X::Number* map, const float* stats, const float* weight,
                   const typename T::Number* grad, const typename X::Number* plus, typename X::Number* of_map,
                   float* of_weights, long rows, long channels);

// out = map + plus; out may be the map.
template <class X, class T>
void add(const typename X::Number* map, const typename T::Number* plus, typename X::Number* out, long numbers);

// out = factor * map; out may be the map.
template <class X, class T>
void scale(const typename X::Number* map, float factor, typename T::Number* out, long numbers);

}  // namespace iwin

// EXPORT(X, T, W, name) for all precisions of maps, products and weights that go together.
#ifdef HAS_BF16_PRODUCTS
#define FOR_ALL_PRECISIONS(EXPORT)         \
  EXPORT(Fp32, Fp32, Fp32, fp32_fp32_fp32) \
  EXPORT(Fp32, Bf16, Fp32, fp32_bf16_fp32) \
  EXPORT(Fp32, Bf16, Bf16, fp32_bf16_bf16) \
  EXPORT(Bf16, Bf16, Fp32, bf16_bf16_fp32) \
  EXPORT(Bf16, Bf16, Bf16, bf16_bf16_bf16)
#else
#define FOR_ALL_PRECISIONS(EXPORT) EXPORT(Fp32, Fp32, Fp32, fp32_fp32_fp32)
#endif

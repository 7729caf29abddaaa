// RGB of planes of luma and colour, where four pixels share their colour (4:2:0): to the last bit what libswscale makes
// of them, but only of the part that is wanted.
//
// As there, in words: luma less its offset, and both colours less 128, times 8, times a factor, of which the upper half
// is kept. Red, green and blue are sums of those.

#ifdef __AVX512VBMI__

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace {

constexpr long LANES = 32;

struct Plane {
  const uint8_t* pixels;
  long stride;  // in bytes
};

struct Box {
  long top, left, height, width;
};

struct Factors {
  int16_t offset, luma, red_v, green_u, green_v, blue_u;
};

__m512i scaled(__m512i words, int offset, int16_t factor) {
  const __m512i eightfold = _mm512_sub_epi16(_mm512_slli_epi16(words, 3), _mm512_set1_epi16(int16_t(offset)));
  return _mm512_mulhi_epi16(eightfold, _mm512_set1_epi16(factor));
}

__m512i load(const uint8_t* bytes, long count) {
  return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(_bzhi_u32(~0u, uint32_t(count)), bytes));
}

__m512i clipped(__m512i luma, __m512i colour) {
  const __m512i sum = _mm512_max_epi16(_mm512_add_epi16(luma, colour), _mm512_setzero_si512());
  return _mm512_castsi256_si512(_mm512_cvtusepi16_epi8(sum));
}

// Where each of the 96 bytes of LANES pixels comes from: red and green lie in one register, blue in another.
struct Interleaving {
  uint8_t places[128];
  Interleaving() {
    for (long n = 0; n < 128; n++) places[n] = uint8_t(n % 3 * LANES + n / 3 % LANES);
  }
};

}  // namespace

extern "C" void to_rgb(const Plane* planes, const Box* box, const Factors* factors, uint8_t* out) {
  static const Interleaving interleaving;
  const __m512i first = _mm512_loadu_si512(interleaving.places), rest = _mm512_loadu_si512(interleaving.places + 64);
  const long odd = box->left % 2;  // then the first pixel has its colour for itself
  int16_t pairs[LANES];
  for (long n = 0; n < LANES; n++) pairs[n] = int16_t((n + odd) / 2);
  const __m512i shared = _mm512_loadu_si512(pairs);
  for (long row = box->top; row < box->top + box->height; row++) {
    const uint8_t* y = planes[0].pixels + row * planes[0].stride + box->left;
    const uint8_t* u = planes[1].pixels + row / 2 * planes[1].stride + box->left / 2;
    const uint8_t* v = planes[2].pixels + row / 2 * planes[2].stride + box->left / 2;
    for (long x = 0; x < box->width; x += LANES) {
      const long count = std::min(LANES, box->width - x), colours = (count + odd + 1) / 2;
      const __m512i luma = scaled(load(y + x, count), factors->offset, factors->luma);
      const __m512i us = load(u + x / 2, colours), vs = load(v + x / 2, colours);
      const __m512i red = scaled(vs, 1024, factors->red_v), blue = scaled(us, 1024, factors->blue_u);
      const __m512i green = _mm512_add_epi16(scaled(us, 1024, factors->green_u), scaled(vs, 1024, factors->green_v));
      const __m512i r = clipped(luma, _mm512_permutexvar_epi16(shared, red));
      const __m512i g = clipped(luma, _mm512_permutexvar_epi16(shared, green));
      const __m512i b = clipped(luma, _mm512_permutexvar_epi16(shared, blue));
      const __m512i rg = _mm512_inserti64x4(r, _mm512_castsi512_si256(g), 1);
      const long bytes = 3 * count;
      _mm512_mask_storeu_epi8(out, _bzhi_u64(~0ull, uint32_t(std::min(bytes, 64L))), _mm512_permutex2var_epi8(rg, first, b));
      if (bytes > 64)
        _mm512_mask_storeu_epi8(out + 64, _bzhi_u64(~0ull, uint32_t(bytes - 64)), _mm512_permutex2var_epi8(rg, rest, b));
      out += bytes;
    }
  }
}

#endif

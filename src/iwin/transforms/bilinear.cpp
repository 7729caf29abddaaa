// Bilinear interpolation of RGB pictures, without antialiasing: to the last bit what PyTorch makes of bytes.
//
// As there, rows are interpolated first and rounded to bytes, then columns. 16 numbers are made at once: VPERMI2B
// brings the two that each is made of together out of the 128 bytes that hold them all, VPMADDWD weighs and adds them.

#ifdef __AVX512VBMI__

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr long LANES = 16;
constexpr long TABLE = 128;

// Rows or columns of the result: the first of the two that each is made of, and the weights of both, times 2^precision.
struct Axis {
  const int32_t* first;
  const int16_t* weights;
  long precision;

  __m512i half() const { return _mm512_set1_epi32(1 << (precision - 1)); }
  __m128i round(__m512i sum) const {
    sum = _mm512_srav_epi32(_mm512_add_epi32(sum, half()), _mm512_set1_epi32(int32_t(precision)));
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(sum, _mm512_setzero_si512()));
  }
};

// What is read and what is written; strides in bytes. A row read has at least TABLE bytes.
struct Shape {
  long pictures, height, width, picture_stride, row_stride;
  long out_height, out_width;
};

// How a row becomes LANES numbers, for each LANES of the result.
struct Group {
  long base;  // where the bytes begin that hold all it is made of
  uint8_t places[4 * LANES];
  int16_t weights[2 * LANES];
};

std::vector<Group> groups_of(const Shape& shape, const Axis& columns) {
  const long bytes = shape.out_width * 3;
  std::vector<Group> groups((bytes + LANES - 1) / LANES);
  for (long start = 0; start < bytes; start += LANES) {
    Group& group = groups[start / LANES];
    group.base = std::min(columns.first[start / 3] * 3L, shape.width * 3 - TABLE);
    for (long n = 0; n < LANES; n++) {
      const long number = std::min(start + n, bytes - 1), x = number / 3, colour = number % 3;
      for (long i = 0; i < 2; i++) {
        const long pixel = std::min(columns.first[x] + i, shape.width - 1);
        group.places[n * 4 + i * 2] = uint8_t(pixel * 3 + colour - group.base);
        group.weights[n * 2 + i] = columns.weights[x * 2 + i];
      }
    }
  }
  return groups;
}

}  // namespace

extern "C" void interpolate(const uint8_t* in, uint8_t* out, const Shape* given, const Axis* rows, const Axis* columns) {
  const Shape& shape = *given;
  const std::vector<Group> groups = groups_of(shape, *columns);
  const long bytes = shape.out_width * 3;
  std::vector<uint8_t> lines[2] = {std::vector<uint8_t>(groups.size() * LANES), std::vector<uint8_t>(groups.size() * LANES)};
  for (long p = 0; p < shape.pictures; p++) {
    long held[2] = {-1, -1};  // the rows that `lines` were made of: an even one and an odd one
    for (long y = 0; y < shape.out_height; y++, out += bytes) {
      const long pair[2] = {rows->first[y], std::min(rows->first[y] + 1L, shape.height - 1)};
      for (const long row : pair) {
        if (held[row % 2] == row) continue;
        held[row % 2] = row;
        const uint8_t* from = in + p * shape.picture_stride + row * shape.row_stride;
        uint8_t* to = lines[row % 2].data();
        for (const Group& group : groups) {
          const __m512i low = _mm512_loadu_si512(from + group.base), high = _mm512_loadu_si512(from + group.base + 64);
          const __m512i places = _mm512_loadu_si512(group.places);
          const __m512i pairs = _mm512_maskz_permutex2var_epi8(0x5555555555555555, low, places, high);
          const __m512i sum = _mm512_madd_epi16(pairs, _mm512_loadu_si512(group.weights));
          _mm_storeu_si128((__m128i*)to, columns->round(sum));
          to += LANES;
        }
      }
      const uint8_t *top = lines[pair[0] % 2].data(), *bottom = lines[pair[1] % 2].data();
      const int16_t* weights = rows->weights + y * 2;
      const __m512i both = _mm512_set1_epi32(uint16_t(weights[0]) | int32_t(weights[1]) << 16);
      for (long n = 0; n < bytes; n += LANES) {
        const __m512i a = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(top + n)));
        const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(bottom + n)));
        const __m512i sum = _mm512_madd_epi16(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)), both);
        const __mmask16 there = bytes - n < LANES ? (1 << (bytes - n)) - 1 : -1;
        _mm_mask_storeu_epi8(out + n, there, rows->round(sum));
      }
    }
  }
}

#endif

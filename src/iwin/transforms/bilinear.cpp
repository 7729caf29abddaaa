// Bilinear interpolation of RGB pictures, without antialiasing: to the last bit what PyTorch makes of bytes.
//
// As there, rows are interpolated first and rounded to bytes, then columns. 16 numbers are made at once: VPERMI2B
// brings the two that each is made of together out of 128 bytes that hold them all, VPMADDWD weighs and adds them. Four
// times 16 become 64 bytes.

#ifdef __AVX512VBMI__

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr long LANES = 16;
constexpr long BYTES = 4 * LANES;
constexpr long TABLE = 128;

// Rows or columns of the result: the first of the two that each is made of, and the weights of both, times 2^precision.
struct Axis {
  const int32_t* first;
  const int16_t* weights;
  long precision;

  __m512i round(__m512i sum) const {
    const __m512i half = _mm512_set1_epi32(1 << (precision - 1));
    return _mm512_sra_epi32(_mm512_add_epi32(sum, half), _mm_cvtsi64_si128(precision));
  }
};

// Four times LANES numbers as bytes, in their order.
__m512i pack(const __m512i* numbers) {
  const __m512i low = _mm512_packus_epi32(numbers[0], numbers[1]), high = _mm512_packus_epi32(numbers[2], numbers[3]);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}

// Bytes of two registers in pairs of words, LANES of them from `first` on.
struct Pairing {
  uint8_t places[4 * LANES];
  explicit Pairing(long first) {
    for (long n = 0; n < LANES; n++)
      for (long i = 0; i < 4; i++) places[n * 4 + i] = uint8_t(first + n + (i == 2 ? 64 : 0));
  }
};

// What VPERMI2B brings together becomes words: every second byte is 0.
__m512i bring(__m512i low, const uint8_t* places, __m512i high) {
  return _mm512_maskz_permutex2var_epi8(0x5555555555555555, low, _mm512_loadu_si512(places), high);
}

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
  std::vector<Group> groups((bytes + BYTES - 1) / BYTES * 4);
  for (long start = 0; start < long(groups.size()) * LANES; start += LANES) {
    Group& group = groups[start / LANES];
    group.base = std::min(columns.first[std::min(start, bytes - 1) / 3] * 3L, shape.width * 3 - TABLE);
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
  const long bytes = shape.out_width * 3, line = long(groups.size()) * LANES;
  static const Pairing pairings[4] = {Pairing(0), Pairing(LANES), Pairing(2 * LANES), Pairing(3 * LANES)};
  std::vector<uint8_t> lines[2] = {std::vector<uint8_t>(line), std::vector<uint8_t>(line)};
  for (long p = 0; p < shape.pictures; p++) {
    long held[2] = {-1, -1};  // the rows that `lines` were made of: an even one and an odd one
    for (long y = 0; y < shape.out_height; y++, out += bytes) {
      const long pair[2] = {rows->first[y], std::min(rows->first[y] + 1L, shape.height - 1)};
      for (const long row : pair) {
        if (held[row % 2] == row) continue;
        held[row % 2] = row;
        const uint8_t* from = in + p * shape.picture_stride + row * shape.row_stride;
        uint8_t* to = lines[row % 2].data();
        for (long g = 0; g < long(groups.size()); g += 4, to += BYTES) {
          __m512i numbers[4];
          for (long i = 0; i < 4; i++) {
            const Group& group = groups[g + i];
            const __m512i low = _mm512_loadu_si512(from + group.base), high = _mm512_loadu_si512(from + group.base + 64);
            const __m512i pairs = bring(low, group.places, high);
            numbers[i] = columns->round(_mm512_madd_epi16(pairs, _mm512_loadu_si512(group.weights)));
          }
          _mm512_storeu_si512(to, pack(numbers));
        }
      }
      const uint8_t *top = lines[pair[0] % 2].data(), *bottom = lines[pair[1] % 2].data();
      const int16_t* weights = rows->weights + y * 2;
      const __m512i both = _mm512_set1_epi32(uint16_t(weights[0]) | int32_t(weights[1]) << 16);
      for (long n = 0; n < bytes; n += BYTES) {
        const __m512i a = _mm512_loadu_si512(top + n), b = _mm512_loadu_si512(bottom + n);
        __m512i numbers[4];
        for (long i = 0; i < 4; i++) numbers[i] = rows->round(_mm512_madd_epi16(bring(a, pairings[i].places, b), both));
        _mm512_mask_storeu_epi8(out + n, _bzhi_u64(~0ull, uint32_t(std::min(bytes - n, BYTES))), pack(numbers));
      }
    }
  }
}

#endif

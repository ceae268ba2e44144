// Sums of pixel · weight with 16-bit multipliers: weight = high · 2^kLowBits + low, each part summed on its own and put
// together at the end. In arithmetic modulo 2^32 that is the portable sum, bit for bit. One multiplication takes two
// taps.
#include "resize_rows.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define MEMRT_AVX2 __attribute__((target("avx2")))

namespace memrt {

namespace {

constexpr int kLow = ResizeWeights::kLowBits;
constexpr int kBits = ResizeWeights::kBits;

struct Sums {
    __m256i high;
    __m256i low;
};

MEMRT_AVX2 inline Sums no_sums() {
    return {_mm256_setzero_si256(), _mm256_set1_epi32(ResizeWeights::kHalf)};
}

MEMRT_AVX2 inline __m256i weight_pair(const std::int16_t* weights) {
    std::int32_t pair;
    std::memcpy(&pair, weights, sizeof(pair));
    return _mm256_set1_epi32(pair);
}

MEMRT_AVX2 inline void add(Sums& sums, __m256i samples, __m256i high, __m256i low) {
    sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(samples, high));
    sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(samples, low));
}

MEMRT_AVX2 inline __m256i total(const Sums& sums) {
    return _mm256_srai_epi32(_mm256_add_epi32(sums.low, _mm256_slli_epi32(sums.high, kLow)), kBits);
}

// One RGB pixel (and a zero) of each of two rows, as 32-bit numbers: row a in the low half, row b in the high one.
MEMRT_AVX2 inline __m256i mix_pixels(const std::uint8_t* from_a, const std::uint8_t* from_b,
                                     const ResizeWeights& weights, std::size_t output) {
    // Of four RGB pixels: the first two, then the last two, as (r r', g g', b b', 0 0) in 16 bits.
    const __m256i first_two =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i last_two =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const std::uint8_t* a = from_a + 3 * weights.first[output];
    const std::uint8_t* b = from_b + 3 * weights.first[output];
    const std::int16_t* high = weights.high.data() + output * weights.padded;
    const std::int16_t* low = weights.low.data() + output * weights.padded;
    Sums sums = no_sums();
    std::size_t left = weights.count[output];
    for (; left > 2; left -= left < 4 ? left : 4, a += 12, b += 12, high += 4, low += 4) {
        const __m256i pixels =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))),
                                    _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), 1);
        add(sums, _mm256_shuffle_epi8(pixels, first_two), weight_pair(high), weight_pair(low));
        add(sums, _mm256_shuffle_epi8(pixels, last_two), weight_pair(high + 2), weight_pair(low + 2));
    }
    if (left > 0) {
        const __m256i pixels =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a))),
                                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)), 1);
        add(sums, _mm256_shuffle_epi8(pixels, first_two), weight_pair(high), weight_pair(low));
    }
    return total(sums);
}

MEMRT_AVX2 void across(const std::uint8_t* from_a, const std::uint8_t* from_b, std::uint8_t* to_a, std::uint8_t* to_b,
                       const ResizeWeights& weights) {
    const __m256i without_zeros =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    for (std::size_t output = 0; output < weights.outputs; output += ResizeWeights::kGroup) {
        const __m256i front = _mm256_packs_epi32(mix_pixels(from_a, from_b, weights, output),
                                                 mix_pixels(from_a, from_b, weights, output + 1));
        const __m256i back = _mm256_packs_epi32(mix_pixels(from_a, from_b, weights, output + 2),
                                                mix_pixels(from_a, from_b, weights, output + 3));
        const __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(front, back), without_zeros);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to_a + 3 * output), _mm256_castsi256_si128(bytes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to_b + 3 * output), _mm256_extracti128_si256(bytes, 1));
    }
}

MEMRT_AVX2 void down(const std::uint8_t* const* rows, std::uint8_t* to, std::size_t bytes, const ResizeWeights& weights,
                     std::size_t output) {
    constexpr std::size_t kBlock = 32;
    const std::int16_t* high = weights.high.data() + output * weights.padded;
    const std::int16_t* low = weights.low.data() + output * weights.padded;
    const std::size_t taps = weights.count[output];
    const __m256i zero = _mm256_setzero_si256();
    if (bytes < kBlock) return kPortableRows.down(rows, to, bytes, weights, output);
    for (std::size_t block = 0; block < bytes; block += kBlock) {
        const std::size_t start = std::min(block, bytes - kBlock);  // the last one may overlap the one before
        Sums sums[4] = {no_sums(), no_sums(), no_sums(), no_sums()};
        for (std::size_t tap = 0; tap < taps; tap += 2) {
            // After an odd number of taps the last row is taken twice; the second time its weight is zero.
            const std::uint8_t* other = rows[tap + 1 < taps ? tap + 1 : tap];
            const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[tap] + start));
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(other + start));
            const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
            const __m256i w_high = weight_pair(high + tap), w_low = weight_pair(low + tap);
            add(sums[0], _mm256_unpacklo_epi8(ab_low, zero), w_high, w_low);
            add(sums[1], _mm256_unpackhi_epi8(ab_low, zero), w_high, w_low);
            add(sums[2], _mm256_unpacklo_epi8(ab_high, zero), w_high, w_low);
            add(sums[3], _mm256_unpackhi_epi8(ab_high, zero), w_high, w_low);
        }
        // The packs work on 128-bit halves, as the unpacks did: the bytes come back into their order.
        const __m256i front = _mm256_packs_epi32(total(sums[0]), total(sums[1]));
        const __m256i back = _mm256_packs_epi32(total(sums[2]), total(sums[3]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + start), _mm256_packus_epi16(front, back));
    }
}

constexpr ResizeRows kAvx2Rows{across, down};

}  // namespace

const ResizeRows& fastest_rows() {
    return __builtin_cpu_supports("avx2") ? kAvx2Rows : kPortableRows;
}

}  // namespace memrt

#else

namespace memrt {

const ResizeRows& fastest_rows() {
    return kPortableRows;
}

}  // namespace memrt

#endif
